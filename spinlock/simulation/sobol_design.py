"""The experimental design: which operator and which initial condition each sample has.

Operators are points of a scrambled Sobol sequence [1]_; one coordinate beyond the parameters' 15
chooses the initial condition, so that variants are spread evenly over the operators. Row i depends
on the seed and on i alone: a longer design begins with the shorter one.

.. [1] A. B. Owen, "Scrambling Sobol' and Niederreiter-Xing points", J. Complexity 14, 1998.
"""

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.simulation.parameter_space import PARAMETER_NAMES, ParameterSpace

_NUM_AXES = len(PARAMETER_NAMES)
# The discrepancy costs O(N^2): beyond this many points the first ones stand for all.
_MAX_DISCREPANCY_POINTS = 1 << 14


@dataclass(frozen=True)
class Design:
    """Rows ``start .. start + N`` of the design.

    Args:
        start: Index of the first sample.
        params: (N, 15) float32, the operator's point in the unit cube.
        values: (N,) structured, the operator's typed values (`ParameterSpace.values`).
        variant: (N,) int64, position of the initial condition in `Mixture.names`.
        operator_index: (N,) int64, the operator.
    """

    start: int
    params: NDArray[np.float32]
    values: NDArray[np.void]
    variant: NDArray[np.int64]
    operator_index: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """One past the last sample."""
        return self.start + len(self.params)

    def rows(self, start: int, stop: int) -> "Design":
        """The part of the design that belongs to samples ``start .. stop``."""
        part = slice(start - self.start, stop - self.start)
        return Design(
            start,
            self.params[part],
            self.values[part],
            self.variant[part],
            self.operator_index[part],
        )


def _sobol(seed: int, start: int, stop: int) -> NDArray[np.float64]:
    sequence = qmc.Sobol(_NUM_AXES + 1, scramble=True, rng=np.random.default_rng(seed))
    if start:
        sequence.fast_forward(start)
    with warnings.catch_warnings():
        # scipy warns that N is no power of two; the quality of the design is measured instead.
        warnings.filterwarnings("ignore", message="The balance properties")
        return np.asarray(sequence.random(stop - start))


def make_design(config: GenerationConfig, start: int = 0, stop: int | None = None) -> Design:
    """Rows ``start .. stop`` (default: all of ``config.num_samples``) of the design.

    Args:
        config: The dataset; its ``num_samples`` only sets the default of ``stop``.
        start: First sample.
        stop: One past the last sample; may exceed ``num_samples``.
    """
    stop = config.num_samples if stop is None else stop
    probes = config.probes_per_operator
    index = np.arange(start, stop, dtype=np.int64)
    operator_index, probe = np.divmod(index, probes)
    first, last = start // probes, -(-stop // probes)
    points = _sobol(config.seed, first, last)[operator_index - first]
    # Values are those of the stored float32 coordinates, so that the two columns agree exactly.
    params = points[:, :_NUM_AXES].astype(np.float32)
    # Each probe of an operator moves on by 1/P, hence to another family while P <= 4.
    coordinate = (points[:, _NUM_AXES] + probe / probes) % 1.0
    return Design(
        start=start,
        params=params,
        values=ParameterSpace(config.parameter_space).values(params),
        variant=Mixture(config.initial_conditions).assign(coordinate),
        operator_index=operator_index,
    )


def design_quality(params: NDArray[np.float32]) -> dict[str, float]:
    """Measure how evenly points fill the unit cube.

    Args:
        params: (N, d) points in the unit cube, one row per operator.

    Returns:
        ``centered_l2_discrepancy`` (Hickernell 1998; of the first ``discrepancy_points`` points),
        ``max_abs_correlation`` over pairs of axes, ``min_stratum_count`` (smallest count in the 3
        equal strata of any axis) and ``min_pair_stratum_count`` (in the 9 of any pair).
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
        "centered_l2_discrepancy": float(qmc.discrepancy(some, method="CD")),
        "discrepancy_points": float(len(some)),
        "max_abs_correlation": correlation,
        "min_stratum_count": float(single),
        "min_pair_stratum_count": float(min(pairs)),
    }
