"""Responses of simple maps, from analysis rather than from any implementation.

Every test here runs on the oracle too, so that the judge is judged first. The oracle leaves out
the transport columns.
"""

import numpy as np
import pytest

from spinlock.features.response import NOISE_NAMES

from .response_cases import (
    SIDE,
    Implementation,
    check,
    gaussian,
    heat,
    lg,
    multiplied,
    wave,
)


@pytest.fixture(params=["oracle", "package"])
def judged(request, device):
    return Implementation(None if request.param == "oracle" else device)


def flat_spectrum(seed, side=SIDE):
    """One channel [1, H, W] of mean 0 with equal power in every bin, thus uncorrelated pixels."""
    transform = np.fft.fft2(np.random.default_rng(seed).standard_normal((side, side)))
    transform /= np.abs(transform)
    transform[0, 0] = 0
    return np.fft.ifft2(transform).real[None] * side


def white_share(low, high, side=SIDE):
    """Share of the bins other than zero whose frequency is in [low, high)."""
    f = np.hypot(np.fft.fftfreq(side)[None, :], np.fft.fftfreq(side)[:, None])
    return np.sum((f > 0) & (f >= low) & (f < high)) / (side**2 - 1)


# --------------------------------------------------------------------------------- linear maps


@pytest.mark.parametrize("M", [1, 5])
def test_identity(judged, M):
    u = gaussian(0) + 0.5
    found = judged.step(u, *[u] * M)
    floor = 1e-10 * 2
    check(
        found,
        1e-3,
        persistence=1,
        beta=1,
        innovation=0.5 * lg(floor),
        innovation_abs=0.5 * lg(floor),
        nonlinear_share=0.5 * lg(floor),
        increment=0.5 * lg(floor),
        band_gain_0=-5,
        band_gain_4=0.5 * lg(1e-10 / white_share(0.25, 1)),
        mean_out=0.5 / np.sqrt(1.25),
        mean_signed=0.5 / np.sqrt(1.25),
        channel_mean_1=0,
        transport_x=0,
        transport_y=0,
        transport_diffusion=0,
    )
    if M > 1:
        expected = dict.fromkeys(NOISE_NAMES, 0.0) | {"noise_abs": -15, "noise_rel": -5}
        check(found, 1e-6, **expected)


@pytest.mark.parametrize("g", [2.5, -0.4, 0.99])
def test_gain(judged, g):
    """All of the change is linear, with the means of the channels as with the rest."""
    means = np.array([0.5, -1.0, 2.0])
    u = gaussian(1) + means[:, None, None]
    found = judged.step(u, g * u)
    floor = 0.5 * lg(1e-10 * (1 + 1 / g**2))
    square = 1 + np.mean(means**2)
    check(
        found,
        1e-3,
        persistence=np.sign(g),
        beta=g,
        innovation=floor,
        innovation_abs=floor + lg(abs(g)),
        nonlinear_share=floor,
        increment=lg(abs(g - 1)),
        mean_out=np.sqrt(np.mean(means**2) / square),
        mean_signed=np.sign(g) * means.mean() / np.sqrt(square),
        channel_mean_0=0,
        channel_mean_1=0,
        channel_mean_2=0,
    )
    # The model of transport has a positive gain.
    if g > 0:
        check(found, 5e-3, transport_x=0, transport_y=0, transport_diffusion=0)


def test_added_constants_are_the_channel_means(judged):
    means, added = np.array([0.3, 0.0, -1.0]), np.array([1.0, -2.0, 0.25])
    u = gaussian(2) + means[:, None, None]
    found = judged.step(u, 0.5 * u + added[:, None, None])
    out = 0.5 * means + added
    square = 0.25 + np.mean(out**2)
    check(
        found,
        persistence=1,
        beta=0.5,
        increment=0.5 * lg((0.25 + np.mean((out - means) ** 2)) / (1 + np.mean(means**2))),
        mean_out=np.sqrt(np.mean(out**2) / square),
        mean_signed=out.mean() / np.sqrt(square),
        channel_mean_0=1 / np.sqrt(square),
        channel_mean_1=-2 / np.sqrt(square),
        channel_mean_2=0.25 / np.sqrt(square),
    )


