"""Dynamics of operators: closed forms, tangent-linear oracles, transport, and cost."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.dynamics import STEPS, DynamicsProbe, probing_side
from spinlock.simulation.dynamics_columns import DYNAMICS, DYNAMICS_NAMES
from spinlock.simulation.jacobian_kernel import kernel_columns
from spinlock.simulation.reference_states import hadamard, num_directions, reference_states
from spinlock.simulation.rollout import update_step, update_weights
from spinlock.simulation.transport_flow import TransportFlow
from tests.helpers import values

SEED = 42
CPU = torch.device("cpu")
SHAPES = [(1, 8), (1, 32), (3, 8), (3, 16), (3, 32), (5, 16), (5, 8)]


def measure(operator, channels=3, side=16, keep=0.0, gain=1.0, seed=SEED, **options):
    """Columns by name."""
    probe = DynamicsProbe(seed, channels, side)
    row = probe.measure(operator, keep=keep, gain=gain, **options)
    assert row.dtype == torch.float32
    return dict(zip(DYNAMICS_NAMES, row.tolist(), strict=True))


def states(channels=3, side=16, seed=SEED):
    return reference_states(seed, channels, side, CPU).states.double().numpy()


def squared_gains(diffusion, velocity, growth, side):
    """|S(k)|^2 on the full grid; a mode at the Nyquist frequency keeps the real part only."""
    k = 2 * np.pi * np.fft.fftfreq(side)
    nyquist = np.isclose(np.abs(k), np.pi)
    along = [
        np.exp(-2 * diffusion * k**2) * np.where(nyquist, np.cos(np.pi * v) ** 2, 1.0)
        for v in velocity
    ]
    return np.exp(2 * growth) * np.outer(along[1], along[0])


def lg(x):
    return math.log10(x)


# Exact linear operators


def check_transport(row, diffusion, velocity, growth, side):
    power = squared_gains(diffusion, velocity, growth, side)
    assert row["diffusion"] == pytest.approx(diffusion, rel=0.01, abs=1e-4)
    assert row["growth"] == pytest.approx(growth, rel=0.01, abs=1e-4)
    assert row["shift_x"] == pytest.approx(velocity[0], rel=0.01, abs=1e-3)
    assert row["shift_y"] == pytest.approx(velocity[1], rel=0.01, abs=1e-3)
    assert row["heterogeneity"] < 1e-5
    assert row["evenness"] < 1e-6
    assert row["superposition"] < 1e-5
    assert row["amplitude_exponent"] == pytest.approx(1, abs=1e-5)
    assert row["mixing"] < 1e-6
    assert row["gain_rms"] == pytest.approx(0.5 * lg(power.mean()), abs=1e-4)
    # A perturbation of a flat spectrum keeps the power |S|^2t of each mode.
    grown = math.log((power**STEPS).mean()) / (2 * STEPS)
    assert row["lyapunov"] == pytest.approx(grown, abs=1e-3)


@pytest.mark.parametrize(("channels", "side"), SHAPES)
def test_linear_transport_is_recovered(channels, side):
    flow = TransportFlow(0.5, 1.5, 0.5, 0.05, side)
    row = measure(torch.zeros_like, channels, side, keep=1.0, gain=0.3, flow=flow)
    check_transport(row, 0.5, (1.5, 0.5), 0.05, side)
    # |S|^2 is a Gaussian of variance D along each axis.
    assert row["spread"] == pytest.approx(math.sqrt(2 * 0.5), rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    diffusion=st.floats(0, 1),
    velocity=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    growth=st.floats(-0.1, 0.1),
)
def test_any_linear_transport_is_recovered(diffusion, velocity, growth):
    flow = TransportFlow(diffusion, *velocity, growth, 16)
    row = measure(torch.zeros_like, keep=1.0, gain=0.3, flow=flow)
    check_transport(row, diffusion, velocity, growth, 16)


def test_kernel_of_several_pixels():
    """K = a delta(x) + b delta(x - 2): the mean change of phase and the radius about it."""
    row = measure(lambda u: u.roll(2, dims=-2), keep=0.6, gain=0.3)
    transfer = 0.6 + 0.3 * np.exp(-2j * 2 * np.pi / 16 * np.arange(-7, 8))
    shift = 16 / (2 * np.pi) * np.angle((transfer[:-1] * transfer[1:].conj()).sum())
    weight = np.array([0.36, 0.09]) / 0.45
    spread = math.sqrt(weight @ (np.array([0, 2]) - shift) ** 2)
    assert row["gain_rms"] == pytest.approx(0.5 * lg(0.45), abs=1e-4)
    assert row["shift_y"] == pytest.approx(shift, abs=1e-4)
    assert row["shift_x"] == pytest.approx(0, abs=1e-4)
    assert row["spread"] == pytest.approx(spread, abs=1e-4)
    # It approaches the centroid of |K|^2 where the kernel is smooth or the grid is large.
    large = measure(lambda u: u.roll(2, dims=-2), side=64, keep=0.6, gain=0.3)
    assert large["shift_y"] == pytest.approx(weight @ [0, 2], abs=0.03)


@pytest.mark.parametrize("channels", [3, 5])
def test_mixing_is_the_share_between_channels(channels):
    matrix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(1))
    row = measure(lambda u: torch.einsum("oc,nchw->nohw", matrix, u), channels)
    power = matrix.square()
    share = 1 - float(power.diagonal().sum() / power.sum())
    assert row["mixing"] == pytest.approx(share, abs=1e-4)
    assert row["gain_rms"] == pytest.approx(0.5 * lg(float(power.sum()) / channels), abs=1e-4)


def test_diffusion_of_mixed_channels():
    """An orthogonal matrix of channels changes neither diffusion nor growth."""
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))
    flow = TransportFlow(0.7, -2.2, 0.4, -0.06, 16)
    row = measure(lambda u: torch.einsum("oc,nchw->nohw", matrix, u), flow=flow)
    assert row["diffusion"] == pytest.approx(0.7, rel=0.01)
    assert row["growth"] == pytest.approx(-0.06, abs=1e-3)
    assert row["shift_x"] == pytest.approx(-2.2, rel=0.01)


def test_strongly_damped_modes_do_not_spoil_the_fit():
    """At D = 4 most modes are below rounding errors of the others."""
    row = measure(torch.zeros_like, keep=1.0, flow=TransportFlow(4.0, 1.0, 0.0, 0.0, 32), side=32)
    assert row["diffusion"] == pytest.approx(4.0, rel=0.01)


def test_more_channels_than_directions():
    flow = TransportFlow(0.5, 1.5, 0.5, 0.05, 16)
    row = measure(torch.zeros_like, 20, keep=1.0, flow=flow)
    assert row["heterogeneity"] < 0.2
    assert row["shift_x"] == pytest.approx(1.5, abs=0.05)
    assert row["diffusion"] == pytest.approx(0.5, abs=0.05)


# Contraction and expansion


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


# Pointwise nonlinearities


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


# Transport with a nonlinear network


@pytest.mark.parametrize("index", range(6))
def test_transport_behind_a_network_of_half_the_signal(index):
    """D and v to 5 % of the ranges of their axes, 1 and 6."""
    v = values(
        num_layers=2 + index % 4,
        kernel_size=(3, 5, 7)[index % 3],
        normalization=("none", "instance", "batch")[index // 2],
        activation=("gelu", "relu", "silu")[index % 3],
    )
    operator = ConvOperator(v, seed=7, index=index, channels=3)
    random = np.random.default_rng(index)
    diffusion, *velocity = random.uniform((0, -3, -3), (1, 3, 3))
    reference = torch.from_numpy(states()[:2]).float()
    dt = 0.5 / float(operator(reference).square().mean().sqrt())
    flow = TransportFlow(diffusion, *velocity, random.uniform(-0.1, 0.1), 16)
    row = measure(operator, keep=1.0, gain=dt, flow=flow)
    assert row["diffusion"] == pytest.approx(diffusion, abs=0.05)
    assert row["shift_x"] == pytest.approx(velocity[0], abs=0.3)
    assert row["shift_y"] == pytest.approx(velocity[1], abs=0.3)
    assert row["heterogeneity"] > 0.02


# Reference states


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


# Cost, robustness and registry


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
    probe = DynamicsProbe(SEED, 3, 16)
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
    first = DynamicsProbe(SEED, 3, 16).measure(operator, keep=0.0, gain=1.0)
    second = DynamicsProbe(SEED, 3, 16).measure(operator, keep=0.0, gain=1.0)
    assert torch.equal(first, second)


def test_reference_states_of_another_seed_measure_the_same():
    operator = ConvOperator(values(base_channels=16), seed=1, index=0, channels=3)
    rows = [measure(operator, keep=0.5, gain=0.5, seed=seed) for seed in (1, 2)]
    for name in ("heterogeneity", "evenness", "superposition", "mixing", "lyapunov", "gain_rms"):
        assert rows[0][name] == pytest.approx(rows[1][name], abs=0.08), name


def test_devices_agree(device):
    rows = []
    for where in (CPU, device):
        probe = DynamicsProbe(SEED, 3, 16, where)
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


def test_probing_side():
    assert probing_side(128, built_in=True) == 16
    assert probing_side(8, built_in=True) == 8
    assert probing_side(64, built_in=False) == 64


@pytest.mark.parametrize("policy", ["autoregressive", "residual", "convex"])
def test_update_weights_are_those_of_the_update_step(policy):
    v = values(update_policy=policy, alpha=0.3, dt=0.05)
    keep, gain = update_weights(v)
    u, g = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(update_step(v)(u, g), keep * u + gain * g)


def test_an_unknown_policy_has_no_weights():
    with pytest.raises(ValueError, match="unknown policy 'leapfrog'"):
        update_weights(values(update_policy="leapfrog"))
