"""The forcing has the stated marginals, correlation, schedules and random addresses."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from spinlock.simulation.forcing import (
    Forcing,
    gaussian_transfer,
    laplace_from_gaussian,
    noise_substreams,
    schedule,
)
from spinlock.simulation.randomness import Stream, normal
from tests.helpers import values


def forcing(v, *, index=0, realizations=2, timesteps=3, device="cpu"):
    return Forcing(
        v,
        seed=42,
        index=index,
        channels=3,
        num_realizations=realizations,
        num_timesteps=timesteps,
        device=device,
    )


def many(v, num=60):
    """Forcing at t = 1 of many samples, over the noise scale."""
    return torch.cat([forcing(v, index=i, realizations=4)(1) for i in range(num)]) / v.noise_scale


@pytest.mark.parametrize("noise_type", ["gaussian", "laplace"])
@pytest.mark.parametrize("correlation", [0.0, 0.02, 0.1, 0.3])
def test_unit_marginal_variance(noise_type, correlation):
    """The variance over samples at each pixel is 1, not the variance within a sample."""
    v = values(noise_type=noise_type, spatial_correlation=correlation)
    eta = many(v).double()
    assert float(eta.square().mean()) == pytest.approx(1, abs=0.06)
    assert abs(float(eta.mean())) < 0.05


def test_white_noise_is_what_was_drawn():
    """Bit for bit: without a correlation nothing is transformed."""
    v = values(spatial_correlation=0.0)
    substreams = torch.from_numpy(noise_substreams(2, 3))
    drawn = normal(42, Stream.FORCING, 7, 3 * v.grid_size**2, substream=substreams)
    expected = drawn.view(2, 3, v.grid_size, v.grid_size) * schedule(v, 3, 3)
    assert torch.equal(forcing(v, index=7)(3), expected)


def test_marginal_distributions():
    v = values(spatial_correlation=0.0)
    gaussian = forcing(v)(1).flatten().double().numpy() / v.noise_scale
    laplace = forcing(values(spatial_correlation=0.0, noise_type="laplace"))(1) / v.noise_scale
    assert stats.kstest(gaussian, "norm").pvalue > 0.01
    unit_laplace = stats.laplace(scale=math.sqrt(0.5))
    assert stats.kstest(laplace.flatten().double().numpy(), unit_laplace.cdf).pvalue > 0.01


def test_laplace_map_is_the_probability_transform():
    z = torch.linspace(-6, 6, 2001)
    expected = stats.laplace(scale=math.sqrt(0.5)).ppf(stats.norm.cdf(z.double().numpy()))
    # scipy's upper tail cancels beyond 5.
    mapped = laplace_from_gaussian(z).double().numpy()
    inner = np.abs(z.numpy()) < 5
    np.testing.assert_allclose(mapped[inner], expected[inner], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mapped, -mapped[::-1], rtol=1e-6, atol=1e-6)
    assert laplace_from_gaussian(torch.tensor([-6.67, 6.67])).isfinite().all()


@pytest.mark.parametrize("length", [0.5, 2.0, 9.6])
def test_kernel_is_a_gaussian_of_the_stated_length(length):
    """White noise under a Gaussian kernel of width l has correlation exp(-r^2 / (4 l^2))."""
    grid_size = 64
    transfer = gaussian_transfer(length, grid_size).double()
    correlation = torch.fft.irfft2(transfer**2, s=(grid_size, grid_size))
    assert float(correlation[0, 0]) == pytest.approx(1, abs=1e-6)
    if length >= 2:
        r = torch.arange(6, dtype=torch.float64)
        images = sum(torch.exp(-((r + n * grid_size) ** 2) / (4 * length**2)) for n in range(-3, 4))
        torch.testing.assert_close(correlation[0, :6], images / images[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(correlation[0, :6], correlation[:6, 0])


def test_schedules():
    def series(name, T=7, **changes):
        v = values(noise_schedule=name, noise_scale=0.2, **changes)
        return [schedule(v, t, T) for t in range(1, T + 1)]

    assert series("constant") == pytest.approx([0.2] * 7)
    assert series("annealing") == pytest.approx([0.2 * (1 - t / 8) for t in range(1, 8)])
    expected = [0.2 * (1 + 0.5 * math.sin(2 * math.pi * t / 50)) for t in range(1, 8)]
    assert series("periodic", schedule_period=50) == pytest.approx(expected)
    assert series("annealing", T=1) == pytest.approx([0.1])
    with pytest.raises(ValueError, match="unknown schedule 'linear'"):
        series("linear")


def test_forcing_is_the_schedule_times_unit_noise():
    v = values(noise_schedule="annealing")
    unit = values(noise_schedule="constant", noise_scale=1.0)
    for t in (1, 2, 3):
        torch.testing.assert_close(forcing(v)(t), forcing(unit)(t) * schedule(v, t, 3))


def test_realizations_timesteps_and_samples_have_noise_of_their_own(device):
    f, other = forcing(values(), device=device), forcing(values(), index=1, device=device)
    fields = [*f(1), *f(2), *other(1)]
    for i, one in enumerate(fields):
        for two in fields[:i]:
            correlation = np.corrcoef(one.cpu().flatten(), two.cpu().flatten())[0, 1]
            # Neighboring pixels are correlated: about 3,072 / 30 independent values a field.
            assert abs(correlation) < 0.4


def test_noise_does_not_depend_on_how_many_are_drawn():
    few, more = forcing(values(), realizations=2), forcing(values(), realizations=5, timesteps=9)
    for t in (1, 3):
        torch.testing.assert_close(few(t), more(t)[:2])
