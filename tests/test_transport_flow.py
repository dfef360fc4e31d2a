"""The exact transport map against closed forms: roll, damped cosines, semigroup."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from spinlock.simulation.transport_flow import TransportFlow

SIZES = (8, 15, 32)
few = settings(max_examples=15, derandomize=True, deadline=None, database=None)
parameters = st.tuples(
    st.floats(0.0, 1.0), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.floats(-0.1, 0.1)
)


def white(size, seed=0):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def without_nyquist(fields):
    """The same fields without modes at the Nyquist frequency of an even grid."""
    spectrum = torch.fft.fft2(fields)
    size = fields.shape[-1]
    if size % 2 == 0:
        spectrum[..., size // 2, :] = 0
        spectrum[..., size // 2] = 0
    return torch.fft.ifft2(spectrum).real


@pytest.mark.parametrize("size", SIZES)
@given(first=parameters, second=parameters)
@few
def test_two_steps_are_one_step_of_the_sum(size, first, second):
    fields = without_nyquist(white(size))
    both = [a + b for a, b in zip(first, second, strict=True)]
    twice = TransportFlow(*second, grid_size=size)(TransportFlow(*first, grid_size=size)(fields))
    torch.testing.assert_close(twice, TransportFlow(*both, size)(fields), rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [(1, 0), (0, -1), (3, -2), (-3, 3)])
def test_whole_pixels_roll_the_field(size, shift):
    """Including the Nyquist frequency: the field is white."""
    fields = white(size)
    moved = TransportFlow(0.0, *shift, 0.0, size)(fields)
    torch.testing.assert_close(moved, fields.roll(shift, dims=(-1, -2)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@given(values=parameters, mode=st.tuples(st.integers(0, 3), st.integers(-3, 3)))
@few
def test_a_plane_wave_is_damped_and_shifted(size, values, mode):
    diffusion, vx, vy, growth = values
    kx, ky = (2 * math.pi / size * number for number in mode)
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    moved = TransportFlow(*values, size)(torch.from_numpy(np.cos(kx * x + ky * y))[None, None])
    amplitude = math.exp(growth - diffusion * (kx**2 + ky**2))
    expected = amplitude * np.cos(kx * (x - vx) + ky * (y - vy))
    np.testing.assert_allclose(moved[0, 0].numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_mean_grows_by_the_exponential_of_g(size):
    fields = white(size) + 2.0
    moved = TransportFlow(0.7, 1.3, -0.4, 0.08, size)(fields)
    expected = math.exp(0.08) * fields.mean((-2, -1))
    torch.testing.assert_close(moved.mean((-2, -1)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_the_full_complex_transform(size):
    """An oracle on the full plane, whose result has to be real without help."""
    diffusion, vx, vy, growth = 0.3, 0.6, -1.4, -0.05
    fields = white(size)
    k = 2 * np.pi * np.fft.fftfreq(size)

    def axis(velocity):
        wave = np.exp(-1j * k * velocity)
        return np.where(np.isclose(np.abs(k), np.pi), wave.real, wave) * np.exp(-diffusion * k**2)

    multiplier = np.exp(growth) * axis(vy)[:, None] * axis(vx)
    expected = np.fft.ifft2(np.fft.fft2(fields.numpy().astype(np.float64)) * multiplier)
    assert np.abs(expected.imag).max() < 1e-12
    moved = TransportFlow(diffusion, vx, vy, growth, size)(fields)
    assert moved.dtype == torch.float32
    np.testing.assert_allclose(moved.numpy(), expected.real, rtol=0, atol=1e-5)


def test_does_not_change_its_argument():
    fields = white(8)
    copy = fields.clone()
    TransportFlow(0.5, 1.0, 1.0, 0.1, 8)(fields)
    assert torch.equal(fields, copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-0.1, 0.0, 0.0, 0.0, 8), "diffusion must be at least 0"),
        ((0.1, math.nan, 0.0, 0.0, 8), "must be finite"),
        ((0.1, 0.0, 0.0, 0.0, 0), "grid_size must be at least 1"),
    ],
)
def test_refuses_values_without_meaning(values, message):
    with pytest.raises(ValueError, match=message):
        TransportFlow(*values)


def test_refuses_fields_of_another_grid():
    with pytest.raises(ValueError, match="8×8"):
        TransportFlow(0.5, 1.0, 1.0, 0.1, 8)(white(16))
