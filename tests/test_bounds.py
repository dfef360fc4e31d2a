"""What docs/data_format.md says about the size of fields: what is bounded, and by how much."""

import math

import pytest
import torch

from spinlock.configuration.parameter_space import ParameterValues
from spinlock.simulation.convolutional_operator import OUTPUT_BOUND, ConvOperator
from spinlock.simulation.rollout import rollout, update_step
from spinlock.simulation.transport_flow import TransportFlow

GENERATOR = torch.Generator().manual_seed(8)
FIELDS = torch.randn(2, 3, 16, 16, generator=GENERATOR)
STEPS = 50


def values(**changes):
    defaults = {
        "num_layers": 2,
        "base_channels": 6,
        "kernel_size": 3,
        "activation": "relu",
        "dropout_rate": 0.0,
        "noise_type": "gaussian",
        "noise_scale": 0.1,
        "noise_schedule": "constant",
        "schedule_period": 100,
        "spatial_correlation": 0.0,
        "normalization": "none",
        "grid_size": 16,
        "update_policy": "residual",
        "alpha": 0.7,
        "dt": 0.1,
    }
    return ParameterValues(**(defaults | changes))


def rms(fields):
    return float(fields.double().square().mean().sqrt())


@pytest.mark.parametrize("num_layers", [2, 5])
@pytest.mark.parametrize("normalization", ["none", "batch", "instance"])
def test_the_operator_is_bounded_and_saturates_except_plain_instance_networks(
    normalization, num_layers
):
    chosen = values(normalization=normalization, num_layers=num_layers)
    operator = ConvOperator(chosen, seed=3, index=1)
    small, large = operator(FIELDS), operator(1e4 * FIELDS)
    assert large.abs().max() <= OUTPUT_BOUND
    if normalization == "instance" and num_layers <= 3:
        # The hidden activations do not depend on the size of the field.
        torch.testing.assert_close(large, small, rtol=0.01, atol=0.01)
    else:
        # More than three layers have shortcuts, which skip the normalization.
        assert (large.abs() > 0.99 * OUTPUT_BOUND).double().mean() > 0.9
        assert (small.abs() > 0.99 * OUTPUT_BOUND).double().mean() < 0.01


def bound(policy, start, steps):
    """The largest |u_t| without forcing, which the constant output 10 attains."""
    a, dt = 0.7, 0.1
    return {
        "autoregressive": OUTPUT_BOUND,
        "convex": a**steps * start + (1 - a**steps) * OUTPUT_BOUND,
        "residual": start + steps * dt * OUTPUT_BOUND,
    }[policy]


@pytest.mark.parametrize("policy", ["autoregressive", "convex", "residual"])
def test_the_bounds_of_the_update_policies_are_attained(policy):
    out = torch.empty(1, STEPS, 3, 16, 16)
    start, none = torch.full((3, 16, 16), 2.0), torch.zeros(1, 3, 16, 16)
    step = update_step(values(update_policy=policy))
    rollout(lambda u: torch.full_like(u, OUTPUT_BOUND), start, lambda t: none, step, out)
    for count in (1, 10, STEPS):
        expected = bound(policy, 2.0, count)
        assert out[0, count - 1].max().item() == pytest.approx(expected, rel=1e-5)
    # An operator that switches between its bounds stays within them.
    signs = torch.where(torch.randn(3, 16, 16, generator=GENERATOR) > 0, 10.0, -10.0)
    rollout(lambda u: signs.expand_as(u) * u.sign(), start, lambda t: none, step, out)
    assert out[0, -1].abs().max().item() <= bound(policy, 2.0, STEPS) * (1 + 1e-5)


@pytest.mark.parametrize("growth", [-0.3, 0.0, 0.1])
def test_transport_bounds_the_root_mean_square(growth):
    uniform = TransportFlow(0.0, 0.0, 0.0, growth, 16)(torch.ones(1, 1, 16, 16))
    assert rms(uniform) == pytest.approx(math.exp(growth), rel=1e-6)
    flow = TransportFlow(0.2, 0.4, -1.3, growth, 16)
    assert rms(flow(FIELDS)) <= math.exp(growth) * rms(FIELDS)
    # A bound for the maximum does not exist: moving steps by part of a pixel overshoots.
    steps = torch.where(torch.arange(16) < 8, 1.0, -1.0).repeat(1, 1, 16, 1)
    assert TransportFlow(0.0, 0.5, 0.0, 0.0, 16)(steps).max() > 1.05


@pytest.mark.parametrize(("growth", "grows"), [(-0.1, False), (0.1, True)])
def test_residual_transport_is_bounded_only_if_it_decays(growth, grows):
    """rms(u_t) <= e^g (rms(u_{t-1}) + 10 dt), so 10 dt e^g / (1 - e^g) bounds decaying fields."""
    out = torch.empty(1, 4 * STEPS, 3, 16, 16)
    flow = TransportFlow(0.0, 0.0, 0.0, growth, 16)
    step = update_step(values(), flow)
    none = torch.zeros(1, 3, 16, 16)
    rollout(lambda u: torch.full_like(u, 10.0), FIELDS[0], lambda t: none, step, out)
    limit = 10 * 0.1 * math.exp(growth) / abs(1 - math.exp(growth))
    assert (rms(out[0, -1]) > 1e6) if grows else (rms(out[0, -1]) <= limit * (1 + 1e-4))
