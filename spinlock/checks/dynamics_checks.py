"""Checks of the operators' dynamics: columns, known values, measured against true transport."""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError, count
from spinlock.checks.column_checks import Expected, column_claims
from spinlock.checks.feature_checks import bounds
from spinlock.configuration.operator_axes import BUILTIN_AXES
from spinlock.configuration.parameter_axes import UniformRange
from spinlock.configuration.parameter_space import typed_row
from spinlock.simulation.dynamics import SMALLEST_NOISE, measuring_side
from spinlock.simulation.dynamics_columns import DYNAMICS
from spinlock.simulation.rollout import update_weights
from spinlock.simulation.transport_flow import TRUE_DYNAMICS
from spinlock.storage import schema

# Transport is promised to be found where the output G has at most this share of the field's weight,
# with a median error of this share of the range of the built-in axis, and this correlation.
MAX_NONLINEARITY, MAX_ERROR, MIN_CORRELATION = 0.5, 0.05, 0.95
# Fewer operators may be alike by chance, or have too little transport to correlate with.
_FEWEST = 8
# Correlations need true values that span this share of the range of the built-in axis.
_SPAN = 0.5
# Rounding of float32, and of logarithms of other machines.
_RTOL, _ATOL = 1e-5, 1e-6

# What is measured -> measured columns, and unit.
_TRANSPORT = {
    "diffusion": (("diffusion",), "pixels²/step"),
    "shift": (("shift_x", "shift_y"), "pixels/step"),
}


def dynamics_claims(source: CheckSource) -> Iterator[Claim]:
    """Yield the claims of the group; there are none if the file has no dynamics."""
    spec = source.specs.get(schema.DYNAMICS)
    if spec is None:
        return
    yield from column_claims(
        source,
        spec,
        _expected(source),
        label="",
        missing="no value is NaN",
        fewest=_FEWEST,
    )
    yield Claim(
        "known values",
        "columns that are parameters equal parameters/values: "
        + ", ".join(
            ["noise", "noise_length", *(name for name in TRUE_DYNAMICS if name in spec.names)]
        ),
        partial(_known_values, source),
        (schema.DYNAMICS, *schema.value_names(source.config)),
    )
    if source.config.operator == "transport":
        yield from _transport_claims(source)


def _transport_claims(source: CheckSource) -> Iterator[Claim]:
    chosen = cache(partial(_nearly_linear, source))
    needs = (schema.DYNAMICS, *schema.value_names(source.config))
    for name, (columns, unit) in _TRANSPORT.items():
        allowed = MAX_ERROR * max(_width(f"true_{column}") for column in columns)
        yield Claim(
            f"{name} error",
            f"median distance from {name} to true {name}, where G has at most half the weight of u",
            partial(_error, source, chosen, columns, allowed),
            needs,
            f"<= {allowed:g} {unit}",
        )
        yield Claim(
            f"{name} correlation",
            f"correlation of {name} with true {name}, where G has at most half the weight of u",
            partial(_correlation, source, chosen, columns),
            needs,
            f">= {MIN_CORRELATION:g}",
        )


def _expected(source: CheckSource) -> Callable[[str], Expected]:
    """Return the expected content of the columns."""
    config = source.config
    built_in = isinstance(config.operator, str)
    side = measuring_side(config.grid_size, built_in=built_in)
    ranges = {column.name: column.range for column in DYNAMICS}
    # Parameters may be fixed. Operators of the user may be alike.
    free = {"noise", "noise_length", *TRUE_DYNAMICS} | (
        {"mixing"} if config.channels == 1 else set()
    )

    def expected(name: str) -> Expected:
        low, high = bounds(ranges.get(name, "ℝ"), side, config.num_timesteps)
        return Expected(low, high, constant=name in free or not built_in)

    return expected


def _columns(source: CheckSource) -> dict[str, NDArray[np.float64]]:
    """Return the columns [number of operators] by name."""
    values = source.column(schema.DYNAMICS).astype(np.float64)
    return dict(zip(source.specs[schema.DYNAMICS].names, values.T, strict=True))


def _parameters(source: CheckSource) -> NDArray[np.void]:
    """Return the parameter values of each operator's first sample."""
    return source.parameter_values()[:: source.config.probes_per_operator]


def _known_values(source: CheckSource) -> Measurement:
    columns, parameters = _columns(source), _parameters(source)
    gain = np.array([update_weights(typed_row(row))[1] for row in parameters])
    noise = np.maximum(gain * parameters["noise_scale"], SMALLEST_NOISE)
    known = {"noise": np.log10(noise), "noise_length": parameters["spatial_correlation"]}
    known |= {name: parameters[axis] for name, axis in TRUE_DYNAMICS.items() if name in columns}
    return count(
        [
            f"{name} of operator {index}"
            for name, values in known.items()
            for index in np.flatnonzero(~np.isclose(columns[name], values, _RTOL, _ATOL))
        ]
    )


def _width(name: str) -> float:
    """Return the width of the built-in range of a true column."""
    axis = BUILTIN_AXES["transport"][TRUE_DYNAMICS[name]]
    assert isinstance(axis, UniformRange)
    return axis.high - axis.low


def _nearly_linear(source: CheckSource) -> NDArray[np.int64]:
    """Return the operators whose transport is promised to be measured well."""
    parameters = _parameters(source)
    weights = np.array([update_weights(typed_row(row)) for row in parameters])
    chosen = weights[:, 1] <= MAX_NONLINEARITY * weights[:, 0]
    for name, axis in BUILTIN_AXES["transport"].items():
        assert isinstance(axis, UniformRange)
        chosen &= (parameters[name] >= axis.low) & (parameters[name] <= axis.high)
    found = np.flatnonzero(chosen)
    if len(found) < _FEWEST:
        raise NotMeasurableError(
            f"{len(found)} operators are nearly linear, at least {_FEWEST} are needed"
        )
    return found


def _error(
    source: CheckSource,
    chosen: Callable[[], NDArray[np.int64]],
    names: tuple[str, ...],
    allowed: float,
) -> Measurement:
    rows, columns = chosen(), _columns(source)
    deviations = [columns[name][rows] - columns[f"true_{name}"][rows] for name in names]
    median = float(np.median(np.sqrt(np.square(deviations).sum(axis=0))))
    return Measurement(f"{median:.3g} ({len(rows)} operators)", median, median <= allowed)


def _correlation(
    source: CheckSource, chosen: Callable[[], NDArray[np.int64]], names: tuple[str, ...]
) -> Measurement:
    rows, columns = chosen(), _columns(source)
    found = {}
    for name in names:
        measured, true = columns[name][rows], columns[f"true_{name}"][rows]
        if np.ptp(true) < _SPAN * _width(f"true_{name}"):
            raise NotMeasurableError(f"true_{name} spans less than half the range of its axis")
        found[name] = float(np.corrcoef(measured, true)[0, 1])
    # A correlation with a constant is NaN.
    name = min(found, key=lambda name: -math.inf if math.isnan(found[name]) else found[name])
    text = f"{found[name]:.4f} ({name}, {len(rows)} operators)"
    return Measurement(text, found[name], found[name] >= MIN_CORRELATION)
