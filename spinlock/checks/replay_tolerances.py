"""How closely recomputed samples must match stored ones that other devices or packages computed.

In float32 every value must be close. Convolutions in TF32 or bfloat16 round their operands, by
which single values of a field differ by a tenth, so norms are compared instead. The table has the
largest relative deviations of 40 baseline samples on a grid of 64 x 64, where the rounding of the
other device was emulated on a CPU. For TF32, operands truncated to 10 bits are compared with
float32, which bounds rounding from above; for bfloat16, operands that are rounded on two scales,
because only CPUs leave silenced channels out. The last column has the smallest deviations between
two samples.

==========  ======  ========  ===========
part        tf32    bfloat16  two samples
==========  ======  ========  ===========
fields      0.008   0.016     about 1
features    0.006   0.003     0.065
dynamics    0.006   0.002     0.126
==========  ======  ========  ===========

Tolerances are at least three times the deviations, because other samples deviate more, and at most
a third of the differences between two samples. Two operators of the same parameters, which differ
in their weights only, have fields that differ as much, but features and dynamics that are alike.
`python -m benchmarks.replay_tolerances` prints such a table.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import Precision

RTOL, ATOL = 1e-3, 1e-4
# Features amplify rounding where a field is nearly constant or a spectrum nearly empty.
FEATURE_RTOL = FEATURE_ATOL = 1e-2
#: Columns of the dynamics that come from the Jacobian, or from small differences of fields. They
#: amplify the rounding of operands, bfloat16 up to 0.5, and are compared in float32 only.
AMPLIFYING = ("lyapunov", "heterogeneity", "diffusion", "growth", "mixing", "gain_rms")
# The noise is added in float32, so what distinguishes realizations must agree as in float32. The
# rounding of the fields, about 1e-7, hides weak noise.
_NOISE_RTOL, _NOISE_ATOL = 1e-3, 1e-6
_INITIAL = "initial conditions"


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of a part of the samples.

    Args:
        part: Part of the samples: initial conditions, fields, features or dynamics.
        norm: Largest relative deviation in norm; None if every value must be close.
    """

    part: str
    norm: float | None

    @property
    def text(self) -> str:
        """The tolerance in words."""
        if self.norm is None:
            rtol, atol = self._each_value
            return f"rtol {rtol:g}, atol {atol:g}"
        of = "relative to the change by the operator" if self.part == "fields" else "relative"
        return f"root-mean-square difference {self.norm:g}, {of}"

    @property
    def _each_value(self) -> tuple[float, float]:
        fields = self.part in (_INITIAL, "fields")
        return (RTOL, ATOL) if fields else (FEATURE_RTOL, FEATURE_ATOL)

    def holds(
        self, stored: NDArray[Any], expected: NDArray[Any], unchanged: NDArray[Any] | None
    ) -> bool:
        """Return whether stored values are close enough to the expected ones.

        Args:
            stored: Values in the file.
            expected: Recomputed values; of fields, (M, C, H, W).
            unchanged: Field that the timestep would yield if the operator were 0, (C, H, W); None
                if the values are no fields.
        """
        if self.norm is None:
            rtol, atol = self._each_value
            return np.allclose(stored, expected, rtol=rtol, atol=atol, equal_nan=True)
        if deviation(stored, expected, unchanged) > self.norm:
            return False
        if unchanged is None:
            return True
        one, two = (
            values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
            for values in (stored, expected)
        )
        allowed = _NOISE_RTOL * _norm(two) + _NOISE_ATOL * _norm(expected)
        return _norm(one - two) <= allowed


def deviation(
    stored: NDArray[Any], expected: NDArray[Any], unchanged: NDArray[Any] | None
) -> float:
    """Return the relative deviation in norm of stored values; infinite if other values are missing.

    Args:
        stored: Values in the file.
        expected: Recomputed values; of fields, (M, C, H, W).
        unchanged: Field without the operator, as in `Tolerance.holds`.

    Example:
        >>> deviation(np.array([1.0, 3.0]), np.array([1.0, 1.0]), None)
        0.7071067811865476
    """
    missing = np.isnan(expected)
    if not np.array_equal(np.isnan(stored), missing):
        return math.inf
    stored, expected = (
        np.where(missing, 0.0, values).astype(np.float64) for values in (stored, expected)
    )
    if unchanged is None:
        return _norm((stored - expected) / (1 + np.abs(expected)))
    # Relative to the field itself, an update with a small dt would hide the operator.
    excess = _norm(stored - expected) - _NOISE_ATOL * _norm(expected)
    change = _norm(expected - unchanged)
    if excess <= 0:
        return 0.0
    return excess / change if change else math.inf


def tolerance(part: str, precision: Precision, devices: Collection[str]) -> Tolerance:
    """Return the tolerance of a part of the samples.

    Args:
        part: Part of the samples: initial conditions, fields, features or dynamics.
        precision: Precision of the dataset.
        devices: Types of the devices that computed and recompute it. TF32 affects CUDA devices
            only.

    Example:
        >>> tolerance("features", "float32", {"cuda", "cpu"}).text
        'rtol 0.01, atol 0.01'
        >>> tolerance("features", "tf32", {"cuda", "cpu"}).text
        'root-mean-square difference 0.02, relative'
    """
    rounded = precision == "bfloat16" or (precision == "tf32" and "cuda" in devices)
    if part == _INITIAL or not rounded:
        return Tolerance(part, None)
    norms = {"tf32": (0.03, 0.02, 0.02), "bfloat16": (0.05, 0.01, 0.02)}[precision]
    return Tolerance(part, dict(zip(("fields", "features", "dynamics"), norms, strict=True))[part])


def _norm(values: NDArray[Any]) -> float:
    """Return the root mean square; 0 of nothing."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) if values.size else 0.0
