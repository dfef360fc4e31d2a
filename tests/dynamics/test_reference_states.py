"""Reference states and probing directions: spectra, moments and orthogonality."""

import pytest
import torch

from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.reference_states import hadamard, num_directions, reference_states
from tests.dynamics.measuring import CPU, SEED, measure
from tests.helpers import values


@pytest.mark.parametrize("channels", [1, 3, 5, 20])
def test_reference_states(channels):
    reference = reference_states(SEED, channels, 16, CPU)
    fields = reference.states.double()
    torch.testing.assert_close(fields.square().mean((1, 2, 3)), torch.ones(4).double())
    assert fields.mean((-2, -1)).abs().max() < 1e-6
    assert torch.equal(reference.states[2:], -reference.states[:2])
    # The power spectra are f^0 and f^-2: the slopes of mean powers between low and high modes.
    power = torch.fft.fft2(fields[:2]).abs().square().mean(1)
    frequency = torch.fft.fftfreq(16, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency)
    low, high = (radius > 0) & (radius < 0.2), radius > 0.3
    for spectrum, slope in zip(power, (0.0, 2.0), strict=True):
        flat = spectrum * radius**slope
        assert 0.6 < flat[low].mean() / flat[high].mean() < 1.6
    assert len(reference.directions) == num_directions(channels)
    modulus = torch.fft.fft2(reference.directions.double(), norm="ortho").abs()
    torch.testing.assert_close(modulus, torch.ones_like(modulus), atol=1e-4, rtol=0)
    # Channels are orthogonal over directions, mode by mode.
    gram = torch.einsum("pckl,pdkl->klcd", reference.spectra.conj(), reference.spectra)
    gram = gram / len(reference.directions)
    if reference.separable:
        identity = torch.eye(channels, dtype=gram.dtype).expand_as(gram)
        torch.testing.assert_close(gram, identity, atol=1e-5, rtol=0)
    other = reference_states(SEED + 1, channels, 16, CPU)
    assert not torch.allclose(other.states, reference.states)


def test_hadamard():
    signs = hadamard(16)
    assert signs.abs().eq(1).all()
    assert torch.equal(signs @ signs.T, 16 * torch.eye(16).double())


def test_reference_states_of_another_seed_measure_the_same():
    operator = ConvOperator(values(base_channels=16), seed=1, index=0, channels=3)
    rows = [measure(operator, keep=0.5, gain=0.5, seed=seed) for seed in (1, 2)]
    for name in ("heterogeneity", "evenness", "superposition", "mixing", "lyapunov", "gain_rms"):
        assert rows[0][name] == pytest.approx(rows[1][name], abs=0.08), name