@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, -2), (-2, 1), (3, 0), (0, -3)])
def test_shift(judged, dy, dx):
    """A shift of uncorrelated pixels is new to beta, but not to a stencil that reaches it."""
    u = flat_spectrum(3)
    found = judged.step(u, np.roll(u, (dy, dx), axis=(1, 2)))
    correlation = -1 / (SIDE**2 - 1)  # without the mean, every two pixels have it
    within_reach = max(abs(dy), abs(dx)) <= 2
    check(
        found,
        5e-3,
        persistence=correlation,
        beta=correlation,
        innovation=0.5 * lg(1 - correlation**2),
        increment=0.5 * lg(2 * (1 - correlation)),
        # The ridge of 1e-3 leaves 1e-3 of the amplitude.
        nonlinear_share=-3 if within_reach else 0,
        transport_x=dx,
        transport_y=dy,
        transport_diffusion=0,
    )
    check(found, 2e-4, **{f"band_gain_{b}": 0 for b in range(5)})


def test_shift_of_a_wave(judged):
    """Persistence is the cosine of the phase, and a stencil makes the shift from two phases."""
    u = wave(0, 8)[None]
    found = judged.step(u, np.roll(u, 3, axis=2))
    phase = 2 * np.pi * 8 * 3 / 128
    check(
        found,
        persistence=np.cos(phase),
        beta=np.cos(phase),
        innovation=lg(np.sin(phase)),
        innovation_abs=lg(np.sin(phase) / np.sqrt(2)),
        increment=lg(2 * np.sin(phase / 2)),
        band_gain_2=lg(np.sin(phase)),
    )
    assert found["nonlinear_share"] < found["innovation"] - 1


@pytest.mark.parametrize(("dy", "dx"), [(2, -1), (-3, 3)])
def test_shift_with_spreading(judged, dy, dx):
    u, D = gaussian(4), 0.4
    found = judged.step(u, np.roll(heat(u, D), (dy, dx), axis=(1, 2)))
    check(found, 0.01, transport_x=dx, transport_y=dy, transport_diffusion=D)


# Frequency, in 1/128 cycles/pixel: the lower edges of the octaves are 4, 8, 16 and 32.
MODES = ((0, 2), (4, 0), (0, 8), (16, 0), (0, 32))


def octave_field(powers):
    """One channel with one wave in each octave, at its lower edge."""
    modes = zip(MODES, powers, strict=True)
    return sum(np.sqrt(2 * p) * wave(ky, kx) for (ky, kx), p in modes)[None]


def test_heat_kernel(judged):
    """Each octave keeps what the multiplier keeps of its wave, less the mean gain."""
    powers, D = np.array([5.0, 2.0, 1.0, 0.5, 0.3]), 3.0
    u = octave_field(powers)
    k = 2 * np.pi * np.hypot(*np.transpose(MODES)) / 128
    G = np.exp(-D * k**2)
    share = powers / powers.sum()
    beta, square = share @ G, share @ G**2
    found = judged.step(u, heat(u, D))
    check(
        found,
        persistence=beta / np.sqrt(square),
        beta=beta,
        innovation=0.5 * lg((square - beta**2) / square),
        innovation_abs=0.5 * lg((square - beta**2) * powers.sum()),
        increment=0.5 * lg(share @ (1 - G) ** 2),
        **{f"band_gain_{b}": lg(abs(G[b] - beta)) for b in range(5)},
    )


