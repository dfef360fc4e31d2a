"""Predictions from tokens against ridge regression by its definition, and planted values."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from spinlock import metrics
from spinlock.metrics import token_prediction


def ridge_by_definition(x, y, penalties):
    """Intercept and coefficients of the penalty with the least generalized cross-validation."""
    count = len(x)
    centered, best = x - x.mean(0), (np.inf, None)
    for penalty in penalties:
        inverse = np.linalg.inv(centered.T @ centered + penalty * np.eye(x.shape[1]))
        coefficients = inverse @ centered.T @ (y - y.mean())
        hat = 1 / count + centered @ inverse @ centered.T
        residual = y - y.mean() - centered @ coefficients
        score = (residual**2).mean() / (1 - np.trace(hat) / count) ** 2
        if score < best[0] * (1 - 1e-9):
            best = (score, (y.mean() - x.mean(0) @ coefficients, coefficients))
    return best[1]


@pytest.mark.parametrize("count", [12, 60])
@pytest.mark.parametrize("levels", [1, 2])
def test_predictions_are_ridge_regressions_of_other_operators(levels, count):
    """The penalty is chosen for each column, which tokens explain well, weakly or not at all."""
    generator = torch.Generator().manual_seed(levels)
    operators = torch.arange(2 * count) // 2
    tokens = torch.randint(5, (2 * count, levels), generator=generator)
    of_operator = torch.randn(count, 12, generator=generator)
    of_operator += torch.linspace(1, 0, 12) * tokens[::2].sum(1)[:, None]
    values = of_operator[operators]
    found = metrics.predict_from_tokens(values, tokens, operators).numpy()
    x = torch.nn.functional.one_hot(tokens, 5).flatten(1).double().numpy()
    for fold in range(5):
        own = operators.numpy() % 5 == fold
        # An operator that has a token twice counts once.
        cells = [(o, *t) for o, t in zip(operators.tolist(), tokens.tolist(), strict=True)]
        rows = sorted({cell: n for n, cell in list(enumerate(cells))[::-1] if not own[n]}.values())
        for column in range(12):
            y = values[:, column].double().numpy()
            intercept, coefficients = ridge_by_definition(
                x[rows], y[rows], token_prediction._PENALTIES[::-1]
            )
            expected = intercept + x[own] @ coefficients
            np.testing.assert_allclose(found[own, column], expected, atol=1e-8)


def planted(operators=400, codes=16, noise=0.0, probes=2):
    generator = torch.Generator().manual_seed(0)
    token = torch.randint(codes, (operators,), generator=generator)
    value = torch.randn(codes, 3, generator=generator)[token]
    value = value + noise * torch.randn(operators, 3, generator=generator)
    operator = torch.arange(operators).repeat_interleave(probes)
    return value[operator].double(), token[operator], operator


def r_squared(values, tokens, operators, **settings):
    predicted = metrics.predict_from_tokens(values, tokens, operators, **settings)
    return metrics.column_r_squared(predicted, values)


def test_tokens_that_determine_the_values_predict_them():
    values, tokens, operators = planted()
    assert (r_squared(values, tokens, operators) > 0.9999).all()
    mixed = torch.randperm(400, generator=torch.Generator().manual_seed(1))[operators]
    assert (r_squared(values[2 * mixed], tokens, operators).abs() < 0.03).all()


def test_an_operator_does_not_predict_itself():
    """A token of its own says nothing of other operators, under however many probes."""
    values, _, operators = planted(noise=1.0, probes=4)
    assert (r_squared(values, operators, operators) < 0.001).all()


@pytest.mark.parametrize("operators", [100, 300])
def test_tokens_of_nothing_predict_as_well_as_the_mean(operators):
    """Without shrinkage, R2 would be below -0.3 with so many codes."""
    values, _, operator = planted(operators, codes=2, probes=1)
    tokens = torch.randint(128, (operators,), generator=torch.Generator().manual_seed(1))
    assert (r_squared(values, tokens, operator).abs() < 0.06).all()


def test_levels_add_up():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(16, (300, 4), generator=generator)
    effects = torch.randn(4, 16, generator=generator)
    values = torch.stack([effects[q][tokens[:, q]] for q in range(4)]).sum(0)[:, None]
    operators = torch.arange(300)
    # Nearly every combination of four codes occurs once.
    assert len(tokens.unique(dim=0)) > 295
    assert r_squared(values, tokens, operators) > 0.99


def test_only_fitted_samples_are_used():
    values, tokens, operators = planted()
    fitted = torch.arange(len(values)) % 2 == 0
    spoilt = torch.where(fitted[:, None], values, 1e6)
    found = metrics.predict_from_tokens(spoilt, tokens, operators, fitted=fitted)
    assert metrics.column_r_squared(found, values).min() > 0.999
    nothing = metrics.predict_from_tokens(values, tokens, operators, fitted=fitted & False)
    assert nothing.isnan().all()


def test_degenerate_data():
    values, tokens, operators = planted(20)
    values[3, 1] = torch.nan
    found = metrics.predict_from_tokens(values, tokens, operators)
    assert found.isnan().all(0).tolist() == [False, True, False]
    assert metrics.predict_from_tokens(values, tokens, operators * 0).isnan().all()
    assert metrics.predict_from_tokens(values[:0], tokens[:0], operators[:0]).shape == (0, 3)
    constant = metrics.predict_from_tokens(torch.ones(40, 1), tokens, operators)
    assert torch.allclose(constant, torch.ones_like(constant))
    assert metrics.column_r_squared(constant, torch.ones(40, 1)) == 0


def test_r_squared_within_groups_is_about_their_means():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(90, 2, generator=generator).double()
    groups = torch.randint(3, (90,), generator=generator)
    # A group of one sample.
    groups[7] = 3
    target[:, 0] += 5 * groups
    prediction = target + 0.5 * torch.randn(90, 2, generator=generator)
    whole = metrics.column_r_squared(prediction, target)
    expected = r2_score(target, prediction, multioutput="raw_values")
    np.testing.assert_allclose(whole, expected)
    within = metrics.column_r_squared(prediction, target, groups)
    means = torch.stack([target[groups == g].mean(0) for g in range(4)])[groups]
    expected = r2_score(target - means, prediction - means, multioutput="raw_values")
    np.testing.assert_allclose(within, expected)
    assert within[0] < whole[0] - 0.1
