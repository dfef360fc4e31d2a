"""Scaling: what is learned from the training split maps columns to order one, and back."""

import pytest
import torch

from spinlock.datamodules import FeatureScaler


def heavy_tailed(num=500):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num, 4, generator=generator)
    return torch.stack([z[:, 0], (5 * z[:, 1]).exp(), 1e4 + z[:, 2], -((3 * z[:, 3]).exp())], dim=1)


@pytest.mark.parametrize("scaling", ["standard", "signed_log"])
def test_training_columns_get_zero_mean_and_unit_variance(scaling):
    features = heavy_tailed()
    scaled = FeatureScaler.fit(features, scaling).transform(features)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_signed_log_tames_tails():
    features = heavy_tailed()
    extreme = {
        s: float(FeatureScaler.fit(features, s).transform(features)[:, 1].max())
        for s in ("standard", "signed_log")
    }
    assert extreme["signed_log"] < 7 < 15 < extreme["standard"]


@pytest.mark.parametrize("scaling", ["standard", "signed_log", "none"])
def test_inverse(scaling):
    features = heavy_tailed()
    scaler = FeatureScaler.fit(features, scaling)
    error = (scaler.inverse(scaler.transform(features)) - features).abs()
    # float32 keeps seven digits of what it is given: of the scaled value, hence of the column.
    assert (error <= 1e-5 * (features.abs() + features.std(dim=0))).all()


@pytest.mark.parametrize("scaling", ["standard", "signed_log"])
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_columns_that_do_not_vary_become_zero(scaling, noise):
    features = torch.full((50, 1), 3.0) + noise * torch.randn(
        50, 1, generator=torch.Generator().manual_seed(0)
    )
    scaler = FeatureScaler.fit(features, scaling)
    assert torch.equal(scaler.transform(features), torch.zeros(50, 1))
    torch.testing.assert_close(scaler.inverse(torch.zeros(50, 1)), features)


def test_none_is_the_identity():
    features = heavy_tailed()
    assert torch.equal(FeatureScaler.fit(features, "none").transform(features), features)
