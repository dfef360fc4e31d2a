"""Simulation: the function (configuration, index) -> sample, evaluated at some indices.

Rounding depends on the shapes of tensors and on the number of threads, so both are fixed. Work is
cut into units whose shapes depend on the index alone. On a CPU a unit is the samples of one
operator in a block; one thread computes it, and several units run side by side. On an accelerator a
unit is a block, its initial conditions and features batched.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError, SimulationError
from spinlock.features import CustomFeatures, SDFFeatures, extract, extract_per_timestep
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.stage_clock import StageClock
from spinlock.runtime.threads import abandon, settle_vector_math, shared_pool, use_one_thread
from spinlock.simulation.forcing import Forcing
from spinlock.simulation.initial_conditions import InitialConditions
from spinlock.simulation.operator_family import operator_family
from spinlock.simulation.parameter_space import typed_row
from spinlock.simulation.rollout import rollout, update_step
from spinlock.simulation.sobol_design import Design, make_design


@dataclass(frozen=True)
class Samples:
    """Some consecutive samples, on the host.

    Args:
        index: (n,) int64 sample indices.
        initial: (n, C, H, W) float32 initial conditions.
        fields: (n, M, T', C, H, W) float32 fields at the stored timesteps.
        features: Features of the whole trajectories.
        initial_features: (n, 46) per-timestep features of the initial conditions.
        custom: The user's own features, by array as in `spinlock.features.custom_columns`.
    """

    index: NDArray[np.int64]
    initial: Tensor
    fields: Tensor
    features: SDFFeatures
    initial_features: Tensor
    custom: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.index)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The given device, or else the first CUDA device, or else the CPU.

    Raises:
        ConfigurationError: If the device is not there, or is neither a CPU nor a CUDA device.
    """
    available = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(available if device is None else device)
    except RuntimeError as error:
        raise ConfigurationError(f"device: {device!r} is no device of torch") from error
    if chosen.type not in ("cpu", available):
        raise ConfigurationError(
            f"device: got {device}; this machine computes on cpu"
            + (", cuda" if available == "cuda" else "")
        )
    return chosen


class Simulator:
    """Evaluates samples of one dataset on one device.

    Args:
        config: The dataset.
        device: Where to compute; see `choose_device`.
        clock: Counts the time of the stages.

    Raises:
        ConfigurationError: If an initial condition does not fit the grid, or something of the
            user's own cannot be imported.
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
        trusted = config.trusted_modules
        self.initial_conditions = InitialConditions(config.initial_conditions, trusted)
        self.initial_conditions.check_grid(config.grid_size)
        self.operators = operator_family(config.operator, trusted)
        self.custom = CustomFeatures(config.features, trusted)
        self._stored = torch.tensor(
            [step - 1 for step in config.stored_steps], dtype=torch.int64, device="cpu"
        )

    def samples(self, start: int, stop: int) -> Iterator[Samples]:
        """Samples ``start .. stop`` in order, a unit of work at a time.

        Args:
            start: First sample.
            stop: One past the last sample.

        Yields:
            Consecutive samples; together exactly the range asked for.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"samples: need 0 <= start <= stop, got {start}..{stop}")
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
        """Samples of a block that are computed together."""
        if self.device.type != "cpu":
            return [block]
        probes = self.config.probes_per_operator
        return list(_runs(block, lambda sample: sample // probes))

    def _on_threads(self, units: Iterator[tuple[Design, range]]) -> Iterator[Samples]:
        """Compute units side by side, one thread each."""
        settle_vector_math()
        threads = torch.get_num_threads()
        pool = shared_pool("simulate", threads, use_one_thread)
        pending: deque[Future[Samples]] = deque()
        try:
            for unit, wanted in units:
                pending.append(pool.submit(self._simulate, unit, wanted))
                # Operators differ tenfold in cost: looking ahead keeps every thread busy.
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            abandon(pending)
            # The last call anywhere is the default of threads to come.
            torch.set_num_threads(threads)

    def _on_device(self, units: Iterator[tuple[Design, range]]) -> Iterator[Samples]:
        """Compute units on an accelerator, which works on one while the last is copied and used."""
        pending: deque[tuple[Samples, torch.cuda.Event]] = deque()
        for unit, wanted in units:
            samples = self._simulate(unit, wanted)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self.device))
            pending.append((samples, copied))
            if len(pending) > 1:
                yield _arrived(*pending.popleft())
        while pending:
            yield _arrived(*pending.popleft())

    def _simulate(self, unit: Design, wanted: range) -> Samples:
        """The wanted samples of a unit; everything batched has the shape of the whole unit."""
        try:
            with fixed_arithmetic(self.config.precision, self.device), torch.inference_mode():
                return self._simulate_unit(unit, wanted)
        except Exception as error:
            error.add_note(f"while computing samples {wanted.start}..{wanted.stop - 1}")
            raise

    def _simulate_unit(self, unit: Design, wanted: range) -> Samples:
        config, clock = self.config, self.clock
        with clock.stage("initial conditions"):
            initial = self.initial_conditions.fields(
                config.seed,
                torch.arange(unit.start, unit.stop, device=self.device),
                unit.variant,
                config.channels,
                config.grid_size,
            )
        shape = (config.num_realizations, config.num_timesteps, *initial.shape[1:])
        # The type is spelled out: the caller may have set another default.
        size = (len(initial), *shape)
        trajectory = torch.zeros(size, dtype=torch.float32, device=self.device)
        rows = range(wanted.start - unit.start, wanted.stop - unit.start)
        for same in _runs(rows, lambda row: int(unit.operator_index[row])):
            self._roll_out(unit, same, initial, trajectory)
        if not trajectory.isfinite().all():
            bad = (~trajectory.flatten(1).isfinite().all(dim=1)).nonzero()[:, 0] + unit.start
            raise SimulationError(f"NaN or infinite values in the fields of samples {bad.tolist()}")
        with clock.stage("features"):
            features = extract(trajectory)
            initial_features = extract_per_timestep(initial[:, None, None])[:, 0]
            custom = self.custom.extract(initial, trajectory)
        part = slice(rows.start, rows.stop)
        return Samples(
            index=np.arange(wanted.start, wanted.stop, dtype=np.int64),
            initial=_to_host(initial[part]),
            fields=_to_host(trajectory[part].index_select(2, self._stored.to(self.device))),
            features=SDFFeatures(
                per_timestep=_to_host(features.per_timestep[part]),
                per_trajectory=_to_host(features.per_trajectory[part]),
                aggregated=_to_host(features.aggregated[part]),
            ),
            initial_features=_to_host(initial_features[part]),
            custom={array: _to_host(values[part]) for array, values in custom.items()},
        )

    def _roll_out(self, unit: Design, rows: range, initial: Tensor, trajectory: Tensor) -> None:
        """Fill in the trajectories of rows of a unit that share one operator."""
        config = self.config
        values = typed_row(unit.values[rows.start])
        operator = self.operators.operator(
            values,
            seed=config.seed,
            index=int(unit.operator_index[rows.start]),
            channels=config.channels,
            precision=config.precision,
            device=self.device,
            clock=self.clock,
        )
        for row in rows:
            forcing = Forcing(
                values,
                seed=config.seed,
                index=unit.start + row,
                channels=config.channels,
                num_realizations=config.num_realizations,
                num_timesteps=config.num_timesteps,
                device=self.device,
            )
            step = update_step(values)
            rollout(operator, initial[row], forcing, step, trajectory[row], self.clock)


def _runs(rows: range, key: Callable[[int], int]) -> Iterator[range]:
    """Cut a range where the key changes."""
    for _, group in groupby(rows, key=key):
        members = list(group)
        yield range(members[0], members[-1] + 1)


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in the host's memory; from a CUDA device in the background, into pinned memory."""
    if tensor.device.type == "cpu":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def _arrived(samples: Samples, copied: torch.cuda.Event) -> Samples:
    """Samples whose copies from the device are complete."""
    copied.synchronize()
    return samples
