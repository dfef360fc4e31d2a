"""Rollout: an operator, a field and a forcing -> trajectories of all realizations."""

from collections.abc import Callable

from torch import Tensor

from spinlock.errors import SimulationError
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.parameter_space import ParameterValues

Step = Callable[[Tensor, Tensor], Tensor]


def update_step(values: ParameterValues) -> Step:
    """The update policy as a function of the field u and of G = F(u) + s(t) eta.

    autoregressive: G. residual: u + dt G. convex: alpha u + (1 - alpha) G.
    """
    match values.update_policy:
        case "autoregressive":
            return lambda u, g: g
        case "residual":
            return lambda u, g: u + values.dt * g
        case "convex":
            return lambda u, g: values.alpha * u + (1 - values.alpha) * g
        case unknown:
            raise ValueError(f"update_policy: no policy is called {unknown!r}")


def rollout(
    operator: Callable[[Tensor], Tensor],
    initial: Tensor,
    forcing: Callable[[int], Tensor],
    step: Step,
    out: Tensor,
    clock: StageClock | None = None,
) -> None:
    """Simulate T steps of M noise realizations from one initial condition.

    Args:
        operator: F, a map (n, C, H, W) -> (n, C, H, W).
        initial: u_0, (C, H, W).
        forcing: Timestep t in 1..T -> s(t) * eta of every realization, (M, C, H, W).
        step: The update policy.
        out: (M, T, C, H, W), receives the fields u_1 .. u_T.
        clock: Counts the time of ``convolutions`` (the operator) and ``forcing``.

    Raises:
        SimulationError: If the operator changes the shape of its fields.
    """
    clock = clock or StageClock()
    u = initial[None]
    # The realizations share u_0: F(u_0) is evaluated once and broadcast over them.
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
