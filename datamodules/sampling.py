"""The order of training samples: a pure function of the seed and the epoch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from spinlock.errors import ConfigurationError

#: Epochs are counted from 0 to here; with its epoch, a position still fits 64 bits.
MAX_EPOCH = 2**31


class EpochSampler(Sampler[int]):
    """Every position once an epoch, in random order; or every class equally often.

    `TrainingLoader` tells the epoch; without it each pass over the sampler is the next one. In
    distributed runs Lightning deals this order out to the ranks.

    With classes, an epoch has as many draws as there are positions, and each class that occurs gets
    an equal share of them, to one: the positions of a class are drawn in turn, in random order, so
    that none is drawn again before all of its class have been.

    Args:
        count: Number n of positions.
        seed: Another seed gives another order.
        classes: (n,) int64 class of each position; None: no balancing.
        epoch: The epoch of the first pass.
        stamp_epoch: Give ``epoch * n + position``, for a dataset that looks different each epoch.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        classes: NDArray[np.int64] | None = None,
        epoch: int = 0,
        stamp_epoch: bool = False,
    ) -> None:
        super().__init__()
        self.count, self.seed, self.classes = count, seed, classes
        self.epoch, self.stamp_epoch = epoch, stamp_epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of this epoch.

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
        offset = self.epoch * self.count if self.stamp_epoch else 0
        self.epoch += 1
        return iter((order + offset).tolist())


def _balanced(
    order: NDArray[np.int64], classes: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """As many positions as there are, from each class alike; the first of ``order`` come first."""
    present = np.unique(classes)
    shares = np.full(len(present), len(order) // len(present))
    # Drawn anew each epoch, so that no class is favoured over the epochs.
    shares[random.permutation(len(present))[: len(order) % len(present)]] += 1
    return np.concatenate(
        [
            np.resize(order[classes[order] == which], share)
            for which, share in zip(present, shares, strict=True)
        ]
    )
