"""Shares of variance, against dense matrices, planted effects and resampled data."""

import dataclasses
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from spinlock.errors import ConfigurationError
from spinlock.metrics import rank_normalized, variance_shares

NAMES = ("variant", "operator", "rest")


def estimates(values, variant, operator, **options):
    """Estimates and intervals of a decomposition of NumPy arrays."""
    arrays = (torch.from_numpy(np.asarray(array)) for array in (values, variant, operator))
    return variance_shares(*arrays, **options)


def dense_shares(z, variant, operator):
    """Shares from the expectations of quadratic forms: traces of N x N matrices."""
    size = len(z)
    one_hot = (variant[:, None] == np.unique(variant)).astype(float)
    means = one_hot @ np.diag(1 / one_hot.sum(axis=0)) @ one_hot.T
    residual, average = np.eye(size) - means, np.full((size, size), 1 / size)
    same = (operator[:, None] == operator).astype(float)
    pairs = same - np.eye(size)
    forms = [means - average, residual, residual @ pairs @ residual]
    # A form z'Qz has the expectation: variants' part + operator tr(Q same) + rest tr(Q).
    system = [[size * (form is forms[0]), np.trace(form @ same), np.trace(form)] for form in forms]
    if np.linalg.cond(system) > 1e7:
        return None
    parts = np.linalg.solve(system, [z @ form @ z for form in forms])
    return parts / parts.sum()


def normal_ranks(values):
    return stats.norm.ppf((stats.rankdata(values, axis=0) - 0.5) / len(values))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 4), st.integers(2, 4))
def test_shares_of_any_design_are_those_of_dense_matrices(seed, operators, variants, probes):
    """Operators have different numbers of probes, and meet a variant several times or never."""
    random = np.random.default_rng(seed)
    size = operators * probes
    operator, variant = random.integers(0, operators, size), random.integers(0, variants, size)
    operator[:2] = operators
    values = random.normal(size=(size, 2)) + operator[:, None] * 0.3 * random.normal(size=2)
    found = estimates(values, variant * 3 - 1, operator + 7, resamples=0)
    for column, z in enumerate(normal_ranks(values).T):
        expected = dense_shares(z, variant, operator)
        if expected is not None and np.abs(expected).max() < 100:
            shares = [getattr(found, name)[column].item() for name in NAMES]
            np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_intervals_are_those_of_copied_operators():
    """An operator that a resample draws twice counts as two operators."""
    random = np.random.default_rng(4)
    operator = np.repeat(np.arange(12), 3)
    variant = random.integers(0, 3, 36)
    values = random.normal(size=36) + random.normal(size=12)[operator] + variant
    z = normal_ranks(values)
    resampled = []
    for times in np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=40):
        drawn = np.repeat(np.arange(12), times)
        rows = (drawn[:, None] * 3 + np.arange(3)).ravel()
        resampled.append(dense_shares(z[rows], variant[rows], np.repeat(np.arange(12), 3)))
    found = estimates(values[:, None], variant, operator, resamples=40, seed=5)
    expected = dense_shares(z, variant, operator)
    shift = expected - np.mean(resampled, axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0) + shift
    for name, *row in zip(NAMES, expected, low, high, strict=True):
        shares = [getattr(found, name).item(), *getattr(found, f"{name}_interval")[0].tolist()]
        np.testing.assert_allclose(shares, row, atol=1e-6)


def planted(operators, probes, weights, means, operator_share, seed, columns):
    """Columns with variants' means, effects of operators and noise of known variances.

    The noise has the variance 1 - operator_share - variance of the means. Every operator meets
    different variants, so the variants' frequencies are between the weights and even ones.
    """
    random = np.random.default_rng(seed)
    operator = np.repeat(np.arange(operators), probes)
    keys = random.exponential(size=(operators, len(weights))) / weights
    variant = np.argsort(keys, axis=1)[:, :probes].ravel()
    rest = 1 - operator_share - np.average((means - np.average(means, weights=weights)) ** 2)
    values = means[variant][:, None] + np.sqrt(operator_share) * random.normal(
        size=(operators, columns)
    ).repeat(probes, axis=0)
    values += np.sqrt(rest) * random.normal(size=values.shape)
    return values, variant, operator


