"""Responses to noise and of trajectories, from analysis rather than from any implementation.

Every test here runs on the oracle too, so that the judge is judged first. The oracle leaves out
the transport columns.
"""

import numpy as np
import pytest
from scipy.stats import laplace

from .response_cases import Implementation, check, gaussian, heat, lg, wave, with_noise


@pytest.fixture(params=["oracle", "package"])
def judged(request, device):
    return Implementation(None if request.param == "oracle" else device)


# --------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("M", [2, 5])
def test_white_noise(judged, M):
    u, scale = 2 * gaussian(11, side=128), 0.3
    found = judged.step(u, *with_noise(u, scale, M, 120))
    f = np.hypot(np.fft.fftfreq(128)[None, :], np.fft.fftfreq(128)[:, None])
    check(
        found,
        0.005,
        noise_abs=lg(scale),
        noise_rel=lg(scale / np.sqrt(4 + scale**2 / M)),
        noise_low=192 / 16383,
        noise_centroid=f.sum() / 16383,
        noise_uniform=1 / 16384,
    )
    check(found, 0.05, noise_kurtosis=0)


def test_laplace_noise_has_heavy_tails(judged):
    """The sum over realizations with weights 4/5 and -1/5 has 0.65 of the excess of 3."""
    found = judged.step(gaussian(13), *with_noise(gaussian(13), 0.5, 5, 140, laplace))
    check(found, 0.1, noise_kurtosis=3 * 0.416 / 0.8**2)


def test_uniform_noise(judged):
    """Realizations that differ by constants, one for each channel."""
    u = gaussian(15)
    constants = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 0.0], [-1.0, 1.0, -0.5]])
    found = judged.step(u, *(u + constants[..., None, None]))
    check(
        found,
        noise_abs=0.5 * lg(np.mean(np.sum(constants**2, axis=0)) / 2),
        noise_uniform=1,
    )


def test_noise_of_one_wave(judged):
    """All of the noise at one frequency, on either side of 1/16 and on it."""
    for column, low in ((7, 1), (8, 0), (9, 0)):
        u = gaussian(16, C=1, side=128)
        noise = 0.5 * wave(0, column)
        found = judged.step(u, u + noise, u - noise, u)
        # Weights 1, -1, 0: of the mean fourth power 3/8 a⁴, over (a²/2)², times 3/2.
        check(
            found,
            noise_low=low,
            noise_centroid=column / 128,
            noise_uniform=0,
            noise_abs=0.5 * lg(0.125),
            noise_kurtosis=9 / 4 - 3,
        )


def test_innovation_is_that_of_the_map_in_spite_of_noise(judged):
    """The power of the mean noise is subtracted: a fifth of the noise's."""
    u = gaussian(17, side=128)
    w = heat(u, 0.1) + 0.1 * (u**2 - 1)
    clean = judged.step(u, w)
    # Noise as strong in the mean as what the map adds: without subtraction, 0.15 more.
    scale = np.sqrt(5) * 10 ** clean["innovation_abs"]
    noisy = judged.step(u, *with_noise(w, scale, 5, 180))
    gain = 0.5 * lg(1 + scale**2 / 5 / np.mean(w**2))
    check(
        noisy,
        0.015,
        innovation_abs=clean["innovation_abs"],
        innovation=clean["innovation"] - gain,
        increment=clean["increment"],
        beta=clean["beta"],
        persistence=clean["persistence"] / 10**gain,
    )
    check(noisy, 0.03, nonlinear_share=clean["nonlinear_share"] - gain)


def test_uniform_noise_is_subtracted_from_the_increment_only(judged):
    """Constants have no part in what the channel means are taken from.

    Constants 1, 0 and 0.5 in three realizations: mean 0.5, spread 0.25, a third of it in the mean.
    """
    u = gaussian(19)
    constants = np.array([1.0, 0.0, 0.5])[:, None, None, None]
    found = judged.step(u, *(1.2 * u + 0.1 * (u**2 - 1) + constants))
    check(
        found,
        0.01,
        innovation_abs=0.5 * lg(0.02),
        increment=0.5 * lg(0.04 + 0.02 + 0.25 - 0.25 / 3),
    )


def test_noise_leaves_at_least_a_hundredth_of_its_power(judged):
    """Two opposite realizations have no noise in their mean, but a spread."""
    u, x = gaussian(20), 0.1 * gaussian(21)
    x += 0.2
    found = judged.step(u, u + x, u - x)
    check(
        found,
        innovation=lg(0.1 / 10),
        innovation_abs=lg(0.1 / 10),
        nonlinear_share=lg(0.1 / 10),
        increment=0.5 * lg(0.05 / 100),
        noise_abs=0.5 * lg(2 * 0.05),
    )


# ---------------------------------------------------------------------------------- trajectory


def test_later_timesteps_are_averaged_over_realizations(judged):
    """Realizations with gains of their own: the mean of columns, not the column of a mean."""
    u, gains = gaussian(22) + 0.3, np.array([0.5, -1.5, 2.0])
    first = u + np.array([0.0, 0.1, -0.1])[:, None, None, None]
    second = gains[:, None, None, None] * first
    found = judged.columns(u, np.stack([first, second], axis=1))
    later = {name: values[1] for name, values in found.items() if np.ndim(values)}
    check(
        later,
        1e-3,
        persistence=1 / 3,
        beta=gains.mean(),
        increment=np.mean(lg(np.abs(gains - 1))),
        innovation_abs=np.mean(0.5 * lg(1e-10 * (1 + gains**2))),
        channel_mean_1=0,
    )


def test_noise_is_not_subtracted_later(judged):
    """Each realization is compared with its own past, so its noise is news."""
    u, scale = gaussian(23), 0.5
    first = np.stack(with_noise(u, scale, 2, 240))
    second = first + scale * np.stack([gaussian(242), gaussian(243)])
    found = judged.columns(u, np.stack([first, second], axis=1))
    check(found, 0.01, innovation_abs=[found["innovation_abs"][0], lg(scale)])


def test_divergence(judged):
    """Realizations that differ by c·λᵗ: the growth of the spread is λ at every timestep."""
    rates, T = 1.3, 4
    base, apart = gaussian(26), np.array([1.0, 0.0, -0.5, 0.25])
    fields = np.stack(
        [
            np.stack([base + 0.1 * a * rates**t * gaussian(27) for t in range(1, T + 1)])
            for a in apart
        ]
    )
    found = judged.columns(base, fields)
    variance = np.var(apart, ddof=1) * (0.1 * rates**T) ** 2
    check(
        found,
        divergence_1=lg(rates),
        divergence_2=lg(rates),
        divergence_3=lg(rates),
        spread_rel=0.5 * lg(variance / np.mean(fields[:, -1] ** 2)),
    )


def test_divergence_from_and_to_equal_realizations(judged):
    """A spread that is zero counts as 1e-30."""
    u = np.round(gaussian(28) * 64) / 64
    apart = np.stack([u + 1, u - 1, u + 1, u - 1])
    same = np.stack([u] * 4)
    found = judged.columns(u, np.stack([same, apart, same], axis=1))
    power = 4 / 3
    # spread_rel has a floor of its own, relative.
    check(
        found,
        divergence_1=0.5 * lg(power / 1e-30),
        divergence_2=0.5 * lg(1e-30 / power),
        spread_rel=-5,
    )
