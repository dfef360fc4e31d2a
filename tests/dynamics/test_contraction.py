"""Memory, Lyapunov exponent and late states of maps that contract or expand."""

import math

import numpy as np
import pytest
import torch

from spinlock.simulation.reference_states import reference_states
from spinlock.simulation.timestep_columns import STEPS
from tests.dynamics.measuring import CPU, SEED, lg, measure, states


@pytest.mark.parametrize("factor", [0.3, 2.0, -1.5])
def test_factor(factor):
    row = measure(lambda u: factor * u)
    size = abs(factor)
    r1, r2, *_ = states()
    assert row["lyapunov"] == pytest.approx(math.log(size), abs=1e-4)
    assert row["growth"] == pytest.approx(math.log(size), abs=1e-4)
    assert row["memory"] == pytest.approx(math.sqrt(((r1 - r2) ** 2).mean()), abs=1e-4)
    assert row["late_rms"] == pytest.approx(STEPS * lg(size), abs=1e-4)
    assert row["late_persistence"] == pytest.approx(math.copysign(1, factor), abs=1e-5)
    assert row["increment"] == pytest.approx(lg(abs(factor - 1)), abs=1e-4)


def test_contraction_to_a_fixed_point_forgets():
    """u -> 0.3 u + f with a field f that is not constant and whose channels have means."""
    field = 2 + torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3))
    row = measure(lambda u: 0.3 * u + field)
    r1, r2, *_ = states()
    f = field.double().numpy()
    p, q = (0.3**STEPS * r + f * sum(0.3**t for t in range(STEPS)) for r in (r1, r2))
    before = [0.3 ** (STEPS - 1) * r + f * sum(0.3**t for t in range(STEPS - 1)) for r in (r1, r2)]
    energy = ((p**2).mean() + (q**2).mean()) / 2
    assert row["memory"] == pytest.approx(math.sqrt(((p - q) ** 2).mean() / energy), abs=1e-4)
    assert row["memory"] < 0.05
    assert row["late_rms"] == pytest.approx(0.5 * lg(energy), abs=1e-4)
    old, new = np.stack(before), np.stack((p, q))
    old = old - old.mean((-2, -1), keepdims=True)
    new = new - new.mean((-2, -1), keepdims=True)
    correlation = (old * new).sum() / np.sqrt((old**2).sum() * (new**2).sum())
    assert row["late_persistence"] == pytest.approx(correlation, abs=1e-4)
    assert row["lyapunov"] == pytest.approx(math.log(0.3), abs=1e-3)


@pytest.mark.parametrize(
    ("f", "derivative"),
    [(np.tanh, lambda u: 1 - np.tanh(u) ** 2), (np.sin, np.cos), (np.square, lambda u: 2 * u)],
)
def test_lyapunov_agrees_with_the_tangent_linear_map(f, derivative):
    """Without renormalization: the perturbation is multiplied by 0.2 + 0.9 f'(u_t)."""
    row = measure(lambda u: torch.from_numpy(f(u.numpy())), keep=0.2, gain=0.9)
    reference = reference_states(SEED, 3, 16, CPU)
    u, tangent = (x[0].double().numpy() for x in (reference.states, reference.directions))
    start = (tangent**2).mean()
    for _ in range(STEPS):
        tangent = (0.2 + 0.9 * derivative(u)) * tangent
        u = 0.2 * u + 0.9 * f(u)
    expected = math.log((tangent**2).mean() / start) / (2 * STEPS)
    assert row["lyapunov"] == pytest.approx(expected, abs=0.02)