def population_shares(probes, weights, means, operator_share):
    """Shares of a large sample by plain averages."""
    values, variant, _ = planted(60_000, probes, weights, means, operator_share, 77, 1)
    z = normal_ranks(values[:, 0])
    of_variant = np.array([z[variant == v].mean() for v in range(len(weights))])
    residual = (z - of_variant[variant]).reshape(-1, probes)
    first, second = residual[:, 0], residual[:, 1:].mean(axis=1)
    return np.array([of_variant[variant].var(), (first * second).mean()]) / z.var()


EVEN, UNEVEN = np.full(6, 1 / 6), np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
EFFECTS = np.array([-1.0, 0.4, 0.9, -0.2, 1.4, -0.6])


@pytest.mark.parametrize(
    ("operators", "probes", "weights", "scale", "operator_share"),
    [
        (120, 2, EVEN, 0.5, 0.4),
        (120, 4, UNEVEN, 0.2, 0.85),
        (60, 3, UNEVEN, 0.8, 0.1),
        (120, 2, UNEVEN, 0.0, 0.9),
        (120, 2, EVEN, 0.0, 0.0),
    ],
)
def test_planted_shares_are_found_without_bias(operators, probes, weights, scale, operator_share):
    """In columns that are independent repetitions, and 95 % intervals contain the truth."""
    means = scale * EFFECTS
    truth = population_shares(probes, weights, means, operator_share)
    repetitions = [
        estimates(*planted(operators, probes, weights, means, operator_share, seed, 40), seed=seed)
        for seed in range(8)
    ]
    for name, share in zip(NAMES, truth, strict=False):
        found = torch.cat([getattr(shares, name) for shares in repetitions])
        interval = torch.cat([getattr(shares, f"{name}_interval") for shares in repetitions])
        # Designs of few samples are alike within one seed; ranks of few operators shrink a bit.
        assert found.mean().item() == pytest.approx(share, abs=0.015)
        covered = (interval[:, 0] <= share) & (share <= interval[:, 1])
        assert covered.double().mean() > 0.88
        # The width is that of the distribution of estimates; wider for variants without effect.
        width = interval.diff(dim=1).mean() / (2 * 1.96 * found.std())
        assert 0.8 < width < (2.2 if share < 1e-3 else 1.4)


def test_more_probes_and_operators_narrow_the_intervals():
    def width(operators, probes):
        found = estimates(*planted(operators, probes, EVEN, 0.5 * EFFECTS, 0.4, 3, 10))
        return found.operator_interval.diff(dim=1).mean()

    assert width(400, 2) < 0.6 * width(100, 2)
    assert width(100, 5) < 0.8 * width(100, 2)


def test_shares_do_not_change_with_the_units_of_a_column():
    values, variant, operator = planted(50, 3, EVEN, 0.5 * EFFECTS, 0.4, 0, 3)
    first = estimates(values, variant, operator)
    for image in (np.exp(values), values**3, -5 * values, np.arctan(values)):
        second = estimates(image, variant, operator)
        for field in dataclasses.fields(first):
            one, two = getattr(first, field.name), getattr(second, field.name)
            torch.testing.assert_close(one, two, atol=1e-9, rtol=0)


def test_shares_do_not_change_with_the_order_of_samples_or_columns():
    values, variant, operator = planted(50, 3, UNEVEN, 0.5 * EFFECTS, 0.4, 0, 3)
    order = np.random.default_rng(0).permutation(len(values))
    first = estimates(values, variant, operator)
    second = estimates(values[order][:, ::-1].copy(), variant[order], operator[order])
    for field in dataclasses.fields(first):
        one, two = getattr(first, field.name), getattr(second, field.name).flip(0)
        torch.testing.assert_close(one, two, atol=1e-9, rtol=0)


def test_columns_are_decomposed_alone(monkeypatch):
    values, variant, operator = planted(50, 3, UNEVEN, 0.5 * EFFECTS, 0.4, 0, 5)
    together = estimates(values, variant, operator)
    monkeypatch.setattr(import_module("spinlock.metrics.variance_shares"), "_SUMS", 1)
    alone = estimates(values, variant, operator)
    assert torch.allclose(together.operator_interval, alone.operator_interval, atol=1e-12)
    other = estimates(values, variant, operator, seed=1)
    assert torch.equal(other.operator, alone.operator)
    assert not torch.equal(other.operator_interval, alone.operator_interval)


