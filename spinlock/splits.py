"""Assigns operators to train, validation and test splits by a hash of their index."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.validation import shown
from spinlock.errors import ConfigurationError
from spinlock.simulation.sobol_design import sobol_points

SPLITS = ("train", "val", "test")

# Makes the scrambling differ from that of the design, which may have the same seed.
_SALT = 0x5917
_POINTS_AT_A_TIME = 1 << 16


def split_fractions(val_fraction: float, test_fraction: float) -> tuple[float, float, float]:
    """Return the fractions of train, validation and test, which sum to 1.

    Args:
        val_fraction: Fraction of the operators for validation.
        test_fraction: Fraction of the operators for testing.

    Raises:
        ConfigurationError: If a fraction is no number.

    Example:
        >>> split_fractions(0.25, 0.25)
        (0.5, 0.25, 0.25)
    """
    given: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ConfigurationError(f"{name}: must be a number, got {shown(value)}")
    val, test = float(val_fraction), float(test_fraction)
    return 1 - val - test, val, test


def split_operators(
    num_operators: int, fractions: tuple[float, float, float], seed: int, *, num_axes: int
) -> NDArray[np.int64]:
    """Assign operators ``0 .. num_operators`` to splits.

    The index is hashed to [0, 1), and the unit interval is cut in the given fractions. The hash is
    a coordinate of a Sobol sequence with Owen scrambling by the seed: the first one beyond those of
    the design, which are the axes of the operators and the variant of initial conditions. For one
    operator it is uniformly random. Over many operators it is evenly spread, also over the
    coordinates of the design. (Equal coordinates of two scramblings would not be independent.) With
    10,000 operators, each split has every variant's nominal share to within 15 operators; with
    independent hashes the error reaches 50.

    Args:
        num_operators: Number of operators. The split of an operator does not depend on it.
        fractions: Fractions of train, validation and test, which sum to 1.
        seed: Seed of the split.
        num_axes: Number of axes of the operators: that of `ParameterSpace.names`.

    Returns:
        (num_operators,) int64 positions in `SPLITS`.

    Example:
        >>> split = split_operators(1000, (0.8, 0.1, 0.1), seed=0, num_axes=15)
        >>> [int((split == part).sum()) for part in range(3)]
        [800, 101, 99]
    """
    cuts = np.cumsum(fractions)[:-1]
    parts = [np.empty(0, dtype=np.int64)]
    for start in range(0, num_operators, _POINTS_AT_A_TIME):
        stop = min(start + _POINTS_AT_A_TIME, num_operators)
        points = sobol_points(num_axes + 2, [_SALT, seed], start, stop)
        parts.append(np.searchsorted(cuts, points[:, -1], side="right"))
    return np.concatenate(parts).astype(np.int64)
