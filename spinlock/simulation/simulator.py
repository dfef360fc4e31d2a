"""Evaluates the function (configuration, index) -> sample for ranges of indices.

Rounding depends on the shapes of tensors and on the number of threads, so both are fixed: work is
divided into units whose shapes depend on the index alone. On a CPU, a unit consists of the samples
of one operator in a block; one thread computes it, and several units run in parallel. On an
accelerator, a unit is a block, whose initial conditions and features are batched.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import typed_row
from spinlock.errors import SimulationError
from spinlock.features import CustomFeatures, SDFFeatures, extract, extract_per_timestep
from spinlock.features.response import ResponseFeatures, extract_responses
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.device_choice import choose_device
from spinlock.runtime.device_memory import computed_in_memory
from spinlock.runtime.ordered_map import reproducible_map
from spinlock.runtime.stage_clock import StageClock, device_clock
from spinlock.simulation.dynamics import DynamicsMeter, measuring_side
from spinlock.simulation.dynamics_rows import dynamics_rows
from spinlock.simulation.operator_runs import OperatorRunner
from spinlock.simulation.rollout import update_weights
from spinlock.simulation.sobol_design import Design, make_design
from spinlock.simulation.variants import InitialConditions

_LESS_MEMORY = (
    "Use another device, or a smaller generation.block_size, which changes the bytes and the "
    "fingerprint, because the shapes of tensors decide rounding; or fewer num_realizations or "
    "num_timesteps, which make another dataset"
)


@dataclass(frozen=True)
class Samples:
    """Consecutive samples, in the memory of the host.

    Args:
        index: Sample indices, (n,) int64.
        initial: Initial conditions, (n, C, H, W) float32.
        fields: Fields at the stored timesteps, (n, M, T', C, H, W) float32.
        features: Features of the trajectories at all timesteps.
        initial_features: Per-timestep features of the initial conditions, (n, 46) float32.
        custom: Custom features by array name (see `spinlock.features.custom_columns`).
        responses: Response features; None if the configuration leaves them out.
        dynamics: Dynamics of the operators whose first sample is among these, (o, D) float32; None
            if the configuration leaves them out.
    """

    index: NDArray[np.int64]
    initial: Tensor
    fields: Tensor
    features: SDFFeatures
    initial_features: Tensor
    custom: dict[str, Tensor]
    responses: ResponseFeatures | None
    dynamics: Tensor | None

    def __len__(self) -> int:
        return len(self.index)


class Simulator:
    """Computes samples of one dataset on one device.

    Args:
        config: Configuration of the dataset.
        device: Device to compute on; see `spinlock.runtime.device_choice` for the default.
        clock: Counts the time of the stages: of a CPU's threads, or of a CUDA device.

    Raises:
        ConfigurationError: If an initial condition does not fit the grid, dropout could silence a
            layer, or a user-defined class or function cannot be imported.

    Example:
        >>> from spinlock import GenerationConfig
        >>> space = {"grid_size": [32], "base_channels": {"low": 4, "high": 8}}
        >>> config = GenerationConfig.from_dict({"num_samples": 8, "parameter_space": space})
        >>> (samples,) = Simulator(config, "cpu").samples(3, 4)
        >>> samples.fields.shape  # samples, realizations, timesteps, channels, height, width
        torch.Size([1, 5, 1, 3, 32, 32])
    """

    def __init__(
        self,
        config: GenerationConfig,
        device: str | torch.device | None = None,
        clock: StageClock | None = None,
    ) -> None:
        self.config = config
        self.device = choose_device(device)
        self.clock = clock or StageClock()
        self._stages = device_clock(self.clock, self.device)
        trusted = config.trusted_modules
        self.initial_conditions = InitialConditions(config)
        self.initial_conditions.check_grid(config.grid_size)
        self._runner = OperatorRunner(config, self.device, self._stages)
        self.family = self._runner.family
        self.custom = CustomFeatures(config.features, trusted)
        self._meter: DynamicsMeter | None = None
        if config.dynamics:
            built_in = isinstance(config.operator, str)
            self._side = measuring_side(config.grid_size, built_in=built_in)
            self._meter = DynamicsMeter(config.seed, config.channels, self._side, self.device)
        self._stored = torch.tensor(
            [step - 1 for step in config.stored_steps], dtype=torch.int64, device="cpu"
        )

    def samples(self, start: int, stop: int) -> Iterator[Samples]:
        """Compute samples in order.

        Args:
            start: Index of the first sample.
            stop: Index after the last sample.

        Yields:
            Consecutive samples, one unit of work at a time.

        Raises:
            ValueError: If not 0 <= start <= stop.
            SimulationError: If a field has NaN or infinite values, or the memory of the device does
                not suffice.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"samples: expected 0 <= start <= stop, got {start}..{stop}")
        size = self.config.block_size
        first, last = start // size * size, -(-stop // size) * size
        design = make_design(self.config, first, last)
        units = (
            (design.rows(unit.start, unit.stop), wanted)
            for block in range(first, last, size)
            for unit in self._units(range(block, block + size))
            if (wanted := range(max(unit.start, start), min(unit.stop, stop)))
        )
        run = self._on_threads if self.device.type == "cpu" else self._on_device
        yield from run(units)

    def _units(self, block: range) -> list[range]:
        """Split a block into the ranges of samples that are computed together."""
        if self.device.type != "cpu":
            return [block]
        probes = self.config.probes_per_operator
        return list(_runs(block, lambda sample: sample // probes))

    def _on_threads(self, units: Iterator[tuple[Design, range]]) -> Iterator[Samples]:
        """Compute units in parallel, each in one thread."""
        # Operators differ tenfold in cost, so a queue keeps every thread busy.
        return reproducible_map(lambda unit: self._simulate(*unit), units, ahead=2)

    def _on_device(self, units: Iterator[tuple[Design, range]]) -> Iterator[Samples]:
        """Compute units on an accelerator, while results of the previous unit are copied."""
        pending: deque[tuple[Samples, torch.cuda.Event]] = deque()
        for unit, wanted in units:
            samples = self._simulate(unit, wanted)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self.device))
            pending.append((samples, copied))
            if len(pending) > 1:
                yield self._arrived(*pending.popleft())
        yield from (self._arrived(*last) for last in pending)

    def _arrived(self, samples: Samples, copied: torch.cuda.Event) -> Samples:
        """Wait until the copies from the device are complete."""
        copied.synchronize()
        self._stages.settle()
        return samples

    def _simulate(self, unit: Design, wanted: range) -> Samples:
        """Compute a whole unit, so that shapes do not vary, and return the wanted samples."""

        def compute() -> Samples:
            with fixed_arithmetic(self.device), torch.inference_mode():
                return self._simulate_unit(unit, wanted)

        work = f"samples {unit.start}..{unit.stop - 1}, which are computed together"
        try:
            return computed_in_memory(compute, self.device, work, _LESS_MEMORY)
        except Exception as error:
            error.add_note(f"while computing samples {wanted.start}..{wanted.stop - 1}")
            raise

    def _simulate_unit(self, unit: Design, wanted: range) -> Samples:
        config, clock = self.config, self._stages
        with clock.stage("initial conditions"):
            initial = self.initial_conditions.fields(
                config.seed,
                torch.arange(unit.start, unit.stop, device=self.device),
                unit.variant,
                config.channels,
                config.grid_size,
            )
        steps = config.num_realizations, config.num_timesteps
        rows = range(wanted.start - unit.start, wanted.stop - unit.start)
        # The dtype is explicit because the caller may have changed torch's default.
        size = (len(initial), *steps, *initial.shape[1:])
        trajectory = torch.zeros(size, dtype=torch.float32, device=self.device)
        dynamics: list[Tensor] = []
        for same in _runs(rows, lambda row: int(unit.operator_index[row])):
            dynamics += self._roll_out(unit, same, initial, trajectory)
        if not trajectory.isfinite().all():
            bad = (~trajectory.flatten(1).isfinite().all(dim=1)).nonzero()[:, 0] + unit.start
            raise SimulationError(f"NaN or infinite values in the fields of samples {bad.tolist()}")
        with clock.stage("features"):
            features = extract(trajectory)
            initial_features = extract_per_timestep(initial[:, None, None])[:, 0]
            custom = self.custom.extract(initial, trajectory)
        responses = None
        if config.responses:
            with clock.stage("responses"):
                responses = extract_responses(initial, trajectory)
        part = slice(rows.start, rows.stop)
        return Samples(
            index=np.arange(wanted.start, wanted.stop, dtype=np.int64),
            initial=_to_host(initial[part]),
            fields=_to_host(trajectory[part].index_select(2, self._stored.to(self.device))),
            features=SDFFeatures(*(_to_host(values[part]) for values in features)),
            initial_features=_to_host(initial_features[part]),
            custom={array: _to_host(values[part]) for array, values in custom.items()},
            responses=None
            if responses is None
            else ResponseFeatures(*(_to_host(values[part]) for values in responses)),
            dynamics=self._dynamics(dynamics, unit, rows),
        )

    def _dynamics(self, measured: list[Tensor], unit: Design, rows: range) -> Tensor | None:
        """Return the dynamics of the operators whose first sample is among some rows."""
        if self._meter is None:
            return None
        first = [row for row in rows if (unit.start + row) % self.config.probes_per_operator == 0]
        values, operators = unit.values[first], unit.operator_index[first]
        return _to_host(dynamics_rows(measured, values, operators, self.config, self.device))

    def _roll_out(
        self, unit: Design, rows: range, initial: Tensor, trajectory: Tensor
    ) -> list[Tensor]:
        """Compute the trajectories of those rows of a unit that share one operator.

        Returns:
            The operator's dynamics [D], if its first sample is among the rows; else nothing.
        """
        values = typed_row(unit.values[rows.start])
        operator = self._runner.draw(int(unit.operator_index[rows.start]), values)
        for row in rows:
            self._runner.roll_out(operator, initial[row], unit.start + row, trajectory[row])
        # An operator is measured once, with its first sample.
        if self._meter is None or (unit.start + rows.start) % self.config.probes_per_operator:
            return []
        keep, gain = update_weights(values)
        on_grid = replace(values, grid_size=self._side)
        with self._stages.stage("dynamics"):
            measured = self._meter.measure(
                operator.function,
                keep=keep,
                gain=gain,
                flow=self.family.flow(on_grid, device=self.device),
                noise_scale=values.noise_scale,
                noise_length=values.spatial_correlation,
            )
        return [measured]


def _runs(rows: range, key: Callable[[int], int]) -> Iterator[range]:
    """Split a range where the key changes."""
    for _, group in groupby(rows, key=key):
        members = list(group)
        yield range(members[0], members[-1] + 1)


def _to_host(tensor: Tensor) -> Tensor:
    """Copy to the memory of the host; from a CUDA device asynchronously, into pinned memory."""
    if tensor.device.type == "cpu":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