def test_permuted_samples_have_no_operators():
    """Permuted within each variant, so that the variant's share stays."""
    values, variant, operator = planted(150, 3, EVEN, 0.5 * EFFECTS, 0.6, 1, 40)
    before = estimates(values, variant, operator, resamples=0)
    random = np.random.default_rng(0)
    for v in np.unique(variant):
        rows = np.flatnonzero(variant == v)
        for column in values.T:
            column[rows] = column[random.permutation(rows)]
    after = estimates(values, variant, operator)
    assert before.operator.min() > 0.4
    assert after.operator.mean().abs() < 0.02
    contains = (after.operator_interval[:, 0] <= 0) & (after.operator_interval[:, 1] >= 0)
    assert contains.double().mean() > 0.85
    torch.testing.assert_close(after.variant, before.variant, atol=0.02, rtol=0)


def test_a_column_of_labels_is_explained_by_them():
    operator, variant = np.arange(300) // 3, np.random.default_rng(0).integers(0, 6, 300)
    found = estimates(np.stack([variant, operator], axis=1), variant, operator)
    torch.testing.assert_close(found.variant, torch.tensor([1.0, 0.0]).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(found.operator, torch.tensor([0.0, 1.0]).double(), atol=0.03, rtol=0)
    total = found.variant + found.operator + found.rest
    torch.testing.assert_close(total, torch.ones(2).double())


def test_columns_without_a_decomposition():
    values, variant, operator = planted(30, 2, EVEN, EFFECTS * 0, 0.5, 0, 4)
    alone = estimates(values[:, 3:], variant, operator)
    values[:, 0], values[0, 1], values[5, 2] = 3.5, np.nan, np.inf
    found = estimates(values, variant, operator)
    assert (found.variant[0], found.operator[0], found.rest[0]) == (0, 0, 1)
    assert found.rest_interval[0].tolist() == [1, 1]
    assert torch.cat([found.variant[1:3], found.operator_interval[1:3].flatten()]).isnan().all()
    torch.testing.assert_close(found.operator_interval[3:], alone.operator_interval)


def test_variants_that_name_operators_leave_the_shares_open():
    found = estimates(np.random.default_rng(0).normal(size=(20, 2)), *[np.arange(20) // 2] * 2)
    assert torch.cat([found.variant, found.operator, found.rest]).isnan().all()


def test_without_resamples_there_are_no_intervals():
    values, variant, operator = planted(30, 2, EVEN, 0.5 * EFFECTS, 0.5, 0, 2)
    found = estimates(values, variant, operator, resamples=0)
    assert torch.equal(found.operator, estimates(values, variant, operator).operator)
    assert found.operator_interval.shape == (2, 2)
    assert found.operator_interval.isnan().all()


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ((6, 6, 6), {}, r"values must be \[N, K\], and variant and operator \[N\]; got \[6\]"),
        (((6, 2), 5, 6), {}, r"got \[6, 2\], \[5\] and \[6\]"),
        (((6, 2), 6, 6), {"resamples": -1}, "resamples: must be at least 0, got -1"),
        (((6, 2), 6, 6), {}, "two or more samples of an operator; got 6 samples of 6 operators"),
        (((0, 2), 0, 0), {}, "got 0 samples of 0 operators"),
    ],
)
def test_what_cannot_be_decomposed(shapes, options, message):
    values, variant, operator = (torch.zeros(shape) for shape in shapes)
    labels = (torch.arange(len(label)) for label in (variant, operator))
    with pytest.raises(ConfigurationError, match=message):
        variance_shares(values, *labels, **options)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_ranks_against_scipy(column):
    values = np.array([column, column[::-1]]).T
    for given_as in (values, values.astype(np.float32)):
        found = rank_normalized(torch.from_numpy(given_as))
        np.testing.assert_allclose(found, normal_ranks(values), atol=1e-12)
