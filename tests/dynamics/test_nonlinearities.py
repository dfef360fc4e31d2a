"""Heterogeneity, amplitude columns and bias of the estimate for pointwise nonlinearities."""

import math

import numpy as np
import pytest
import torch

from tests.dynamics.measuring import lg, measure, states


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_heterogeneity_of_a_gain_that_depends_on_the_state(strength, channels):
    """The gain 1 + a u with <u> = 0 and <u^2> = 1 has the share a^2 / (1 + a^2)."""
    row = measure(lambda u: u + strength / 2 * u**2, channels, side=32)
    assert row["heterogeneity"] == pytest.approx(strength**2 / (1 + strength**2), abs=0.03)
    assert row["gain_rms"] == pytest.approx(0.5 * lg(1 + strength**2), abs=0.01)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_heterogeneity_of_tanh(channels):
    gain = 1 - np.tanh(states(channels, 32)) ** 2
    mean, power = gain.mean((0, 2, 3)), (gain**2).mean((0, 2, 3))
    row = measure(torch.tanh, channels, side=32)
    assert row["heterogeneity"] == pytest.approx(1 - (mean**2).sum() / power.sum(), abs=0.02)


def test_noise_of_the_estimate_is_removed_from_the_kernel():
    """The mean kernel is one pixel; the rest of the Jacobian has half of the power."""
    row = measure(lambda u: (u + u**2 / 2).roll((2, -3), dims=(-1, -2)))
    assert row["shift_x"] == pytest.approx(2, abs=0.02)
    assert row["shift_y"] == pytest.approx(-3, abs=0.02)
    assert row["spread"] < 0.2
    assert row["mixing"] < 0.1
    assert row["diffusion"] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("angle", "tolerance"), [(0.6, 0.02), (math.pi / 2, 0.012)])
def test_noise_of_the_estimate_does_not_bias_mixing(angle, tolerance):
    """Four fifths of the Jacobian depend on the state; on 8 x 8 pixels, much noise remains."""
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])

    def operator(u):
        return torch.einsum("oc,nchw->nohw", matrix, u + u**2)

    found = [measure(operator, side=8, seed=seed)["mixing"] for seed in range(200)]
    assert np.mean(found) == pytest.approx(2 / 3 * sine**2, abs=tolerance)


@pytest.mark.parametrize(
    ("f", "evenness", "superposition", "exponent"),
    [
        (torch.square, 1.0, 0.5, 2.0),
        (lambda u: u**3, 0.0, 0.75, 3.0),
        (torch.abs, 1.0, 0.0, 1.0),
        (torch.sign, 0.0, 1.0, 0.0),
        (lambda u: torch.ones_like(u), 1.0, 1.0, 0.0),
        # (u + |u|) / 2: even and odd parts have the same power.
        (torch.relu, 0.5, 0.0, 1.0),
    ],
)
def test_homogeneous_functions(f, evenness, superposition, exponent):
    row = measure(f)
    assert row["evenness"] == pytest.approx(evenness, abs=1e-6)
    assert row["superposition"] == pytest.approx(superposition, abs=1e-5)
    assert row["amplitude_exponent"] == pytest.approx(exponent, abs=1e-5)


def test_amplitude_columns_agree_with_numpy():
    row = measure(lambda u: torch.tanh(u + 0.3), keep=0.4, gain=0.8)
    r1, r2, *_ = states()

    def phi(u):
        return 0.4 * u + 0.8 * np.tanh(u + 0.3)

    pair = np.stack((r1, r2))
    even, odd = ((phi(pair) + sign * phi(-pair)) ** 2 for sign in (1, -1))
    assert row["evenness"] == pytest.approx(even.sum() / (even.sum() + odd.sum()), abs=1e-5)
    misfit = ((phi(2 * r1) - 2 * phi(r1)) ** 2).mean() / (phi(2 * r1) ** 2).mean()
    assert row["superposition"] == pytest.approx(math.sqrt(misfit), abs=1e-5)
    ratio = (phi(2 * r1) ** 2).mean() / (phi(r1) ** 2).mean()
    assert row["amplitude_exponent"] == pytest.approx(0.5 * math.log2(ratio), abs=1e-5)
    change = ((phi(states()) - states()) ** 2).mean()
    assert row["increment"] == pytest.approx(0.5 * lg(change), abs=1e-5)