@pytest.mark.parametrize("weak", range(5))
@pytest.mark.parametrize("share", [0.0, 0.0099, 0.0101])
def test_an_octave_with_little_power_has_the_gain_of_all(judged, weak, share):
    """An octave with under 1 % of the power of u has no gain of its own."""
    powers = np.full(5, (1 - share) / 4)
    powers[weak] = share
    G = np.array([1.5, 1.2, 1.0, 0.5, 0.1])
    u = octave_field(powers)
    w = octave_field(powers * G**2)
    beta = powers @ G
    expected = lg(np.abs(G - beta))
    if share < 0.01:
        expected[weak] = 0.5 * lg(powers @ (G - beta) ** 2)
    check(judged.step(u, w), **{f"band_gain_{b}": expected[b] for b in range(5)})


@pytest.mark.parametrize(("D", "tolerance"), [(0.1, 0.002), (0.5, 0.01), (1.0, 0.05)])
def test_diffusion_of_white_noise(judged, D, tolerance):
    u = gaussian(5)
    found = judged.step(u, heat(u, D))
    check(found, tolerance, transport_x=0, transport_y=0, transport_diffusion=D)


def test_gain_at_the_smallest_grid_has_one_value_where_an_octave_is_empty(judged):
    """At 32 x 32 no bin lies below 1/32 cycles/pixel."""
    u = flat_spectrum(6, 32)
    w = multiplied(u, lambda f: np.where(f < 1 / 8, 2.0, 0.5))
    low = white_share(0.0, 1 / 8, 32)
    beta = 2 * low + 0.5 * (1 - low)
    total = 0.5 * lg(low * (2 - beta) ** 2 + (1 - low) * (0.5 - beta) ** 2)
    expected = [total, total, lg(2 - beta), lg(beta - 0.5), lg(beta - 0.5)]
    # 8 of 1023 bins lie in the octave from 1/32: under 1 %.
    assert white_share(1 / 32, 1 / 16, 32) < 0.01
    check(judged.step(u, w), **{f"band_gain_{b}": expected[b] for b in range(5)})


# ------------------------------------------------------------------------------ nonlinear maps


def test_square_of_a_gaussian(judged):
    """u² is uncorrelated with u: its mean square is 3, and 1 of that is in the mean."""
    found = judged.step(gaussian(7), gaussian(7) ** 2)
    check(
        found,
        0.01,
        persistence=0,
        beta=0,
        innovation=0,
        innovation_abs=0.5 * lg(2),
        increment=0.5 * lg(4),
        mean_out=1 / np.sqrt(3),
        mean_signed=1 / np.sqrt(3),
        channel_mean_0=1 / np.sqrt(3),
        nonlinear_share=0,
    )


def test_square_beside_a_linear_part(judged):
    """w = u / 2 + a u²: the innovation is the square's, 2 a² of 1/4 + 2 a²."""
    u, a = gaussian(8), 0.2
    found = judged.step(u, 0.5 * u + a * u**2)
    share = 0.5 * lg(2 * a**2 / (0.25 + 2 * a**2))
    check(found, 0.01, beta=0.5, innovation=share, innovation_abs=0.5 * lg(2 * a**2))
    # A stencil finds no more in it than chance: 75 regressors for 4096 pixels.
    check(found, 0.01, nonlinear_share=share + 0.5 * lg(1 - 75 / SIDE**2))


def test_cube_of_a_gaussian(judged):
    """u³ has moments E u⁴ = 3 with u and E u⁶ = 15."""
    u = gaussian(9)
    found = judged.step(u, u**3)
    check(found, 0.02, persistence=3 / np.sqrt(15), beta=3, innovation=0.5 * lg(6 / 15))


def test_stencil_of_all_channels_explains_what_is_linear(judged):
    """A shift within the reach of the stencil, from another channel, and a square beside it."""
    u, a = gaussian(10), 0.3
    linear = np.roll(u, (1, 2, -2), axis=(0, 1, 2))
    found = judged.step(u, linear + a * (u**2 - 1))
    total = 1 + 2 * a**2
    check(found, 0.02, innovation=0, nonlinear_share=0.5 * lg(2 * a**2 / total))
