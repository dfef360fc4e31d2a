"""Prototypes of planted latents."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from spinlock.prototypes import OperatorLatents, token_means


def test_planted_latents_have_the_planted_prototypes():
    """Twenty operators sit at known places, and their samples are spread evenly about these."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    spread = torch.randn(20, 1, 3, generator=generator, dtype=torch.float64)
    latent = (places[:, None] + torch.cat([spread, -spread], dim=1)).flatten(0, 1)
    operator = 7 * torch.arange(20).repeat_interleave(2)
    mixed = torch.randperm(40, generator=generator)
    latents = OperatorLatents.of(operator[mixed], latent[mixed].float())
    assert latents.operator.tolist() == list(range(0, 140, 7))
    # A point at a place has its operator first, and then those at the nearest places.
    found = latents.nearest(places, 4)
    distance = torch.cdist(places, places)
    assert torch.equal(found.operators, 7 * distance.argsort(dim=1)[:, :4])
    assert found.operators[:, 0].tolist() == list(range(0, 140, 7))
    torch.testing.assert_close(
        found.distances.double(), distance.sort(dim=1).values[:, :4], atol=1e-5, rtol=1e-5
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
def test_nearest_agrees_with_a_loop(seed, operators, count, dim):
    random = np.random.default_rng(seed)
    # Few distinct values, so that distances are tied; means of 1, 2 or 4 of them have no rounding.
    operator = np.repeat(np.arange(operators), random.choice([1, 2, 4], operators))
    operator = random.permutation(operator)
    latent = random.integers(0, 3, (len(operator), dim)).astype(np.float32)
    points = random.integers(0, 3, (4, dim)).astype(np.float32)
    found = OperatorLatents.of(torch.from_numpy(operator), torch.from_numpy(latent)).nearest(
        torch.from_numpy(points), count
    )
    for point, row in zip(points, found.operators.tolist(), strict=True):
        means = {int(o): latent[operator == o].mean(0, dtype=np.float64) for o in {*operator}}
        ranked = sorted(means, key=lambda o: (round(np.linalg.norm(means[o] - point), 9), o))
        assert row == (ranked + [-1] * count)[:count]


def test_points_that_are_no_numbers_have_no_prototypes():
    latents = OperatorLatents.of(torch.tensor([0, 1]), torch.tensor([[0.0], [1.0]]))
    found = latents.nearest(torch.tensor([[torch.nan], [0.9]]), 2)
    assert found.operators.tolist() == [[-1, -1], [1, 0]]
    assert found.distances[0].isinf().all()


def test_without_operators_there_are_no_prototypes():
    latents = OperatorLatents.of(torch.empty(0, dtype=torch.int64), torch.empty(0, 2))
    assert latents.nearest(torch.zeros(3, 2), 2).operators.tolist() == [[-1, -1]] * 3


def test_means_of_tokens():
    means = token_means(torch.tensor([2, 0, 2]), torch.tensor([[1.0], [5.0], [2.0]]), 4)
    assert means[:, 0].tolist() == pytest.approx([5.0, np.nan, 1.5, np.nan], nan_ok=True)
