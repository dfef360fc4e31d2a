"""Applies an operator and its forcing T times, for all realizations of a sample."""

from collections.abc import Callable

from torch import Tensor

from spinlock.configuration.parameter_space import ParameterValues
from spinlock.errors import SimulationError
from spinlock.runtime.stage_clock import StageClock

Step = Callable[[Tensor, Tensor], Tensor]


def update_step(values: ParameterValues, flow: Callable[[Tensor], Tensor] | None = None) -> Step:
    """Return the update as a function of the field u and of G.

    G = F(u) + s(t) eta is the operator's output plus the forcing. The new field is G
    (autoregressive), u + dt G (residual) or alpha u + (1 - alpha) G (convex); so the residual
    policy scales the forcing by dt, too.

    Args:
        values: Parameter values of the operator.
        flow: Map that is applied to the updated field, see `OperatorFamily.flow`; default: none.

    Raises:
        ValueError: If the update policy is unknown.
    """
    if flow is not None:
        update = update_step(values)
        return lambda u, g: flow(update(u, g))
    match values.update_policy:
        case "autoregressive":
            return lambda u, g: g
        case "residual":
            return lambda u, g: u + values.dt * g
        case "convex":
            return lambda u, g: values.alpha * u + (1 - values.alpha) * g
        case unknown:
            raise ValueError(f"update_policy: unknown policy {unknown!r}")


def update_weights(values: ParameterValues) -> tuple[float, float]:
    """Return the weights a of the field u and b of G in the new field a u + b G of `update_step`.

    Args:
        values: Parameter values of the operator.

    Raises:
        ValueError: If the update policy is unknown.
    """
    match values.update_policy:
        case "autoregressive":
            return 0.0, 1.0
        case "residual":
            return 1.0, values.dt
        case "convex":
            return values.alpha, 1 - values.alpha
        case unknown:
            raise ValueError(f"update_policy: unknown policy {unknown!r}")


def rollout(
    operator: Callable[[Tensor], Tensor],
    initial: Tensor,
    forcing: Callable[[int], Tensor],
    step: Step,
    out: Tensor,
    clock: StageClock | None = None,
) -> None:
    """Simulate T timesteps of M noise realizations from one initial condition.

    Args:
        operator: Operator F, which maps (n, C, H, W) to (n, C, H, W); n = 1 at the
            first timestep, then M.
        initial: Initial condition u_0, (C, H, W).
        forcing: Function that maps the timestep t in 1..T to the forcing s(t) * eta of every
            realization, (M, C, H, W).
        step: Update policy, from `update_step`.
        out: Tensor (M, T, C, H, W) that receives the fields u_1 .. u_T.
        clock: Clock of the stages ``convolutions`` (the operator) and ``forcing``.

    Raises:
        SimulationError: If the operator changes the shape of its fields.

    Example:
        >>> import torch
        >>> out = torch.empty(1, 3, 1, 8, 8)
        >>> initial, no_forcing = torch.ones(1, 8, 8), torch.zeros(1, 1, 8, 8)
        >>> rollout(lambda u: u / 2, initial, lambda t: no_forcing, lambda u, g: g, out)
        >>> out[0, :, 0, 0, 0]
        tensor([0.5000, 0.2500, 0.1250])
    """
    clock = clock or StageClock()
    # The realizations share u_0, so F(u_0) is evaluated once; adding the forcing broadcasts it.
    u = initial[None]
    for t in range(1, out.shape[1] + 1):
        with clock.stage("convolutions"):
            output = operator(u)
        if output.shape != u.shape:
            raise SimulationError(
                f"the operator returned shape {tuple(output.shape)} for fields of shape "
                f"{tuple(u.shape)}; it must keep the shape"
            )
        with clock.stage("forcing"):
            u = step(u, output + forcing(t))
            out[:, t - 1] = u
