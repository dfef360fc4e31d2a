"""Features: no value that is missing or impossible, no column that says nothing."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.check_results import CheckRow, Claim
from spinlock.checks.checked_file import CheckSource
from spinlock.features import FEATURES
from spinlock.storage import schema
from spinlock.storage.layout import text_attribute

GROUP = "features"
_BYTES_AT_A_TIME = 1 << 26
# Room for rounding at the ends of a range.
_RANGE_TOLERANCE = 1e-4
_CV_LIMIT = 100.0
# Upper edges of the lowest bands of frequencies, in cycles per pixel (features.md, section 3).
_BAND_EDGES = (1 / 32, 1 / 16, 1 / 8)
_DISCRETE = ("temporal_freq_dominant", "regime_switches")


@dataclass
class _Column:
    """What must hold of a column."""

    low: float
    high: float
    missing: bool


@dataclass
class ColumnStatistics:
    """What a pass over an array of features found, per column."""

    nan: NDArray[np.int64]
    infinite: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    values: int


def bounds(text: str, grid_size: int, num_timesteps: int) -> tuple[float, float]:
    """The interval that the text of a feature's range means; unbounded if it is not understood.

    Args:
        text: As in `spinlock.features.Feature.range`, such as ``[0, ½]`` or ``(0, 1], 0 if flat``.
        grid_size: Side of the grid; n in the text is its square.
        num_timesteps: T in the text.
    """
    interval = re.match(r"[\[(]([^,]+), ([^\])]+)[\])](, 0 if \w+)?$", text)
    if interval is None:
        return -math.inf, math.inf
    n = grid_size**2
    symbols = {"∞": math.inf, "½": 0.5, "n": n, "√n": grid_size, "T": num_timesteps}
    symbols["1/T"] = 1 / num_timesteps
    ends = []
    for end in interval.group(1, 2):
        sign, name = (-1.0, end[1:]) if end[0] in "-−" else (1.0, end)
        try:
            ends.append(sign * float(symbols.get(name, name)))
        except ValueError:
            return -math.inf, math.inf
    low, high = ends
    return (min(low, 0.0), high) if interval.group(3) else (low, high)


def feature_rows(source: CheckSource) -> Iterator[CheckRow]:
    """The rows of the group, four for each array of features."""
    for name, spec in source.specs.items():
        if not name.startswith("features/"):
            continue
        array = name.removeprefix("features/").removesuffix("/features")
        columns = _columns(source, spec.name, spec.names)
        claims = [
            Claim(
                GROUP,
                f"{array}: missing",
                f"{array}: NaN exactly where T is too small",
                "0 columns wrong",
            ),
            Claim(GROUP, f"{array}: infinite", f"{array}: infinite values", "0 columns"),
            Claim(
                GROUP,
                f"{array}: range",
                f"{array}: values outside of the feature's range",
                "0 columns",
            ),
            Claim(
                GROUP,
                f"{array}: constant",
                f"{array}: columns with one value for all samples",
                "0 columns",
            ),
        ]
        if reason := source.lacks(name):
            yield from (claim.not_measurable(reason) for claim in claims)
            continue
        found = column_statistics(source, name)
        problems = _problems(spec.names, columns, found)
        for claim, wrong in zip(claims[:3], problems, strict=True):
            yield claim.count(wrong)
        yield _constant_row(claims[3], source, spec, found)


def column_statistics(source: CheckSource, name: str) -> ColumnStatistics:
    """Count and bound the values of each column, some samples at a time."""
    data = source.file[name]
    width = data.shape[-1]
    found = ColumnStatistics(
        np.zeros(width, np.int64),
        np.zeros(width, np.int64),
        np.full(width, np.inf),
        np.full(width, -np.inf),
        0,
    )
    rows = max(1, _BYTES_AT_A_TIME // max(1, data.nbytes // len(data)))
    for start in range(0, len(data), rows):
        block = data[start : start + rows].reshape(-1, width).astype(np.float64)
        found.nan += np.isnan(block).sum(axis=0)
        found.infinite += np.isinf(block).sum(axis=0)
        found.low = np.fmin(found.low, np.fmin.reduce(block, axis=0))
        found.high = np.fmax(found.high, np.fmax.reduce(block, axis=0))
        found.values += len(block)
    return found


def _columns(source: CheckSource, name: str, names: tuple[str, ...]) -> list[_Column]:
    config = source.config
    registry = {row.name: (row.range, row.min_timesteps) for row in FEATURES}
    if "/custom/" in name:
        rows = json.loads(text_attribute(source.file, "features"))
        registry = {row["name"]: (row["range"], row["min_timesteps"]) for row in rows}
    out = []
    for column in names:
        base, kind = column, "_mean"
        if "/aggregated/" in name:
            base, _, suffix = column.rpartition("_")
            kind = f"_{suffix}"
        text, min_timesteps = registry.get(base, ("ℝ", None))
        low, high = bounds(text, config.grid_size, config.num_timesteps)
        if kind == "_std":
            low, high = 0.0, high - low
        elif kind == "_cv":
            low, high = 0.0, _CV_LIMIT
        out.append(_Column(low, high, config.num_timesteps < (min_timesteps or 1)))
    return out


def _problems(
    names: tuple[str, ...], columns: list[_Column], found: ColumnStatistics
) -> tuple[list[str], list[str], list[str]]:
    """Columns that are missing where they should not be, infinite, or out of range."""
    missing, infinite, outside = [], [], []
    for i, (name, column) in enumerate(zip(names, columns, strict=True)):
        expected = found.values if column.missing else 0
        if found.nan[i] != expected:
            missing.append(f"{name} ({found.nan[i]} NaN, expected {expected})")
        if found.infinite[i]:
            infinite.append(f"{name} ({found.infinite[i]})")
        if found.nan[i] == found.values:
            continue
        low, high = column.low, column.high
        ends = [abs(end) for end in (low, high) if math.isfinite(end)]
        room = _RANGE_TOLERANCE * max([1.0, *ends])
        if found.low[i] < low - room or found.high[i] > high + room:
            outside.append(
                f"{name} ({found.low[i]:.4g}..{found.high[i]:.4g}, not {low:g}..{high:g})"
            )
    return missing, infinite, outside


def _constant_row(
    claim: Claim, source: CheckSource, spec: schema.DatasetSpec, found: ColumnStatistics
) -> CheckRow:
    if source.num_samples < 2:
        return claim.not_measurable("there is one sample")
    defined = found.nan < found.values
    if not defined.any():
        return claim.not_measurable(f"every column is NaN at T = {source.config.num_timesteps}")
    allowed = _allowed_constants(source, spec.name, spec.names)
    constant = defined & (found.low == found.high)
    names = [name for name, one in zip(spec.names, constant, strict=True) if one]
    return claim.count([name for name in names if name not in allowed])


def _allowed_constants(source: CheckSource, name: str, names: tuple[str, ...]) -> set[str]:
    """Columns that may be the same for all samples."""
    config = source.config
    if "/custom/" in name:
        return set(names)
    if "/aggregated/" in name and config.num_realizations == 1:
        return {column for column in names if column.endswith(("_std", "_cv"))}
    variances = {variant.variance for variant in source.distributions.values()}
    known = len(source.distributions) == len(source.mixture.names)
    if name == schema.INITIAL_FEATURES and known and len(variances) == 1:
        # The variance of initial conditions is imposed.
        return {"spatial_variance", "spatial_std"} | _constant_columns(names, config.grid_size)
    return _constant_columns(names, config.grid_size)


def _constant_columns(names: tuple[str, ...], grid_size: int) -> set[str]:
    # The lowest frequency of the grid is 1/H: bands that end there or below have no modes.
    empty = [band for band, edge in enumerate(_BAND_EDGES) if 1 / grid_size >= edge]
    # Positions and counts on few steps may be the same everywhere.
    allowed = {column for column in names if column.startswith(_DISCRETE)}
    allowed |= {
        f"fft_power_scale_{band}_{kind}" for band in empty for kind in ("mean", "max", "std")
    }
    return allowed | ({"low_freq_ratio"} if len(empty) > 1 else set())
