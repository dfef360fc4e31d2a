"""The baseline without tokens: ridge regression against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from spinlock.callbacks.baselines import PENALTIES, ridge_r_squared


@pytest.mark.parametrize("penalty", PENALTIES)
def test_ridge_baseline_against_scikit_learn(penalty):
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(60).repeat_interleave(2)
    x = torch.randn(120, 7, generator=generator) * torch.arange(7)
    y = x @ torch.randn(7, 5, generator=generator) + 4 * torch.randn(120, 5, generator=generator)
    scaled = ((x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-9))[:, 1:].double().numpy()
    residual = 0.0
    for fold in range(5):
        held = (groups % 5 == fold).numpy()
        model = Ridge(alpha=penalty * (~held).sum()).fit(scaled[~held], y[~held])
        residual += ((model.predict(scaled[held]) - y[held].numpy()) ** 2).sum()
    expected = 1 - residual / ((y - y.mean(0)) ** 2).sum().item()
    ours = ridge_r_squared(x, y, groups, penalties=[penalty])
    assert ours == pytest.approx(expected, rel=1e-4)


def test_ridge_baseline_takes_the_best_penalty_and_is_at_most_chance_on_noise():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 20, generator=generator), torch.randn(200, 3, generator=generator)
    each = [ridge_r_squared(x, y, torch.arange(200), penalties=[p]) for p in PENALTIES]
    assert ridge_r_squared(x, y, torch.arange(200)) == max(each) < 0.02
    # Without an input that varies there is the mean of the other folds, worse than one's own.
    constant = ridge_r_squared(torch.ones(200, 3), y, torch.arange(200))
    assert -0.05 < constant < 0
    assert np.isnan(
        ridge_r_squared(x, y.index_fill(0, torch.tensor([3]), np.nan), torch.arange(200))
    )
    assert np.isnan(ridge_r_squared(x, y, torch.zeros(200, dtype=torch.int64)))
    assert ridge_r_squared(x, torch.ones(200, 2), torch.arange(200)) == 0
