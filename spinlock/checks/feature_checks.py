"""Checks of features: missing, infinite, out-of-range and constant columns."""

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError, count
from spinlock.features import FEATURES
from spinlock.features.batches import CV_LIMIT
from spinlock.features.fourier_bins import BAND_EDGES
from spinlock.runtime.ordered_map import row_blocks
from spinlock.storage import schema

# Numbers of values, of NaN and of infinite values in a column, and its extrema without NaN.
_STATISTICS = np.dtype(
    [(name, np.int64) for name in ("values", "nan", "infinite")]
    + [(name, np.float64) for name in ("low", "high")]
)
# Relative tolerance for rounding at the ends of a range.
_RANGE_TOLERANCE = 1e-4
_DISCRETE = ("temporal_freq_dominant", "regime_switches")


_CLAIMS = {
    "missing": "values are NaN if and only if T is too small for the feature",
    "infinite": "no column has infinite values",
    "range": "values are within the range of the feature",
    "constant": "no column has the same value for all samples",
}


def feature_claims(source: CheckSource) -> Iterator[Claim]:
    """Yield the claims of the group, four for each array of features."""
    for name, spec in source.specs.items():
        if name.startswith("features/"):
            array = name.removeprefix("features/").removesuffix("/features")
            problems = cache(partial(_problems, source, spec))
            for what, text in _CLAIMS.items():
                measure = partial(_count, problems, what)
                yield Claim(f"{array}: {what}", f"{array}: {text}", measure, (name,))


def _count(problems: Callable[[], dict[str, list[str]]], what: str) -> Measurement:
    found = problems()
    if what not in found:
        raise NotMeasurableError("the array has one sample, or only NaN at this T")
    return count(found[what])


def _problems(source: CheckSource, spec: schema.DatasetSpec) -> dict[str, list[str]]:
    """Return the columns that contradict each claim; a claim without values has no entry."""
    columns = _columns(source, spec)
    found: dict[str, list[str]] = {"missing": [], "infinite": [], "range": []}
    for name, column in columns.items():
        low, high, undefined = _expected(source, spec, name)
        expected = column["values"] if undefined else 0
        if column["nan"] != expected:
            found["missing"].append(f"{name} ({column['nan']} NaN, expected {expected})")
        if column["infinite"]:
            found["infinite"].append(f"{name} ({column['infinite']})")
        room = _RANGE_TOLERANCE * max([1.0, *(abs(e) for e in (low, high) if math.isfinite(e))])
        if column["low"] < low - room or column["high"] > high + room:
            values = f"{column['low']:.4g}..{column['high']:.4g}"
            found["range"].append(f"{name} ({values}, not {low:g}..{high:g})")
    defined = {name: one for name, one in columns.items() if one["nan"] < one["values"]}
    if defined and source.num_samples > 1:
        allowed = _allowed_constants(source, spec.name, spec.names)
        constant = [name for name, one in defined.items() if one["low"] == one["high"]]
        found["constant"] = [name for name in constant if name not in allowed]
    return found


def bounds(text: str, grid_size: int, num_timesteps: int) -> tuple[float, float]:
    """Return the interval of a feature's range; unbounded if the text is not understood.

    Args:
        text: Text of `spinlock.features.Feature.range`, such as ``[0, ½]`` or
            ``(0, 1], 0 if flat``.
        grid_size: Side of the grid; n in the text is its square.
        num_timesteps: Number of timesteps, T in the text.
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


def _columns(source: CheckSource, spec: schema.DatasetSpec) -> dict[str, np.void]:
    """Measure the columns of an array of features; see `_STATISTICS`."""
    found = np.zeros(len(spec.names), _STATISTICS)
    found["low"], found["high"] = math.inf, -math.inf
    for rows in row_blocks(source.rows):
        block = source.column(spec.name, rows).reshape(-1, len(spec.names))
        found["values"] += len(block)
        found["nan"] += np.isnan(block).sum(axis=0)
        found["infinite"] += np.isinf(block).sum(axis=0)
        found["low"] = np.fmin(found["low"], np.fmin.reduce(block))
        found["high"] = np.fmax(found["high"], np.fmax.reduce(block))
    return dict(zip(spec.names, found, strict=True))


def _expected(
    source: CheckSource, spec: schema.DatasetSpec, name: str
) -> tuple[float, float, bool]:
    """Return the range of a column, and whether it is undefined at the dataset's T."""
    steps = source.config.num_timesteps
    registry = {row.name: (row.range, row.min_timesteps) for row in FEATURES}
    if "/custom/" in spec.name:
        rows = json.loads(source.text("features"))
        registry = {row["name"]: (row["range"], row["min_timesteps"]) for row in rows}
    base, kind = name, "mean"
    if "/aggregated/" in spec.name:
        base, _, kind = name.rpartition("_")
    text, min_timesteps = registry.get(base, ("ℝ", None))
    low, high = bounds(text, source.config.grid_size, steps)
    if kind == "std":
        low, high = 0.0, high - low
    elif kind == "cv":
        low, high = 0.0, CV_LIMIT
    return low, high, steps < (min_timesteps or 1)


def _allowed_constants(source: CheckSource, name: str, names: tuple[str, ...]) -> set[str]:
    """Return the columns that may have the same value for all samples."""
    config = source.config
    if "/custom/" in name:
        return set(names)
    if "/aggregated/" in name and config.num_realizations == 1:
        return {column for column in names if column.endswith(("_std", "_cv"))}
    # Bands that end at the lowest frequency of the grid, 1/H, or below it have no modes.
    empty = [band for band, edge in enumerate(BAND_EDGES) if 1 / config.grid_size >= edge]
    # Positions and counts on few timesteps may be the same everywhere.
    allowed = {column for column in names if column.startswith(_DISCRETE)}
    kinds = ("mean", "max", "std")
    allowed |= {f"fft_power_scale_{band}_{kind}" for band in empty for kind in kinds}
    if len(empty) > 1:
        allowed.add("low_freq_ratio")
    variances = {variant.variance for variant in source.distributions.values()}
    known = len(source.distributions) == len(source.config.mixture.names)
    if name == schema.INITIAL_FEATURES and known and len(variances) == 1:
        # Initial conditions are normalized to this variance.
        allowed |= {"spatial_variance", "spatial_std"}
    return allowed
