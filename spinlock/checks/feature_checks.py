"""Checks of features: missing, infinite, out-of-range and constant columns."""

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import cache

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim
from spinlock.checks.column_checks import Expected, column_claims
from spinlock.features import FEATURES
from spinlock.features.batches import CV_LIMIT
from spinlock.features.fourier_bins import BAND_EDGES
from spinlock.features.response import RESPONSE_FEATURES
from spinlock.storage import schema

_DISCRETE = ("temporal_freq_dominant", "regime_switches")
# Responses of weak operators may all be at the floor of the logarithm.
_FLOORED = ("innovation", "nonlinear_share")
# Columns that the registry lists once for all channels, or for all timesteps.
_NUMBERED = {"channel_mean": "channel_mean_c", "divergence": "divergence_t"}
# noise_low counts the power of the first two octaves.
_LOW_NOISE = BAND_EDGES[1]


def feature_claims(source: CheckSource) -> Iterator[Claim]:
    """Yield the claims of the group, four for each array of features."""
    for name, spec in source.specs.items():
        if not name.startswith("features/"):
            continue
        expected = _response_expected if "/response/" in name else _expected
        condition = "values are NaN if and only if T is too small for the feature"
        if name in (schema.NOISE_RESPONSES, schema.DIVERGENCE):
            condition = "values are NaN if and only if there is one realization"
        elif "/response/" in name:
            condition = "no value is NaN"
        label = f"{name.removeprefix('features/').removesuffix('/features')}: "
        yield from column_claims(
            source, spec, expected(source, spec), label=label, missing=condition
        )


def bounds(text: str, grid_size: int, num_timesteps: int) -> tuple[float, float]:
    """Return the interval of a feature's range; unbounded if the text is not understood.

    Args:
        text: Text of a registry, as in `spinlock.features.Feature.range`, such as ``[0, ½]`` or
            ``(0, 1], 0 if flat``.
        grid_size: Side of the grid, "side" in the text; n is its square.
        num_timesteps: Number of timesteps, T in the text.
    """
    interval = re.match(r"[\[(]([^,]+), ([^\])]+)[\])](, 0 if \w+)?$", text)
    if interval is None:
        return -math.inf, math.inf
    n = grid_size**2
    symbols = {"∞": math.inf, "½": 0.5, "n": n, "√n": grid_size, "T": num_timesteps}
    symbols["1/T"] = 1 / num_timesteps
    symbols |= {"½ side": grid_size / 2, "0.71·side": 0.71 * grid_size}
    ends = []
    for end in interval.group(1, 2):
        sign, name = (-1.0, end[1:]) if end[0] in "-−" else (1.0, end)
        try:
            ends.append(sign * float(symbols.get(name, name)))
        except ValueError:
            return -math.inf, math.inf
    low, high = ends
    return (min(low, 0.0), high) if interval.group(3) else (low, high)


def _expected(source: CheckSource, spec: schema.DatasetSpec) -> Callable[[str], Expected]:
    """Return the expected content of the columns of a trajectory's or a field's features."""
    steps = source.config.num_timesteps

    @cache
    def registry() -> dict[str, tuple[str, int | None]]:
        if "/custom/" not in spec.name:
            return {row.name: (row.range, row.min_timesteps) for row in FEATURES}
        rows = json.loads(source.text("features"))
        return {row["name"]: (row["range"], row["min_timesteps"]) for row in rows}

    allowed = cache(lambda: _allowed_constants(source, spec.name, spec.names))

    def expected(name: str) -> Expected:
        base, kind = name, "mean"
        if "/aggregated/" in spec.name:
            base, _, kind = name.rpartition("_")
        text, min_timesteps = registry().get(base, ("ℝ", None))
        low, high = bounds(text, source.config.grid_size, steps)
        if kind == "std":
            low, high = 0.0, high - low
        elif kind == "cv":
            low, high = 0.0, CV_LIMIT
        return Expected(low, high, steps < (min_timesteps or 1), name in allowed())

    return expected


def _response_expected(source: CheckSource, spec: schema.DatasetSpec) -> Callable[[str], Expected]:
    """Return the expected content of the columns of response features."""
    config = source.config
    ranges = {row.name: row.range for row in RESPONSE_FEATURES}
    undefined = "timestep" not in spec.dims and config.num_realizations == 1
    # Operators of the user may be alike, and even the identity.
    custom = not isinstance(config.operator, str)

    def expected(name: str) -> Expected:
        base = re.sub(r"_\d+$", "", name)
        text = ranges[_NUMBERED.get(base, name)]
        low, high = bounds(text, config.grid_size, config.num_timesteps)
        constant = custom or (name == "noise_low" and 1 / config.grid_size >= _LOW_NOISE)
        return Expected(low, high, undefined, constant, low if name in _FLOORED else None)

    return expected


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
