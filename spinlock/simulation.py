"""Simulation: the function (configuration, index) -> sample, evaluated at some indices.

Rounding depends on the shapes of tensors and on the number of threads, so both are fixed. Work is
cut into units whose shapes depend on the index alone. On a CPU a unit is the samples of one
operator in a block; one thread computes it, and several units run side by side. On an accelerator a
unit is a block, its initial conditions and features batched.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.config import GenerationConfig
from spinlock.design import Design, make_design
from spinlock.features import SDFFeatures, extract, extract_per_timestep
from spinlock.initial_conditions import Mixture
from spinlock.noise import Forcing
from spinlock.operators import ConvOperator
from spinlock.parameters import typed_row
from spinlock.rollout import rollout, update_step


@dataclass(frozen=True)
class Samples:
    """Some consecutive samples, on the device that computed them.

    Args:
        index: (n,) int64 sample indices.
        initial: (n, C, H, W) float32 initial conditions.
        fields: (n, M, T', C, H, W) float32 fields at the stored timesteps.
        features: Features of the whole trajectories.
        initial_features: (n, 46) per-timestep features of the initial conditions.
    """

    index: NDArray[np.int64]
    initial: Tensor
    fields: Tensor
    features: SDFFeatures
    initial_features: Tensor

    def __len__(self) -> int:
        return len(self.index)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The given device, or else the first CUDA device, or else the CPU."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


@contextmanager
def _arithmetic(precision: str) -> Iterator[None]:
    """Allow or forbid TF32 in CUDA convolutions and products, and restore what was set before."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    allow = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class Simulator:
    """Evaluates samples of one dataset on one device.

    Args:
        config: The dataset.
        device: Where to compute; see `choose_device`.

    Raises:
        ConfigurationError: If an initial condition does not fit the grid.
    """

    def __init__(self, config: GenerationConfig, device: str | torch.device | None = None) -> None:
        self.config = config
        self.device = choose_device(device)
        self.mixture = Mixture(config.initial_conditions)
        self.mixture.check_grid(config.grid_size)
        self._stored = torch.tensor([step - 1 for step in config.stored_steps], dtype=torch.int64)

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
        if self.device.type == "cpu":
            yield from self._samples_threaded(units)
        else:
            for unit, wanted in units:
                yield self._simulate(unit, wanted)

    def _units(self, block: range) -> list[range]:
        """Samples of a block that are computed together."""
        if self.device.type != "cpu":
            return [block]
        probes = self.config.probes_per_operator
        return list(_runs(block, lambda sample: sample // probes))

    def _samples_threaded(self, units: Iterator[tuple[Design, range]]) -> Iterator[Samples]:
        threads = torch.get_num_threads()
        # One operation never uses two threads, so that bytes do not depend on the number of cores.
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
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
                pool.shutdown(cancel_futures=True)

    def _simulate(self, unit: Design, wanted: range) -> Samples:
        """The wanted samples of a unit; everything batched has the shape of the whole unit."""
        config = self.config
        # The switches are global to the process; on a CPU they mean nothing and threads would race.
        cuda = self.device.type == "cuda"
        arithmetic = _arithmetic(config.precision) if cuda else nullcontext()
        with torch.inference_mode(), arithmetic:
            initial = self.mixture.fields(
                config.seed,
                torch.arange(unit.start, unit.stop, device=self.device),
                unit.variant,
                config.channels,
                config.grid_size,
            )
            shape = (config.num_realizations, config.num_timesteps, *initial.shape[1:])
            trajectory = torch.zeros(len(initial), *shape, device=self.device)
            rows = range(wanted.start - unit.start, wanted.stop - unit.start)
            for same in _runs(rows, lambda row: int(unit.operator_index[row])):
                self._roll_out(unit, same, initial, trajectory)
            features = extract(trajectory)
            initial_features = extract_per_timestep(initial[:, None, None])[:, 0]
            part = slice(rows.start, rows.stop)
            return Samples(
                index=np.arange(wanted.start, wanted.stop, dtype=np.int64),
                initial=initial[part],
                fields=trajectory[part].index_select(2, self._stored.to(self.device)),
                features=SDFFeatures(
                    per_timestep=features.per_timestep[part],
                    per_trajectory=features.per_trajectory[part],
                    aggregated=features.aggregated[part],
                ),
                initial_features=initial_features[part],
            )

    def _roll_out(self, unit: Design, rows: range, initial: Tensor, trajectory: Tensor) -> None:
        """Fill in the trajectories of rows of a unit that share one operator."""
        config = self.config
        values = typed_row(unit.values[rows.start])
        operator = ConvOperator(
            values,
            seed=config.seed,
            index=int(unit.operator_index[rows.start]),
            channels=config.channels,
            device=self.device,
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
            rollout(operator, initial[row], forcing, update_step(values), trajectory[row])


def _runs(rows: range, key: Callable[[int], int]) -> Iterator[range]:
    """Cut a range where the key changes."""
    for _, group in groupby(rows, key=key):
        members = list(group)
        yield range(members[0], members[-1] + 1)
