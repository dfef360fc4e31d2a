"""Computes the fields of a block of samples, all operators together.

An accelerator is fast only if each operation computes for many samples, and if it never waits for
the host. What depends on the design alone is a table that is made on the host; all tables of a
block are copied at once, while the device still computes the block before. A block is always
computed as a whole, so that the shapes of tensors, and with them the rounding, do not depend on
which samples are asked for.
"""

from collections.abc import Iterator

import numpy as np
import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import typed_row
from spinlock.runtime.one_copy import copy_to_device
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.block_initial_conditions import BlockInitialConditions
from spinlock.simulation.group_layout import Member, member_bytes
from spinlock.simulation.group_rollout import GroupRollout, part
from spinlock.simulation.sobol_design import Design
from spinlock.simulation.unit_fields import UnitFields, dynamics_meter, runs
from spinlock.simulation.variants import InitialConditions

# Memory that the weights and activations of a group may take; groups of a block are computed one
# after another. Those of a block of 64 baseline samples take 2.8e9.
_GROUP_BYTES = 3e9


class BlockFields:
    """Applies the operators of a block together.

    Args:
        config: Configuration of the dataset, with an operator family of this package.
        device: Device to compute on.
        initial_conditions: Distributions of the initial conditions.
        clock: Counts the time of the stages.
    """

    def __init__(
        self,
        config: GenerationConfig,
        device: torch.device,
        initial_conditions: InitialConditions,
        clock: StageClock,
    ) -> None:
        self._config, self._device, self._clock = config, device, clock
        self._initial_conditions = BlockInitialConditions(
            initial_conditions.variants,
            seed=config.seed,
            channels=config.channels,
            grid_size=config.grid_size,
        )
        self._meter = dynamics_meter(config, device)

    def fields(self, unit: Design, rows: range) -> UnitFields:
        """Compute the fields of a unit; see `spinlock.simulation.unit_fields.FieldSource`."""
        config = self._config
        members = [
            Member(int(unit.operator_index[own.start]), typed_row(unit.values[own.start]), own)
            for own in runs(range(len(unit.values)), lambda row: int(unit.operator_index[row]))
        ]
        groups = [
            GroupRollout(config, group, unit.start, self._meter) for group in self._groups(members)
        ]
        index = np.arange(unit.start, unit.stop, dtype=np.int64)
        sources = {"initial": self._initial_conditions.tables(index, unit.variant)}
        sources |= {str(number): group.tables for number, group in enumerate(groups)}
        arrays = {
            f"{source}.{name}": table
            for source, given in sources.items()
            for name, table in given.items()
        }
        tables = copy_to_device(arrays, self._device)
        with self._clock.stage("initial conditions"):
            initial = self._initial_conditions.fields(unit.variant, part(tables, "initial"))
        size = (len(initial), config.num_realizations, config.num_timesteps, *initial.shape[1:])
        trajectory = torch.empty(size, dtype=torch.float32, device=self._device)
        measured = [
            group.run(part(tables, str(number)), initial, trajectory, self._clock)
            for number, group in enumerate(groups)
        ]
        # Operators are measured once, with their first sample, which only the first operator of a
        # block can be without.
        first = [member.rows.start for member in members]
        if (unit.start + first[0]) % config.probes_per_operator:
            first[0] = -1
        asked = [number for number, row in enumerate(first) if row in rows]
        own = slice(asked[0], asked[-1] + 1) if asked else slice(0)
        dynamics = torch.cat(measured)
        in_range = trajectory.isfinite().all() & dynamics[first[0] < 0 :].isfinite().all()
        return UnitFields(initial, trajectory, dynamics[own], in_range)

    def _groups(self, members: list[Member]) -> Iterator[list[Member]]:
        """Divide the operators of a block into groups that memory holds."""
        config, total = self._config, 0.0
        group: list[Member] = []
        rows = 1 if config.num_timesteps == 1 else config.num_realizations
        for member in members:
            size = member_bytes(member, config.channels, rows)
            alike = not group or group[-1].calibration == member.calibration
            if group and (total + size > _GROUP_BYTES or not alike):
                yield group
                group, total = [], 0.0
            group.append(member)
            total += size
        yield group
