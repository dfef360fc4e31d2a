"""An independent implementation of the features in float64 and plain numpy, as an oracle.

It shares no code with ``spinlock.features`` and is simple: full-plane transforms, ``np.quantile``,
``np.median``, one field at a time. It was written from the specification alone, so agreement with
the package is evidence that both are correct.
"""

from .agreement import allowed_deviation, assert_agreement, disagreements
from .columns import (
    AGGREGATED,
    BAND_EDGES,
    COLUMNS,
    EXPONENT,
    PER_TIMESTEP,
    PER_TRAJECTORY,
    SHIFTED_BY_A_CONSTANT,
    SPATIAL,
    SPECTRAL,
    TEMPORAL,
)
from .extraction import aggregate, oracle_extract
from .fields import frequencies, is_flat, power_spectrum
from .trajectories import autocorrelation, temporal_features, temporal_spectrum

__all__ = [
    "AGGREGATED",
    "BAND_EDGES",
    "COLUMNS",
    "EXPONENT",
    "PER_TIMESTEP",
    "PER_TRAJECTORY",
    "SHIFTED_BY_A_CONSTANT",
    "SPATIAL",
    "SPECTRAL",
    "TEMPORAL",
    "aggregate",
    "allowed_deviation",
    "assert_agreement",
    "autocorrelation",
    "disagreements",
    "frequencies",
    "is_flat",
    "oracle_extract",
    "power_spectrum",
    "temporal_features",
    "temporal_spectrum",
]
