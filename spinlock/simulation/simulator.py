"""Evaluates the function (configuration, index) -> sample for ranges of indices.

Rounding depends on the shapes of tensors and on the number of threads, so both are fixed: work is
divided into units whose shapes depend on the index alone. On a CPU, a unit consists of the samples
of one operator in a block; one thread computes it, and several units run in parallel. On an
accelerator, a unit is a block, whose samples are computed together.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.features import CustomFeatures, SDFFeatures, extract, extract_per_timestep
from spinlock.features.response import ResponseFeatures, extract_responses
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.device_choice import choose_device
from spinlock.runtime.device_memory import computed_in_memory
from spinlock.runtime.ordered_map import reproducible_map
from spinlock.runtime.stage_clock import StageClock, device_clock
from spinlock.simulation.block_fields import BlockFields
from spinlock.simulation.kernel_check import computes_together
from spinlock.simulation.samples import Samples, UnitResult, require_finite, to_host
from spinlock.simulation.sobol_design import Design, make_design
from spinlock.simulation.unit_fields import FieldSource, OperatorByOperator, runs
from spinlock.simulation.variants import InitialConditions

_LESS_MEMORY = (
    "Use another device, or a smaller generation.block_size, which changes the bytes and the "
    "fingerprint, because the shapes of tensors decide rounding; or fewer num_realizations or "
    "num_timesteps, which make another dataset"
)


class Simulator:
    """Computes samples of one dataset on one device.

    Args:
        config: Configuration of the dataset.
        device: Device to compute on; see `spinlock.runtime.device_choice` for the default.
        clock: Counts the time of the stages: of a CPU's threads, or of a CUDA device.
        together: Whether the operators of a block are applied together; default: on a CUDA device
            whose kernels agree with the plain computation, for the operator families of this
            package.

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
        *,
        together: bool | None = None,
    ) -> None:
        self.config = config
        self.device = choose_device(device)
        self.clock = clock or StageClock()
        self._stages = device_clock(self.clock, self.device)
        self.initial_conditions = InitialConditions(config)
        self.initial_conditions.check_grid(config.grid_size)
        self._arguments = config, self.device, self.initial_conditions, self._stages
        self._one_by_one = OperatorByOperator(*self._arguments)
        self.family = self._one_by_one.family
        self._asked = together
        self.custom = CustomFeatures(config.features, config.trusted_modules)

    @cached_property
    def together(self) -> bool:
        """Whether the operators of a block are applied together; the first use may test kernels."""
        # Not in the constructor, because a process that only checks a configuration need not be
        # able to use its device.
        if self._asked is not None:
            return self._asked
        return computes_together(self.config, self.device)

    @cached_property
    def _stored(self) -> Tensor:
        """Positions of the stored timesteps, on the device."""
        steps = [step - 1 for step in self.config.stored_steps]
        return torch.tensor(steps, dtype=torch.int64, device=self.device)

    @cached_property
    def _source(self) -> FieldSource:
        return BlockFields(*self._arguments) if self.together else self._one_by_one

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
        if self.together or self.device.type != "cpu":
            return [block]
        probes = self.config.probes_per_operator
        return list(runs(block, lambda sample: sample // probes))

    def _on_threads(self, units: Iterator[tuple[Design, range]]) -> Iterator[Samples]:
        """Compute units in parallel, each in one thread."""
        # Operators differ tenfold in cost, so a queue keeps every thread busy.
        return reproducible_map(lambda unit: self._finished(self._simulate(*unit)), units, ahead=2)

    def _on_device(self, units: Iterator[tuple[Design, range]]) -> Iterator[Samples]:
        """Compute units on an accelerator, while results of the previous unit are copied."""
        pending: deque[tuple[UnitResult, torch.cuda.Event]] = deque()
        for unit, wanted in units:
            result = self._simulate(unit, wanted)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self.device))
            pending.append((result, copied))
            if len(pending) > 1:
                yield self._arrived(*pending.popleft())
        yield from (self._arrived(*last) for last in pending)

    def _arrived(self, result: UnitResult, copied: torch.cuda.Event) -> Samples:
        """Wait until the copies from the device are complete."""
        copied.synchronize()
        self._stages.settle()
        return self._finished(result)

    def _finished(self, result: UnitResult) -> Samples:
        """Return the samples of a unit, all of which are finite."""
        with _located(result.wanted):
            if result.in_range is not None and not result.in_range:
                # Kernels have a smaller range of numbers than float32. Whether a unit exceeds it
                # does not depend on which samples are wanted.
                result = self._simulate(result.unit, result.wanted, self._one_by_one)
                if self.device.type == "cuda":
                    torch.cuda.current_stream(self.device).synchronize()
            return result.samples(self.config)

    def _simulate(
        self, unit: Design, wanted: range, source: FieldSource | None = None
    ) -> UnitResult:
        """Compute a whole unit, so that shapes do not vary, and return the wanted samples."""

        def compute() -> UnitResult:
            with fixed_arithmetic(self.device), torch.inference_mode():
                return self._simulate_unit(unit, wanted, source or self._source)

        work = f"samples {unit.start}..{unit.stop - 1}, which are computed together"
        with _located(wanted):
            return computed_in_memory(compute, self.device, work, _LESS_MEMORY)

    def _simulate_unit(self, unit: Design, wanted: range, source: FieldSource) -> UnitResult:
        config, clock = self.config, self._stages
        rows = range(wanted.start - unit.start, wanted.stop - unit.start)
        computed = source.fields(unit, rows)
        initial, trajectory = computed.initial, computed.trajectory
        part = slice(rows.start, rows.stop)
        finite = trajectory[part].flatten(1).isfinite().all(dim=1)
        if self.device.type == "cpu" and source is self._one_by_one:
            # Elsewhere the host would wait, so the samples are checked when they arrive.
            require_finite(finite, wanted.start)
        with clock.stage("features"):
            features = extract(trajectory)
            initial_features = extract_per_timestep(initial[:, None, None])[:, 0]
            custom = self.custom.extract(initial, trajectory)
        responses = None
        if config.responses:
            with clock.stage("responses"):
                responses = extract_responses(initial, trajectory)
        arrays = {array: to_host(values[part]) for array, values in custom.items()}
        samples = Samples(
            index=np.arange(wanted.start, wanted.stop, dtype=np.int64),
            initial=to_host(initial[part]),
            fields=to_host(trajectory[part].index_select(2, self._stored)),
            features=SDFFeatures(*(to_host(values[part]) for values in features)),
            initial_features=to_host(initial_features[part]),
            custom=arrays,
            responses=None
            if responses is None
            else ResponseFeatures(*(to_host(values[part]) for values in responses)),
            dynamics=to_host(computed.measured) if config.dynamics else None,
        )
        in_range = None if computed.in_range is None else to_host(computed.in_range)
        return UnitResult(unit, wanted, samples, to_host(finite), in_range)


@contextmanager
def _located(wanted: range) -> Iterator[None]:
    """Add the range of samples to errors of a block of code."""
    try:
        yield
    except Exception as error:
        note = f"while computing samples {wanted.start}..{wanted.stop - 1}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise
