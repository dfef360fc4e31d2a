"""Diffusion, velocity, growth and kernel of linear operators, and behind a network."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.timestep_columns import STEPS
from spinlock.simulation.transport_flow import TransportFlow
from tests.dynamics.measuring import lg, measure, states
from tests.helpers import values

SHAPES = [(1, 8), (1, 32), (3, 8), (3, 16), (3, 32), (5, 16), (5, 8)]


def squared_gains(diffusion, velocity, growth, side):
    """|S(k)|^2 on the full grid; a mode at the Nyquist frequency keeps the real part only."""
    k = 2 * np.pi * np.fft.fftfreq(side)
    nyquist = np.isclose(np.abs(k), np.pi)
    along = [
        np.exp(-2 * diffusion * k**2) * np.where(nyquist, np.cos(np.pi * v) ** 2, 1.0)
        for v in velocity
    ]
    return np.exp(2 * growth) * np.outer(along[1], along[0])


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
