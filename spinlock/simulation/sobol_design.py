"""Assigns an operator and a variant of initial conditions to each sample.

Operators are points of a scrambled Sobol sequence [1]_. A further coordinate chooses the variant,
so that variants are spread evenly over the operators. Row i depends on the seed and on i alone, so
a longer design begins with the shorter one.

.. [1] A. B. Owen, "Scrambling Sobol' and Niederreiter-Xing points", J. Complexity 14, 1998.
"""

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import MAX_INDEX, GenerationConfig
from spinlock.errors import ConfigurationError
from spinlock.simulation.discrepancy import centered_discrepancy

# The discrepancy costs O(N^2), so it is measured on at most this number of points.
_MAX_DISCREPANCY_POINTS = 1 << 14


@dataclass(frozen=True)
class Design:
    """Rows ``start .. start + N`` of a design.

    Args:
        start: Index of the first sample.
        params: Operators as points of the unit cube, (N, A) float32, where A is the number of axes.
        values: Parameter values, a structured array (N,) from `ParameterSpace.values`.
        variant: Positions of the variants in `Mixture.names`, (N,) int64.
        operator_index: Indices of the operators, (N,) int64.
    """

    start: int
    params: NDArray[np.float32]
    values: NDArray[np.void]
    variant: NDArray[np.int64]
    operator_index: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """Index after the last sample."""
        return self.start + len(self.params)

    def rows(self, start: int, stop: int) -> "Design":
        """Return the rows of samples ``start .. stop``."""
        part = slice(start - self.start, stop - self.start)
        columns = {name: column[part] for name, column in vars(self).items() if name != "start"}
        return Design(start, **columns)


def sobol_points(dim: int, seed: int | list[int], start: int, stop: int) -> NDArray[np.float64]:
    """Return points ``start .. stop`` of a scrambled Sobol sequence.

    Args:
        dim: Number of coordinates.
        seed: Seed of the scrambling, as for `numpy.random.default_rng`.
        start: Index of the first point.
        stop: Index after the last point.

    Returns:
        (stop - start, dim) points of the unit cube.

    Raises:
        ConfigurationError: If the sequence, of 2^30 points, ends before.
    """
    if stop > MAX_INDEX:
        raise ConfigurationError(
            f"the design has 2^30 = {MAX_INDEX} operators, and operator {stop - 1} was asked for"
        )
    # This import takes a third of the time in which a command starts; many need no design.
    from scipy.stats import qmc

    sequence = qmc.Sobol(dim, scramble=True, rng=np.random.default_rng(seed))
    if start:
        sequence.fast_forward(start)
    with warnings.catch_warnings():
        # scipy warns if N is not a power of two; `design_quality` measures the design instead.
        warnings.filterwarnings("ignore", message="The balance properties")
        return np.asarray(sequence.random(stop - start))


def make_design(config: GenerationConfig, start: int = 0, stop: int | None = None) -> Design:
    """Compute rows ``start .. stop`` of the design of a dataset.

    Args:
        config: Configuration of the dataset.
        start: Index of the first sample.
        stop: Index after the last sample, which may exceed ``config.num_samples``; default:
            ``config.num_samples``.

    Example:
        >>> from spinlock import GenerationConfig
        >>> design = make_design(GenerationConfig(100), 10, 14)
        >>> design.operator_index, design.params.shape
        (array([10, 11, 12, 13]), (4, 15))
    """
    stop = config.num_samples if stop is None else stop
    probes = config.probes_per_operator
    index = np.arange(start, stop, dtype=np.int64)
    operator_index, probe = np.divmod(index, probes)
    first, last = start // probes, -(-stop // probes)
    points = _points(config, first, last)[operator_index - first]
    # Values are computed from the stored float32 coordinates, so the two columns agree exactly.
    params = points[:, :-1].astype(np.float32)
    # Probes of one operator are 1/P apart, so their families differ if P <= 4.
    coordinate = (points[:, -1] + probe / probes) % 1.0
    return Design(
        start=start,
        params=params,
        values=config.space.values(params),
        variant=config.mixture.assign(coordinate),
        operator_index=operator_index,
    )


def operator_values(config: GenerationConfig, operators: NDArray[np.int64]) -> NDArray[np.void]:
    """Compute the parameter values of operators of a dataset.

    Args:
        config: Configuration of the dataset.
        operators: Indices of the operators, (n,) int64. They may exceed those of the file.

    Returns:
        Structured array (n,) from `ParameterSpace.values`.

    Raises:
        ValueError: If an index is negative.

    Example:
        >>> from spinlock import GenerationConfig
        >>> operator_values(GenerationConfig(1), np.array([7, 2]))["num_layers"]
        array([2, 4])
    """
    distinct, place = np.unique(np.asarray(operators, dtype=np.int64), return_inverse=True)
    if not len(distinct):
        return config.space.values(np.empty((0, len(config.space.names))))
    if distinct[0] < 0:
        raise ValueError(f"operators: must not be negative, got {distinct[0]}")
    points = _points(config, int(distinct[0]), int(distinct[-1]) + 1)[distinct - distinct[0]]
    return config.space.values(points[:, :-1].astype(np.float32))[place]


def _points(config: GenerationConfig, first: int, last: int) -> NDArray[np.float64]:
    """Return operators as points of the cube of all axes and the coordinate of the variant."""
    return sobol_points(len(config.space.names) + 1, config.seed, first, last)


def design_quality(params: NDArray[np.float32]) -> dict[str, float]:
    """Measure how evenly points fill the unit cube.

    Args:
        params: Points in the unit cube, (N, d), one row per operator.

    Returns:
        ``centered_l2_discrepancy`` (Hickernell 1998) of the first ``discrepancy_points`` points,
        ``max_abs_correlation`` over pairs of axes, ``min_stratum_count`` (smallest number of points
        in any of the 3 equal strata of an axis) and ``min_pair_stratum_count`` (the same for the 9
        strata of a pair of axes).

    Example:
        >>> from spinlock import GenerationConfig
        >>> quality = design_quality(make_design(GenerationConfig(90)).params)
        >>> quality["min_stratum_count"]  # 90 points in 3 strata
        28.0
    """
    points = np.asarray(params, dtype=np.float64)
    num, dim = points.shape
    some = np.clip(points[:_MAX_DISCREPANCY_POINTS], 0.0, 1.0)
    strata = np.minimum((points * 3).astype(np.int64), 2)
    single = min(np.bincount(strata[:, a], minlength=3).min() for a in range(dim))
    pairs = (
        np.bincount(3 * strata[:, a] + strata[:, b], minlength=9).min()
        for a, b in combinations(range(dim), 2)
    )
    correlation = 0.0
    if num > 1:
        correlation = float(np.abs(np.corrcoef(points, rowvar=False) - np.eye(dim)).max())
    return {
        "centered_l2_discrepancy": centered_discrepancy(some),
        "discrepancy_points": float(len(some)),
        "max_abs_correlation": correlation,
        "min_stratum_count": float(single),
        "min_pair_stratum_count": float(min(pairs)),
    }
