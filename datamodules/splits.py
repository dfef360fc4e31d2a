"""Splitting operators into train, validation and test: a pure function of the operator."""

import math

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def split_operators(
    variant: NDArray[np.int64], fractions: tuple[float, float, float], seed: int
) -> NDArray[np.int64]:
    """Assign each operator to a split.

    Within each variant the operators are counted off, and the count times the golden ratio, shifted
    by an offset that the seed draws and taken modulo 1, falls into one of three intervals. Such a
    sequence is equidistributed, so every variant is split in the given fractions (to about one
    operator); and an operator's place depends only on the operators before it, so it stays where
    it is when the dataset grows.

    Args:
        variant: (num_operators,) initial-condition variant of each operator's first probe.
        fractions: Of train, validation and test; they sum to 1.
        seed: Another seed gives another split.

    Returns:
        (num_operators,) int64 positions in `SPLITS`.
    """
    split = np.empty(len(variant), dtype=np.int64)
    cuts = np.cumsum(fractions)[:-1]
    for which in np.unique(variant):
        members = np.flatnonzero(variant == which)
        offset = np.random.default_rng([seed, int(which)]).random()
        place = (offset + _GOLDEN_RATIO * np.arange(len(members))) % 1.0
        split[members] = np.searchsorted(cuts, place, side="right")
    return split
