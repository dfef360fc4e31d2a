"""Displacement and diffusion of a step: closed forms, symmetries, fields without information."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from spinlock.features.response.displacement import displacement

from .helpers import red, white

few = settings(max_examples=15, derandomize=True, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)


def transported(u, diffusion=0.0, x=0.0, y=0.0):
    """The exact transport of fields [..., H, W], computed in float64 on the full plane."""
    ky, kx = (2 * np.pi * np.fft.fftfreq(side) for side in u.shape[-2:])
    decay = np.exp(-diffusion * (ky[:, None] ** 2 + kx**2))
    waves = np.exp(-1j * ky * y)[:, None] * np.exp(-1j * kx * x)
    return np.fft.ifft2(np.fft.fft2(u) * decay * waves).real


def measured(u, w):
    pair = (torch.from_numpy(np.array(field, dtype=np.float32)) for field in (u, w))
    return displacement(*pair).numpy()


def fields(kind, seed, side=32, count=2):
    return {"white": white, "red": red}[kind](np.random.default_rng(seed), (count, 3, side, side))


KINDS = pytest.mark.parametrize("kind", ["white", "red"])


@KINDS
@pytest.mark.parametrize("side", [16, 33, 64])
@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-7, 5)])
def test_whole_pixels(kind, side, shift):
    u = fields(kind, 1, side)
    result = measured(u, np.roll(u, shift, axis=(-1, -2)))
    np.testing.assert_allclose(result, [[*shift, 0]] * 2, atol=2e-3)


@KINDS
@given(seed=seeds, x=st.floats(-4, 4), y=st.floats(-4, 4), diffusion=st.floats(0, 1))
@few
def test_transport_is_recovered(kind, seed, x, y, diffusion):
    u = fields(kind, seed)
    result = measured(u, transported(u, diffusion, x, y))
    np.testing.assert_allclose(result[:, :2], [[x, y]] * 2, atol=5e-3)
    # Means over rings make 1 % of a strong decay.
    np.testing.assert_allclose(result[:, 2], diffusion, rtol=0.01, atol=5e-3)


@given(seed=seeds, diffusion=st.floats(0, 1))
@few
def test_growth_does_not_change_the_result(seed, diffusion):
    u = fields("red", seed)
    w = transported(u, diffusion, 1.5, -0.5)
    np.testing.assert_allclose(measured(u, 3.0 * w), measured(u, w), atol=2e-3)


def test_rectangular_grids():
    u = red(np.random.default_rng(2), (2, 3, 24, 40))
    result = measured(u, transported(u, 0.4, 1.25, -2.5))
    np.testing.assert_allclose(result, [[1.25, -2.5, 0.4]] * 2, atol=0.01)


def test_the_tail_gives_the_diffusion_of_a_wave_and_noise():
    """One wavelength fixes no slope; the noise that the same kernel smooths does."""
    rng = np.random.default_rng(3)
    x = 2 * np.pi * np.arange(64) / 64
    u = np.broadcast_to(np.cos(3 * x) + np.cos(3 * x)[:, None], (1, 3, 64, 64))
    pure = transported(u, 0.6)
    noisy = transported(u + 0.1 * white(rng, u.shape), 0.6)
    assert abs(measured(u, pure)[0, 2]) < 0.01
    assert measured(u, noisy)[0, 2] == pytest.approx(0.6, abs=0.06)


def test_the_tail_may_fall_as_a_power_of_k():
    rng = np.random.default_rng(10)
    x = 2 * np.pi * np.arange(64) / 64
    u = np.broadcast_to(np.cos(3 * x), (4, 3, 64, 64))
    w = transported(u + 0.1 * red(rng, u.shape, decay=2.0), 0.6)
    np.testing.assert_allclose(measured(u, w)[:, 2], 0.6, atol=0.1)


def test_the_tail_omits_what_is_coherent_with_u():
    """u itself falls like a heat kernel of 1 pixel², and a third of w is noise."""
    rng = np.random.default_rng(11)
    u = transported(white(rng, (4, 3, 64, 64)), 1.0)
    w = transported(u + 0.1 * white(rng, u.shape), 0.3)
    np.testing.assert_allclose(measured(u, w)[:, 2], 0.3, atol=0.03)


def test_incoherent_fields_without_power_in_u_have_no_diffusion():
    w = fields("red", 4)
    np.testing.assert_array_equal(measured(np.zeros_like(w), w), 0)


@pytest.mark.parametrize("along", [-1, -2])
def test_a_plane_wave_moves_along_itself_by_the_smallest_displacement(along):
    """16 pixels a period, moved by 9: the same as by -7, whatever the motion across."""
    phase = 2 * np.pi * np.arange(32) / 16
    wave = np.cos(phase) if along == -1 else np.cos(phase)[:, None]
    u = np.broadcast_to(wave, (1, 1, 32, 32))
    result = measured(u, np.roll(u, 9, axis=along))[0]
    expected = [-7, 0, 0] if along == -1 else [0, -7, 0]
    np.testing.assert_allclose(result, expected, atol=1e-3)


@given(seed=seeds)
@few
def test_nonlinearity_and_noise_of_a_third_leave_the_transport_visible(seed):
    rng = np.random.default_rng(seed)
    u = white(rng, (1, 3, 64, 64))
    smooth = transported(u, 0.5)
    disturbed = u + np.maximum(np.roll(smooth, 1, axis=1), 0) + 0.3 * white(rng, u.shape)
    result = measured(u, transported(disturbed, 0.7, 2.4, -1.1))
    np.testing.assert_allclose(result, [[2.4, -1.1, 0.7]], atol=0.05)


SYMMETRIES = {
    "reflection of x": (lambda a: a[..., ::-1], lambda x, y: (-x, y)),
    "reflection of y": (lambda a: a[..., ::-1, :], lambda x, y: (x, -y)),
    "transposition": (lambda a: np.swapaxes(a, -1, -2), lambda x, y: (y, x)),
    "rotation": (lambda a: np.rot90(a, axes=(-2, -1)), lambda x, y: (y, -x)),
    "translation": (lambda a: np.roll(a, (3, 5), axis=(-1, -2)), lambda x, y: (x, y)),
    "scaling": (lambda a: 1e-3 * a, lambda x, y: (x, y)),
    "sign": (lambda a: -a, lambda x, y: (x, y)),
    "channel means": (lambda a: a + np.array([1.0, -2.0, 5.0])[:, None, None], lambda x, y: (x, y)),
    "order of channels": (lambda a: a[:, [2, 0, 1]], lambda x, y: (x, y)),
}


@pytest.mark.parametrize("name", SYMMETRIES)
@given(seed=seeds)
@few
def test_symmetries(name, seed):
    """Of a step with a nonlinear part, so that no exact answer hides a dependence."""
    change, vector = SYMMETRIES[name]
    u = fields("red", seed, count=1)
    w = transported(u + 0.3 * np.tanh(2 * u) + 0.2 * u**2, 0.3, 1.7, -2.2)
    x, y, diffusion = measured(u, w)[0]
    changed = measured(change(u), change(w))[0]
    np.testing.assert_allclose(changed, [*vector(x, y), diffusion], atol=2e-3)


@pytest.mark.parametrize("side", [8, 33, 96, 128])
def test_samples_do_not_depend_on_their_batch(side):
    u = np.concatenate([fields("white", 5, side), fields("red", 6, side)])
    w = transported(u, 0.4, 0.8, -1.6) + 0.1 * u**2
    alone = np.concatenate([measured(u[i : i + 1], w[i : i + 1]) for i in range(len(u))])
    np.testing.assert_array_equal(measured(u, w), alone)


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 1e6])
@pytest.mark.parametrize("side", [8, 9, 16])
def test_every_result_is_finite(scale, side):
    rng = np.random.default_rng(7)
    noise = scale * white(rng, (1, 3, side, side))
    constant = np.full_like(noise, 3.0)
    wave = np.broadcast_to(scale * np.cos(2 * np.pi * np.arange(side) / side), noise.shape)
    everything = (noise, constant, wave, np.zeros_like(noise), constant + noise)
    for u in everything:
        for w in everything:
            assert np.isfinite(measured(u, w)).all()
            assert np.abs(measured(u, w)[:, :2]).max() < 11


@pytest.mark.parametrize("side", [16, 256])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_fields_do_not_move(value, side):
    u = np.full((1, 2, side, side), value)
    np.testing.assert_array_equal(measured(u, u), 0)


def test_the_means_of_the_fields_do_not_matter():
    u = fields("white", 9)
    result = measured(u + 5, transported(u, 0.5, 2, 1) - 3)
    np.testing.assert_allclose(result, [[2, 1, 0.5]] * 2, atol=5e-3)
