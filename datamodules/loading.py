"""How batches are loaded: options of the data loaders, and the order of training samples."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, asdict, dataclass
from multiprocessing import get_all_start_methods, get_start_method
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from spinlock.configuration.validation import check_types, require_at_least
from spinlock.datamodules.datasets import EPOCH_STRIDE
from spinlock.datamodules.sample_batch import collate_samples
from spinlock.errors import ConfigurationError

#: Largest epoch. A position together with its epoch still fits 64 bits.
MAX_EPOCH = 2**31


@dataclass(frozen=True)
class LoaderOptions:
    """Options of `torch.utils.data.DataLoader` that concern worker processes.

    Args:
        num_workers: Number of worker processes of each loader; 0 loads in the main process.
        pin_memory: Whether batches are copied to page-locked memory.
        prefetch_factor: Number of batches that each worker prepares ahead; default: 2.
        persistent_workers: Whether workers stay alive between epochs. Ignored without workers.
        multiprocessing_context: Start method of workers: ``fork``, ``spawn`` or ``forkserver``;
            default: that of the operating system.

    Raises:
        ConfigurationError: If an option is out of range, or needs workers and there are none.

    Example:
        >>> LoaderOptions(num_workers=2).arguments["persistent_workers"]
        True
    """

    num_workers: int = 0
    pin_memory: bool = False
    prefetch_factor: int | None = None
    persistent_workers: bool = True
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None

    def __post_init__(self) -> None:
        check_types(self, "loader.")
        require_at_least({"loader.num_workers": self.num_workers}, 0)
        require_at_least({"loader.prefetch_factor": self.prefetch_factor}, 1)
        for name in ("prefetch_factor", "multiprocessing_context"):
            if getattr(self, name) is not None and not self.num_workers:
                raise ConfigurationError(f"loader.{name}: needs loader.num_workers of at least 1")

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of a `DataLoader` of one of this package's datasets."""
        persistent = self.persistent_workers and self.num_workers > 0
        return asdict(self) | {"persistent_workers": persistent, "collate_fn": collate_samples}

    @property
    def start_method(self) -> str | None:
        """Start method of the workers; None without workers."""
        if not self.num_workers:
            return None
        # The first method is the default. Asking for the default alone would also set it.
        default = get_start_method(allow_none=True) or get_all_start_methods()[0]
        return self.multiprocessing_context or default


@dataclass(eq=False)
class EpochSampler(Sampler[int]):
    """All positions once in each epoch in random order, optionally balanced over classes.

    The order is a pure function of the seed and the epoch. `TrainingLoader` sets the epoch; without
    it, each pass over the sampler is the next epoch. In distributed runs Lightning divides this
    order among the ranks.

    With classes, an epoch still has n draws, and the classes that occur get equal shares of them
    (to within one draw). The positions of a class are drawn in random order, and none is drawn
    again before all of its class have been.

    Args:
        count: Number n of positions.
        seed: Seed of the order.
        classes: (n,) int64 class of each position; default: no balancing.
        epoch: Epoch of the first pass.
        stamp_epoch: Whether to yield ``epoch * EPOCH_STRIDE + position``, for a dataset whose
            samples depend on the epoch.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> sorted(sampler), sampler.epoch
        ([0, 1, 2, 3], 1)
    """

    count: int
    _: KW_ONLY
    seed: int
    classes: NDArray[np.int64] | None = None
    epoch: int = 0
    stamp_epoch: bool = False

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass.

        Raises:
            ConfigurationError: If it is not in 0..`MAX_EPOCH`.
        """
        if not 0 <= epoch <= MAX_EPOCH:
            raise ConfigurationError(f"epoch: must lie in 0..{MAX_EPOCH}, got {epoch}")
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(self.count)
        if self.classes is not None:
            order = random.permutation(_balanced(order, self.classes, random))
        offset = self.epoch * EPOCH_STRIDE if self.stamp_epoch else 0
        self.epoch += 1
        return iter((order + offset).tolist())


def _balanced(
    order: NDArray[np.int64], classes: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw as many positions as ``order`` has, an equal share from each class in this order."""
    present = np.unique(classes)
    shares = np.full(len(present), len(order) // len(present))
    # The remainder is drawn anew each epoch, so that no class is favored over many epochs.
    shares[random.permutation(len(present))[: len(order) % len(present)]] += 1
    return np.concatenate(
        [
            np.resize(order[classes[order] == which], share)
            for which, share in zip(present, shares, strict=True)
        ]
    )
