"""Rolls out the operators of a group, from tables that are made on the host."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import ParameterValues
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.block_forcing import BlockForcing, BlockUpdate
from spinlock.simulation.dynamics import DynamicsMeter
from spinlock.simulation.group_layout import Member
from spinlock.simulation.operator_group import Fields, OperatorGroup, OperatorGroupPlan
from spinlock.simulation.rollout import update_weights
from spinlock.simulation.transport_flow import TransportFlows
from spinlock.simulation.unit_fields import stacked


class GroupRollout:
    """What the host prepares to roll out a group of operators, and the rollout itself.

    Args:
        config: Configuration of the dataset.
        members: Operators with their rows in the block, which lie one behind the other.
        start: Index of the first sample of the block.
        meter: Meter of the dynamics; None if the configuration leaves them out.

    Attributes:
        tables: Arrays to copy to the device, by name.
    """

    def __init__(
        self,
        config: GenerationConfig,
        members: list[Member],
        start: int,
        meter: DynamicsMeter | None,
    ) -> None:
        self._config, self._meter = config, meter
        self._rows = slice(members[0].rows.start, members[-1].rows.stop)
        each = [member.values for member in members]
        values = [member.values for member in members for _ in member.rows]
        counts = [len(member.rows) for member in members]
        realizations, steps = config.num_realizations, config.num_timesteps
        others: dict[str, Fields] = {}
        if steps > 1:
            others["later"] = config.grid_size, [n * realizations for n in counts]
        if meter is not None:
            for number in meter.batches:
                others[f"dynamics.{number}"] = meter.side, [number] * len(members)
        self._plan = OperatorGroupPlan(
            [(member.number, member.values) for member in members],
            (config.grid_size, counts),
            others,
            seed=config.seed,
            channels=config.channels,
            precision=config.precision,
        )
        self._forcing = BlockForcing(
            values,
            range(start + self._rows.start, start + self._rows.stop),
            seed=config.seed,
            channels=config.channels,
            num_realizations=realizations,
            num_timesteps=steps,
        )
        self._update = BlockUpdate(values)
        self._flows = _flows(config, values, config.grid_size)
        self._measured_flows = None if meter is None else _flows(config, each, meter.side)
        self.tables: dict[str, NDArray[np.generic]] = {}
        self._add("operators", self._plan.arrays())
        self._add("forcing", self._forcing.tables)
        self._add("update", self._update.tables)
        for name, flows in (("flow", self._flows), ("measured_flow", self._measured_flows)):
            if flows is not None:
                self._add(name, flows.tables)
        if meter is not None:
            self._add("dynamics", _dynamics_arguments(each))

    def run(
        self, tables: Mapping[str, Tensor], initial: Tensor, trajectory: Tensor, clock: StageClock
    ) -> Tensor:
        """Compute the trajectories of the group.

        Args:
            tables: The attribute `tables` as tensors on the device.
            initial: Initial conditions of the block, (n, C, H, W) float32.
            trajectory: Tensor of the block that receives the fields, (n, M, T, C, H, W) float32.
            clock: Counts the time of the stages.

        Returns:
            Dynamics of the operators, (o, D) float32; o = 0 if they are left out.
        """
        operators = OperatorGroup(self._plan, part(tables, "operators"), clock)
        forcing = self._forcing.with_tables(part(tables, "forcing"))
        update = self._update.with_tables(part(tables, "update"))
        flow = None if self._flows is None else self._flows.with_tables(part(tables, "flow"))
        u, out = initial[self._rows, None], trajectory[self._rows]
        for step in range(1, self._config.num_timesteps + 1):
            if step == 1:
                output = operators.first(initial[self._rows])
            else:
                with clock.stage("convolutions"):
                    output = operators.apply(u.flatten(0, 1), "later")
            with clock.stage("forcing"):
                u = update(u, output.view_as(u) + forcing(step))
                u = u if flow is None else flow(u)
                out[:, :, step - 1] = u
        if self._meter is None:
            return stacked([], initial.device)
        with clock.stage("dynamics"):
            return self._measure(self._meter, operators, tables)

    def _measure(
        self, meter: DynamicsMeter, operators: OperatorGroup, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Measure the dynamics of the operators."""
        flow: Callable[[Tensor], Tensor] | None = None
        if self._measured_flows is not None:
            flow = self._measured_flows.with_tables(part(tables, "measured_flow"))

        def apply(fields: Tensor) -> Tensor:
            name = f"dynamics.{fields.shape[1]}"
            return operators.apply(fields.flatten(0, 1), name).view_as(fields)

        return meter.measure_together(apply, **part(tables, "dynamics"), flow=flow)

    def _add(self, name: str, tables: Mapping[str, NDArray[np.generic]]) -> None:
        self.tables |= {f"{name}.{key}": table for key, table in tables.items()}


def part(tables: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tables whose names begin with a name and a dot, without these.

    Example:
        >>> import torch
        >>> part({"a.b": torch.zeros(1), "c.b": torch.zeros(1)}, "a")
        {'b': tensor([0.])}
    """
    start = f"{name}."
    return {key.removeprefix(start): own for key, own in tables.items() if key.startswith(start)}


def _flows(
    config: GenerationConfig, values: list[ParameterValues], side: int
) -> TransportFlows | None:
    """Return the transport of operators, or None if the operator family has none."""
    if config.operator != "transport":
        return None
    names = "diffusion", "velocity_x", "velocity_y", "growth"
    axes = ([value.operator_axes[name] for value in values] for name in names)
    return TransportFlows(*axes, grid_size=side)


def _dynamics_arguments(values: list[ParameterValues]) -> dict[str, NDArray[np.generic]]:
    """Return the arguments of `DynamicsMeter.measure_together` that the values determine."""
    weights = np.array([update_weights(value) for value in values], dtype=np.float32)
    noise = [(value.noise_scale, value.spatial_correlation) for value in values]
    scale, length = np.array(noise, dtype=np.float32).T
    return {
        "keep": weights[:, 0].copy(),
        "gain": weights[:, 1].copy(),
        "noise_scale": scale.copy(),
        "noise_length": length.copy(),
    }
