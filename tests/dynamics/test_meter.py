"""Cost, robustness and repeatability of the probe, and the registry of its columns."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.dynamics import DynamicsMeter, measuring_side
from spinlock.simulation.dynamics_columns import DYNAMICS, DYNAMICS_NAMES
from spinlock.simulation.jacobian_kernel import kernel_columns
from spinlock.simulation.reference_states import reference_states
from spinlock.simulation.rollout import update_step, update_weights
from spinlock.simulation.timestep_columns import STEPS
from tests.dynamics.measuring import CPU, SEED, lg, measure
from tests.helpers import values


@pytest.mark.parametrize(
    ("channels", "evaluations"), [(1, 15), (3, 15), (5, 19), (12, 27), (30, 27)]
)
def test_at_most_27_evaluations_in_three_calls(channels, evaluations):
    calls = []

    def counting(u):
        calls.append(len(u))
        return u / 2

    measure(counting, channels, side=8)
    assert sum(calls) == evaluations <= 27
    assert len(calls) == STEPS


class _NoSynchronization(TorchDispatchMode):
    """Fails at operations that wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        assert "_local_scalar_dense" not in name, name
        assert "nonzero" not in name, name
        # Indices in a list are copied from the host.
        assert not name.startswith("index."), name
        assert "masked_select" not in name, name
        return func(*args, **(kwargs or {}))


def test_no_synchronization():
    probe = DynamicsMeter(SEED, 3, 16)
    with _NoSynchronization():
        probe.measure(torch.tanh, keep=0.5, gain=0.5, noise_scale=0.1, noise_length=0.2)
        with pytest.raises(AssertionError):
            torch.ones(1).sum().item()


@pytest.mark.parametrize(
    "operator",
    [
        torch.zeros_like,
        torch.ones_like,
        torch.sign,
        lambda u: u,
        lambda u: -u,
        lambda u: 1e12 * u,
        lambda u: 1e-12 * u,
        lambda u: u**3,
        lambda u: u.flip(-1),
        lambda u: u.mean((-2, -1), keepdim=True).expand_as(u),
        lambda u: u - u.roll(1, -1),
        lambda u: u.roll(1, dims=1),
    ],
)
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16)])
@pytest.mark.parametrize(("keep", "gain"), [(0.0, 1.0), (1.0, 0.01), (0.5, 0.0)])
def test_finite_and_within_ranges(operator, channels, side, keep, gain):
    row = measure(operator, channels, side, keep, gain)
    for column in DYNAMICS:
        value = row[column.name]
        assert math.isfinite(value), column.name
        low, high = BOUNDS.get(column.name, (-math.inf, math.inf))
        assert low - 1e-5 <= value <= high + 1e-5, column.name


BOUNDS = {
    "lyapunov": (-13.82, math.inf),
    "memory": (0, 2),
    "heterogeneity": (0, 1),
    "evenness": (0, 1),
    "superposition": (0, 1000),
    "gain_rms": (-10, math.inf),
    "increment": (-6, math.inf),
    "spread": (0, math.inf),
    "mixing": (0, 1),
    "late_rms": (-10, 6),
    "late_persistence": (-1, 1),
    "noise": (-6, math.inf),
}


def test_values_of_maps_without_dynamics():
    row = measure(torch.zeros_like)
    assert row["lyapunov"] == pytest.approx(math.log(1e-6), abs=1e-3)
    for name in ("memory", "heterogeneity", "evenness", "superposition", "mixing", "spread"):
        assert row[name] == 0
    assert row["gain_rms"] == row["late_rms"] == -10
    identity = measure(lambda u: u)
    assert identity["increment"] == -6
    assert identity["lyapunov"] == pytest.approx(0, abs=1e-5)


def test_noise_columns():
    row = measure(torch.tanh, keep=0.3, gain=0.7, noise_scale=0.2, noise_length=0.15)
    assert row["noise"] == pytest.approx(lg(0.14), abs=1e-5)
    assert row["noise_length"] == pytest.approx(0.15)
    assert measure(torch.tanh)["noise"] == -6


def test_repeated_measurements_are_equal():
    operator = ConvOperator(values(), seed=1, index=0, channels=3)
    first = DynamicsMeter(SEED, 3, 16).measure(operator, keep=0.0, gain=1.0)
    second = DynamicsMeter(SEED, 3, 16).measure(operator, keep=0.0, gain=1.0)
    assert torch.equal(first, second)


def test_devices_agree(device):
    rows = []
    for where in (CPU, device):
        probe = DynamicsMeter(SEED, 3, 16, where)
        row = probe.measure(torch.tanh, keep=0.5, gain=0.5)
        assert row.device.type == where.type
        rows.append(row.cpu())
    torch.testing.assert_close(*rows, atol=1e-3, rtol=1e-3)


def test_kernel_of_one_direction_per_channel_pair():
    """The columns do not depend on the scale of the Jacobian, except gain and growth."""
    reference = reference_states(SEED, 3, 16, CPU)
    jacobian = torch.tanh(3 * reference.directions)
    small, large = (kernel_columns(a * jacobian, reference) for a in (0.1, 10.0))
    for name, value in small.items():
        offset = {"gain_rms": 2.0, "growth": math.log(100)}.get(name, 0.0)
        assert float(large[name] - value) == pytest.approx(offset, abs=1e-6), name


def test_registry():
    assert len(set(DYNAMICS_NAMES)) == len(DYNAMICS_NAMES) == 18
    assert DYNAMICS_NAMES[:3] == ("lyapunov", "memory", "heterogeneity")
    assert all(column.formula and column.unit and column.range for column in DYNAMICS)


def test_measuring_side():
    assert measuring_side(128, built_in=True) == 16
    assert measuring_side(8, built_in=True) == 8
    assert measuring_side(64, built_in=False) == 64


@pytest.mark.parametrize("policy", ["autoregressive", "residual", "convex"])
def test_update_weights_are_those_of_the_update_step(policy):
    v = values(update_policy=policy, alpha=0.3, dt=0.05)
    keep, gain = update_weights(v)
    u, g = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(update_step(v)(u, g), keep * u + gain * g)


def test_an_unknown_policy_has_no_weights():
    with pytest.raises(ValueError, match="unknown policy 'leapfrog'"):
        update_weights(values(update_policy="leapfrog"))
