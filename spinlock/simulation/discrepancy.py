"""Computes the centered L2 discrepancy of points in the unit cube.

`scipy.stats.qmc.discrepancy` computes the same number while it holds the interpreter's lock, so
that every other thread of the process waits for seconds. NumPy releases the lock.
"""

import numpy as np
from numpy.typing import NDArray

# Rows of pairs that are computed at a time: with 10,000 points they fit into a cache of a few MB.
_ROWS = 16


def centered_discrepancy(points: NDArray[np.float64]) -> float:
    """Return the centered L2 discrepancy of points (Hickernell 1998, equation 1.2, squared).

    F. J. Hickernell, "A generalized discrepancy and quadrature error bound", Mathematics of
    Computation 67, 1998. Time grows with the square of the number of points.

    Args:
        points: Points in the unit cube, (N, d).

    Example:
        >>> round(centered_discrepancy(np.array([[0.25], [0.75]])), 6)
        0.020833
    """
    number, dim = points.shape
    centered = np.ascontiguousarray(points.T) - 0.5
    half, size = centered / 2, np.abs(centered)
    one, other = 1 + size / 2, size / 2
    product, distance, term = (np.empty((_ROWS, number)) for _ in range(3))
    pairs = 0.0
    for start in range(0, number, _ROWS):
        stop = min(start + _ROWS, number)
        # Pairs are symmetric: those with earlier points were counted twice already.
        prod, dist, each = (a[: stop - start, start:] for a in (product, distance, term))
        prod.fill(1.0)
        for axis in range(dim):
            np.subtract(half[axis, start:stop, None], half[axis, None, start:], out=dist)
            np.abs(dist, out=dist)
            np.add(one[axis, start:stop, None], other[axis, None, start:], out=each)
            each -= dist
            prod *= each
        square = prod[:, : stop - start].sum()
        pairs += 2 * prod.sum() - square
    single = np.prod(1 + size / 2 - size**2 / 2, axis=0).sum()
    return float((13 / 12) ** dim - 2 / number * single + pairs / number**2)
