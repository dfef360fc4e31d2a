"""The permutation null: its law, its use, and agreement of its two samplers."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, hypergeom, multivariate_hypergeom, random_table

from spinlock import metrics
from spinlock.metrics import chance


def permuted(counts, permutations, seed=0):
    tables = metrics.permuted_tables(counts, permutations=permutations, seed=seed)
    return np.stack(list(tables))


@pytest.fixture(params=["boyett", "patefield"])
def sampler(request, monkeypatch):
    """Use one algorithm of scipy, which chooses by the number of samples."""

    def table(rows, columns):
        distribution = random_table(rows, columns)
        distribution.rvs = partial(distribution.rvs, method=request.param)
        return distribution

    monkeypatch.setattr(chance, "random_table", table)


COUNTS = torch.tensor([[9, 3, 0], [2, 6, 1], [0, 0, 0], [1, 1, 7]])


@pytest.mark.usefixtures("sampler")
def test_marginals_are_kept():
    tables = permuted(COUNTS, 50)
    assert tables.shape == (50, 4, 3)
    assert (tables.sum(1) == COUNTS.sum(0).numpy()).all()
    assert (tables.sum(2) == COUNTS.sum(1).numpy()).all()
    assert len(np.unique(tables.reshape(50, -1), axis=0)) > 40


@pytest.mark.usefixtures("sampler")
def test_marginals_are_kept_within_each_group():
    counts = torch.stack([COUNTS, COUNTS.flip(0) * 2, torch.zeros_like(COUNTS)])
    tables = permuted(counts, 20)
    assert (tables.sum(2) == counts.sum(1).numpy()).all()
    assert (tables.sum(3) == counts.sum(2).numpy()).all()


@pytest.mark.usefixtures("sampler")
def test_columns_are_hypergeometric():
    """The first class, against the probabilities of scipy."""
    counts = torch.tensor([[2, 2], [1, 1], [2, 1]])
    drawn = permuted(counts, 4000)[:, :, 0]
    outcomes, observed = np.unique(drawn, axis=0, return_counts=True)
    law = multivariate_hypergeom(counts.sum(1).numpy(), counts.sum(0)[0].item())
    expected = 4000 * law.pmf(outcomes)
    assert expected.sum() == pytest.approx(4000), "every outcome was drawn"
    p_value = chi2_contingency(np.stack([observed, expected])).pvalue
    assert p_value > 0.01


@pytest.mark.usefixtures("sampler")
def test_mean_of_the_null_is_the_expected_information():
    null = metrics.permutation_null(metrics.mutual_information, COUNTS, permutations=4000, seed=1)
    error = null.std() / 4000**0.5
    assert abs(null.mean() - metrics.expected_mutual_information(COUNTS)) < 4 * error


@pytest.mark.usefixtures("sampler")
@pytest.mark.parametrize("shape", [(4, 1), (1, 3), (1, 1), (3, 0)])
def test_degenerate_tables_are_permuted_too(shape):
    """With one class or one code there is one table only."""
    counts = torch.arange(1, 1 + shape[0] * shape[1]).view(shape)
    for padded in (counts, torch.nn.functional.pad(counts, (1, 2, 2, 1))):
        assert (permuted(padded, 3) == padded.numpy()).all()


def test_tables_depend_on_the_seed_alone():
    assert np.array_equal(permuted(COUNTS, 5), permuted(COUNTS, 5))
    assert not np.array_equal(permuted(COUNTS, 5), permuted(COUNTS, 5, seed=1))
    assert np.array_equal(permuted(COUNTS, 3), permuted(COUNTS, 5)[:3])


def test_p_values_are_uniform_for_independent_labels():
    generator = torch.Generator().manual_seed(0)
    p_values = []
    for seed in range(200):
        tokens, labels = torch.randint(4, (2, 100), generator=generator)
        counts = torch.bincount(tokens * 4 + labels, minlength=16).view(4, 4)
        null = metrics.permutation_null(
            metrics.mutual_information, counts, permutations=19, seed=seed
        )
        p_values.append(
            metrics.permutation_p_value(metrics.mutual_information(counts), null).item()
        )
    assert np.mean(np.array(p_values) <= 0.25) == pytest.approx(0.25, abs=0.1)
    assert np.mean(np.array(p_values) <= 0.5) == pytest.approx(0.5, abs=0.1)


def test_the_null_is_the_score_of_each_table():
    tables = torch.from_numpy(permuted(COUNTS, 70, seed=3))
    null = metrics.permutation_null(
        metrics.jensen_shannon_divergence, COUNTS[:, :2], permutations=70, seed=3
    )
    assert null.shape == (70,)
    null = metrics.permutation_null(metrics.mutual_information, COUNTS, permutations=70, seed=3)
    torch.testing.assert_close(null, torch.stack([metrics.mutual_information(t) for t in tables]))


@pytest.mark.parametrize(
    ("a", "b", "total"), [(50, 60, 1000), (900, 800, 10**4), (10**5, 3, 10**6)]
)
def test_what_the_expected_information_leaves_out_is_negligible(a, b, total):
    """By Bernstein's inequality, whose bound is small at both ends of the summed range."""
    numbers = [torch.tensor([float(number)]) for number in (a, b, total)]
    first, last = (end.item() for end in chance._range(*(number.double() for number in numbers)))
    mean, variance, _ = (float(m) for m in hypergeom.stats(total, a, b, moments="mvs"))
    least, most = max(1, a + b - total), min(a, b)
    assert least <= first <= last <= most
    for end, limit in ((first, least), (last, most)):
        distance = abs(end - mean)
        bound = 2 * np.exp(-(distance**2) / (2 * variance + 2 * distance / 3))
        assert end == limit or bound <= chance._NEGLIGIBLE
        # No farther than needed.
        distance = max(0, distance - 1.001)
        bound = 2 * np.exp(-(distance**2) / (2 * variance + 2 * distance / 3))
        assert end == limit or bound >= chance._NEGLIGIBLE


def test_p_value_by_hand():
    null = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert metrics.permutation_p_value(torch.tensor(0.25), null) == 0.6
    assert metrics.permutation_p_value(torch.tensor(0.3), null).item() == pytest.approx(0.6)
    assert metrics.permutation_p_value(torch.tensor(1.0), null).item() == pytest.approx(0.2)
    assert metrics.permutation_p_value(torch.tensor(0.0), null) == 1


@pytest.mark.parametrize(
    ("counts", "permutations", "message"),
    [(COUNTS, 0, "permutations: must be at least 1, got 0"), (COUNTS[0], 5, "contingency must be")],
)
def test_bad_arguments(counts, permutations, message):
    with pytest.raises(ValueError, match=message):
        permuted(counts, permutations)
