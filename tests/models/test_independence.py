"""Independence terms: zero for independent latents, positive for dependent ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import mutual_info_score

from spinlock.errors import ConfigurationError
from spinlock.models.independence import (
    CodeInformation,
    IndependenceConfig,
    IndependenceTerms,
    entropy_deficit,
    random_directions,
    sliced_wasserstein,
)

AXES = torch.eye(3)


def same_for_all(variants=4, samples=25, dim=3):
    """Latents that are the same set in every variant, shuffled."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(samples, dim, generator=generator)
    order = torch.randperm(samples * variants, generator=generator)
    return points.repeat(variants, 1)[order], torch.arange(variants).repeat_interleave(samples)[
        order
    ]


def one_hot_codes(tokens, num_codes):
    return torch.nn.functional.one_hot(tokens, num_codes).float()


def test_sliced_wasserstein_of_independent_latents_is_zero():
    latent, variant = same_for_all()
    torch.manual_seed(0)
    directions = random_directions(3, 16, latent)
    assert sliced_wasserstein(latent, variant, directions) == pytest.approx(0, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(0.1, 10), which=st.integers(0, 2))
def test_sliced_wasserstein_of_dependent_latents_is_positive(seed, shift, which):
    generator = torch.Generator().manual_seed(seed)
    variant = torch.arange(90) % 3
    latent = torch.randn(90, 3, generator=generator)
    moved = latent + shift * (variant == which)[:, None]
    near = sliced_wasserstein(latent, variant, AXES)
    far = sliced_wasserstein(moved, variant, AXES)
    assert near >= 0
    # A third of the samples is 2/3 of the shift from the pooled mean, the rest 1/3 of it.
    assert far > 0.8 * 2 / 9 * shift**2 - 0.5 * shift


def test_sliced_wasserstein_against_quantiles_by_numpy():
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(70, 3, generator=generator, dtype=torch.float64)
    variant = torch.randint(3, (70,), generator=generator)
    latent[variant == 1] *= 2
    expected = np.zeros(70)
    for axis in range(3):
        pooled = np.sort(latent[:, axis].numpy())
        for which in range(3):
            rows = (variant == which).numpy()
            values = np.sort(latent[rows, axis].numpy())
            # Hazen's rule: the i-th of n values is the quantile (i - 1/2) / n.
            places = (np.arange(len(values)) + 0.5) / len(values)
            quantiles = np.quantile(pooled, places, method="hazen")
            expected[np.flatnonzero(rows)] += (values - quantiles) ** 2 / 3
    given_value = sliced_wasserstein(latent, variant, AXES.double())
    assert given_value.item() == pytest.approx(expected.mean(), rel=1e-6)


def test_the_pool_does_not_move_towards_a_variant():
    latent = torch.tensor([[0.0], [1.0], [10.0], [11.0]], requires_grad=True)
    variant = torch.tensor([0, 0, 1, 1])
    sliced_wasserstein(latent, variant, torch.ones(1, 1)).backward()
    # Quantiles 1/4 and 3/4 of the pool, at places 1/8, 3/8, 5/8, 7/8.
    distance = torch.tensor([[0 - 0.5], [1 - 10.5], [10 - 0.5], [11 - 10.5]])
    torch.testing.assert_close(latent.grad, 2 * distance / 4)


def test_sliced_wasserstein_pulls_each_variant_to_the_pool():
    torch.manual_seed(0)
    variant = torch.arange(200) % 2
    latent = (torch.randn(200, 3) + 4.0 * variant[:, None]).requires_grad_()
    optimizer = torch.optim.SGD([latent], lr=20.0)
    spread = latent.detach().std()
    for _ in range(200):
        optimizer.zero_grad()
        sliced_wasserstein(latent, variant, random_directions(3, 8, latent)).backward()
        optimizer.step()
    means = [latent[variant == which].mean(0) for which in (0, 1)]
    assert (means[0] - means[1]).abs().max() < 0.2
    # The variants move toward each other and do not collapse to a point.
    assert latent.detach().std() > 0.5 * spread


def test_random_directions_are_unit_vectors():
    directions = random_directions(8, 500, torch.zeros(1))
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(500))
    assert directions.mean(1).abs().max() < 0.1


