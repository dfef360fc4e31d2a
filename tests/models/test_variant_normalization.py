"""Statistics of each variant, compared with NumPy and with torch's batch normalization."""

import numpy as np
import pytest
import torch
from torch import nn

from spinlock.models import variant_normalization
from spinlock.models.variant_normalization import MIN_SAMPLES, VariantNormalization


@pytest.fixture
def exact(monkeypatch):
    """Add nothing to variances."""
    monkeypatch.setattr(variant_normalization, "_EPS", 0.0)


def data(size=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    variant = torch.randint(3, (size,), generator=generator)
    latent = (
        torch.randn(size, 2, generator=generator) * (1 + variant[:, None]) + 5 * variant[:, None]
    )
    return latent, variant


@pytest.mark.usefixtures("exact")
def test_training_matches_a_hand_computation():
    latent, variant = data()
    layer = VariantNormalization(3, 2).train()
    given = layer(latent, variant).numpy()
    for which in range(3):
        rows = latent[variant == which].numpy().astype(np.float64)
        expected = (rows - rows.mean(0)) / rows.std(0)
        np.testing.assert_allclose(given[variant == which], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.mean[which], rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(layer.variance[which], rows.var(0, ddof=1), rtol=1e-5)


def test_one_variant_is_torchs_batch_normalization():
    latent, _ = data()
    everything = torch.zeros(len(latent), dtype=torch.int64)
    ours = VariantNormalization(1, 2)
    theirs = nn.BatchNorm1d(2, affine=False, momentum=None)
    for seed in range(3):
        batch, _ = data(seed=seed)
        torch.testing.assert_close(ours(batch, everything), theirs(batch))
    torch.testing.assert_close(ours.eval()(latent, everything), theirs.eval()(latent))


def test_gradients_are_those_of_batch_normalization():
    latent, _ = data()
    weights = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
    gradients = []
    for layer in (
        lambda x: VariantNormalization(1, 2)(x, torch.zeros(60, dtype=torch.int64)),
        nn.BatchNorm1d(2, affine=False),
    ):
        points = latent.clone().requires_grad_()
        (layer(points) * weights).sum().backward()
        gradients.append(points.grad)
    torch.testing.assert_close(*gradients)


def test_running_statistics_are_averages_of_batches(monkeypatch):
    monkeypatch.setattr(variant_normalization, "_MOMENTUM", 0.25)
    layer = VariantNormalization(3, 2)
    means = []
    for seed in range(8):
        latent, variant = data(seed=seed)
        layer(latent, variant)
        means.append(latent[variant == 1].mean(0))
    expected = torch.stack(means[:4]).mean(0)
    for mean in means[4:]:
        expected = 0.75 * expected + 0.25 * mean
    torch.testing.assert_close(layer.mean[1], expected)


@pytest.mark.usefixtures("exact")
def test_evaluation_uses_running_statistics_and_changes_nothing():
    layer = VariantNormalization(3, 2)
    layer(*data())
    layer.eval()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    point = torch.tensor([[7.0, -1.0]])
    for which in range(3):
        expected = (point - layer.mean[which]) / layer.variance[which].sqrt()
        torch.testing.assert_close(layer(point, torch.tensor([which])), expected)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.usefixtures("exact")
def test_a_rare_variant_uses_running_statistics():
    layer = VariantNormalization(2, 2)
    common = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    layer(common, torch.arange(50) % 2)
    latent = torch.cat([common, torch.full((MIN_SAMPLES - 1, 2), 3.0)])
    variant = torch.cat([torch.zeros(50, dtype=torch.int64), torch.ones(3, dtype=torch.int64)])
    mean, variance = layer.mean[1].clone(), layer.variance[1].clone()
    expected = (3.0 - mean) / variance.sqrt()
    torch.testing.assert_close(layer(latent, variant)[-1], expected)
    assert torch.equal(layer.mean[1], mean)
    assert layer.batches.tolist() == [2, 1]


@pytest.mark.usefixtures("exact")
def test_a_variant_that_never_occurred_takes_the_average_statistics():
    layer = VariantNormalization(3, 2)
    latent, variant = data()
    layer(latent[variant < 2], variant[variant < 2])
    layer.eval()
    mean, variance = layer.mean[:2].mean(0), layer.variance[:2].mean(0)
    point = torch.tensor([[1.0, 2.0]])
    expected = (point - mean) / variance.sqrt()
    torch.testing.assert_close(layer(point, torch.tensor([2])), expected)


@pytest.mark.usefixtures("exact")
def test_without_any_batch_evaluation_is_the_identity():
    layer = VariantNormalization(3, 2).eval()
    latent, variant = data()
    torch.testing.assert_close(layer(latent, variant), latent)


@pytest.mark.parametrize("training", [True, False])
def test_constant_latents_stay_finite(training):
    layer = VariantNormalization(3, 2)
    latent, variant = data()
    layer(torch.zeros_like(latent), variant)
    points = torch.zeros_like(latent).requires_grad_()
    result = layer.train(training)(points, variant)
    result.sum().backward()
    assert result.isfinite().all()
    assert points.grad.isfinite().all()
