"""Checks of the columns of an array of numbers: missing, infinite, out-of-range, constant ones."""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError, count
from spinlock.runtime.ordered_map import row_blocks
from spinlock.storage.schema import DatasetSpec

# Numbers of values, of NaN and of infinite values in a column, and its extrema without NaN.
_STATISTICS = np.dtype(
    [(name, np.int64) for name in ("values", "nan", "infinite")]
    + [(name, np.float64) for name in ("low", "high")]
)
# Relative tolerance for rounding at the ends of a range.
_RANGE_TOLERANCE = 1e-4


class Expected(NamedTuple):
    """Expected content of a column.

    Attributes:
        low: Lower end of the range.
        high: Upper end of the range.
        undefined: Whether all values must be NaN; otherwise none may be; default: False.
        constant: Whether all rows may have the same value; default: False.
        floor: Value that all rows may have, default: none.
    """

    low: float = -math.inf
    high: float = math.inf
    undefined: bool = False
    constant: bool = False
    floor: float | None = None


def column_claims(
    source: CheckSource,
    spec: DatasetSpec,
    expected: Callable[[str], Expected],
    *,
    label: str,
    missing: str,
    fewest: int = 2,
) -> Iterator[Claim]:
    """Yield four claims about the columns of an array.

    Args:
        source: File under check.
        spec: Specification of the array.
        expected: Function from the name of a column to its expected content.
        label: Beginning of the names and texts of the claims; empty if the array is the only one
            of its group.
        missing: Statement about NaN.
        fewest: Number of rows from which on a column must not be constant, default: 2.
    """
    problems = cache(partial(_problems, source, spec, expected, fewest))
    for what, text in {
        "missing": missing,
        "infinite": "no column has infinite values",
        "range": "values are within the range of the column",
        "constant": f"no column has the same value in all {spec.dims[0]}s",
    }.items():
        measure = partial(_count, problems, what, fewest)
        yield Claim(f"{label}{what}", f"{label}{text}", measure, (spec.name,))


def _count(problems: Callable[[], dict[str, list[str]]], what: str, fewest: int) -> Measurement:
    found = problems()
    if what not in found:
        raise NotMeasurableError(f"the array has fewer than {fewest} rows, or only NaN")
    return count(found[what])


def _problems(
    source: CheckSource, spec: DatasetSpec, expected: Callable[[str], Expected], fewest: int
) -> dict[str, list[str]]:
    """Return the columns that contradict each claim; a claim without values has no entry."""
    columns = _columns(source, spec)
    found: dict[str, list[str]] = {"missing": [], "infinite": [], "range": []}
    constant = []
    for name, column in columns.items():
        wanted = expected(name)
        nan = column["values"] if wanted.undefined else 0
        if column["nan"] != nan:
            found["missing"].append(f"{name} ({column['nan']} NaN, expected {nan})")
        if column["infinite"]:
            found["infinite"].append(f"{name} ({column['infinite']})")
        ends = [abs(end) for end in wanted[:2] if math.isfinite(end)]
        room = _RANGE_TOLERANCE * max([1.0, *ends])
        if column["low"] < wanted.low - room or column["high"] > wanted.high + room:
            values = f"{column['low']:.4g}..{column['high']:.4g}"
            found["range"].append(f"{name} ({values}, not {wanted.low:g}..{wanted.high:g})")
        at_floor = wanted.floor is not None and math.isclose(column["low"], wanted.floor)
        if column["low"] == column["high"] and not wanted.constant and not at_floor:
            constant.append(name)
    defined = any(column["nan"] < column["values"] for column in columns.values())
    if defined and len(spec.rows(source.samples)) >= fewest:
        found["constant"] = constant
    return found


def _columns(source: CheckSource, spec: DatasetSpec) -> dict[str, np.void]:
    """Measure the columns of an array; see `_STATISTICS`."""
    found = np.zeros(len(spec.names), _STATISTICS)
    found["low"], found["high"] = math.inf, -math.inf
    for rows in row_blocks(source.rows):
        block = source.column(spec.name, rows).reshape(-1, len(spec.names))
        if len(block):
            found["values"] += len(block)
            found["nan"] += np.isnan(block).sum(axis=0)
            found["infinite"] += np.isinf(block).sum(axis=0)
            found["low"] = np.fmin(found["low"], np.fmin.reduce(block))
            found["high"] = np.fmax(found["high"], np.fmax.reduce(block))
    return dict(zip(spec.names, found, strict=True))
