"""Response features: numbers that describe what a step does, not what the field looks like.

`extract_responses` computes them for initial conditions and trajectories, and `RESPONSE_FEATURES`
documents them.
"""

from spinlock.features.response.response_extraction import ResponseFeatures, extract_responses
from spinlock.features.response.response_names import (
    NOISE_NAMES,
    RESPONSE_FEATURES,
    TRANSPORT_NAMES,
    divergence_names,
    response_names,
)

__all__ = [
    "NOISE_NAMES",
    "RESPONSE_FEATURES",
    "TRANSPORT_NAMES",
    "ResponseFeatures",
    "divergence_names",
    "extract_responses",
    "response_names",
]