def test_code_information_of_independent_codes_is_zero():
    tokens = torch.arange(12).repeat(4)
    variant = torch.arange(4).repeat_interleave(12)
    term = CodeInformation(4, 12)
    for _ in range(3):
        assert term(one_hot_codes(tokens, 12), variant) == pytest.approx(0, abs=1e-6)


def test_code_information_is_mutual_information_of_many_samples():
    generator = torch.Generator().manual_seed(0)
    variant = torch.randint(3, (20000,), generator=generator)
    tokens = (torch.randint(6, (20000,), generator=generator) + 2 * variant) % 8
    term = CodeInformation(3, 8)
    value = term(one_hot_codes(tokens, 8), variant)
    expected = mutual_info_score(variant.numpy(), tokens.numpy())
    assert expected > 0.1
    assert value.item() == pytest.approx(expected, rel=0.01)


def test_code_information_remembers():
    # Each batch has a single variant, so that the dependence exists only across batches.
    term = CodeInformation(2, 4, memory=0.9)
    for _ in range(50):
        for which in range(2):
            tokens = torch.full((16,), 2 * which)
            value = term(one_hot_codes(tokens, 4), torch.full((16,), which))
    assert value > 0.5 * math.log(2)
    # Each variant has 16 samples in every second step; the first one decayed once more.
    full = 16 / (1 - 0.9**2)
    assert term.counts.sum(1).tolist() == pytest.approx([0.9 * full, full], rel=1e-3)


def test_the_gradient_moves_assignments_to_codes_that_the_variant_lacks():
    term = CodeInformation(2, 2)
    variant = torch.tensor([0] * 10 + [1] * 10)
    logits = torch.tensor([[2.0, 0.0]] * 10 + [[0.0, 2.0]] * 10, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=20.0)
    first = term(logits.softmax(1), variant)
    for _ in range(200):
        optimizer.zero_grad()
        term(logits.softmax(1), variant).backward()
        optimizer.step()
    last = CodeInformation(2, 2)(logits.softmax(1), variant)
    assert first > 0.1
    assert abs(last) < 0.01


def test_an_unused_code_is_no_evidence():
    term = CodeInformation(2, 3)
    term(one_hot_codes(torch.tensor([0, 1]), 3), torch.tensor([0, 1]))
    assert term.log_ratio().isfinite().all()
    assert term.log_ratio()[:, 2].tolist() == [0, 0]


def test_entropy_deficit():
    even = torch.full((5, 8), 1 / 8, requires_grad=True)
    assert entropy_deficit(even).item() == pytest.approx(0, abs=1e-6)
    one = torch.zeros(5, 8)
    one[:, 3] = 1
    assert entropy_deficit(one.requires_grad_()).item() == pytest.approx(math.log(8))
    entropy_deficit(one).backward()
    assert one.grad.isfinite().all()
    # Hard assignments to all codes are even use, too.
    assert entropy_deficit(torch.eye(8)).item() == pytest.approx(0, abs=1e-6)


def terms(**weights):
    return IndependenceTerms(IndependenceConfig(**weights), num_variants=4, codebook_size=12)


def test_terms_are_weighted_and_left_out():
    latent, variant = same_for_all()
    latent = latent + variant[:, None]
    codes = one_hot_codes(torch.arange(100) % 12, 12)
    base = {"sliced_wasserstein": 1, "mutual_information": 1, "code_entropy": 1}
    torch.manual_seed(0)
    whole = terms(**base)(latent, variant, [codes])
    assert set(whole) == set(base)
    for name in base:
        torch.manual_seed(0)
        alone = terms(**(dict.fromkeys(base, 0.0) | {name: 3.0}))(latent, variant, [codes])
        assert set(alone) == {name}
        torch.testing.assert_close(alone[name], 3 * whole[name])
    assert terms(**dict.fromkeys(base, 0.0))(latent, variant, [codes]) == {}
    assert set(terms(**base)(latent, variant, [])) == {"sliced_wasserstein"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sliced_wasserstein": -1}, "independence.sliced_wasserstein: must be finite"),
        ({"code_entropy": math.inf}, "independence.code_entropy: must be finite"),
        ({"projections": 0}, "independence.projections: must be at least 1, got 0"),
        ({"memory": 1.0}, r"independence.memory: must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        IndependenceConfig(**options)
