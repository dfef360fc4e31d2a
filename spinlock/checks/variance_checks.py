"""Checks of the variance of features: shares of the variant and of the operator.

The targets hold for the operators of the baseline on the mixture of the baseline. Other operators
may be alike or insensitive to their parameters, so that their shares are reported only.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError
from spinlock.configuration.parameter_axes import ParameterSpaceConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import DatasetError
from spinlock.features.response.response_names import is_invariant
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile

if TYPE_CHECKING:
    from spinlock.metrics import VarianceShares

MIN_OPERATOR_SHARE, MAX_VARIANT_SHARE, MIN_NOISE_SHARE = 0.75, 0.1, 0.9
# The targets were measured on as many operators, realizations and pixels.
PROMISED_OPERATORS, PROMISED_REALIZATIONS, PROMISED_SIDE = 1_000, 5, 64
# Operators whose samples are decomposed, in bounded memory.
MAX_OPERATORS = 10_000


class ColumnShares(NamedTuple):
    """Decomposition of the variance of the columns of an array.

    Attributes:
        names: Names of the columns.
        shares: Shares of the variant, the operator and the rest, with intervals.
    """

    names: tuple[str, ...]
    shares: "VarianceShares"


def column_shares(source: DatasetFile, name: str) -> ColumnShares:
    """Decompose the variance of an array of features at the last timestep.

    Samples of up to 10,000 operators are read. Columns with values that are not finite are left
    out.

    Args:
        source: Dataset file with two or more probes of an operator.
        name: Name of the dataset.

    Raises:
        DatasetError: If no column can be decomposed. The message is the reason.
    """
    probes = source.config.probes_per_operator
    if probes < 2:
        raise DatasetError("the dataset has one probe per operator")
    rows = range(min(len(source.samples), MAX_OPERATORS * probes))
    if len(rows) <= probes:
        raise DatasetError("the dataset has one operator")
    values: NDArray[np.float32] = source.column(name, rows)
    values = values[:, -1] if values.ndim == 3 else values
    finite = np.asarray(np.isfinite(values).all(axis=0))
    if not finite.any():
        raise DatasetError("no column is finite")
    # The metrics load torchmetrics, which most checks do without.
    from spinlock.metrics import variance_shares

    variant = np.unique(source.column(schema.IC_TYPES, rows), return_inverse=True)[1]
    shares = variance_shares(
        torch.from_numpy(values[:, finite]),
        torch.from_numpy(variant),
        torch.arange(len(rows)) // probes,
    )
    if not shares.operator.isfinite().any():
        raise DatasetError("the samples do not tell operators from variants")
    names = source.specs[name].names
    return ColumnShares(
        tuple(column for column, kept in zip(names, finite, strict=True) if kept), shares
    )


def variance_claims(source: CheckSource) -> Iterator[Claim]:
    """Yield the claims of the group; they are not measurable with one probe per operator."""
    reason = _no_promise(source)
    for label, name, least in (
        ("response", schema.RESPONSES, MIN_OPERATOR_SHARE),
        ("noise", schema.NOISE_RESPONSES, MIN_NOISE_SHARE),
    ):
        found = cache(partial(_decomposed, source, name))
        needs = (name, schema.IC_TYPES)
        for share, extreme, sign, limit in (
            ("operator", "smallest", ">=", least),
            ("variant", "largest", "<=", MAX_VARIANT_SHARE),
        ):
            yield Claim(
                f"{label}: {share}",
                f"{extreme} share of the {share} in the variance of an invariant {label} column",
                partial(_extreme, found, share, limit, bool(reason)),
                needs,
                reason or f"{sign} {limit:g}",
            )
    fields = cache(partial(_decomposed, source, schema.PER_TIMESTEP))
    for share in ("operator", "variant"):
        yield Claim(
            f"features: {share}",
            f"mean share of the {share} in the variance of the features of the last field",
            partial(_mean, fields, share),
            (schema.PER_TIMESTEP, schema.IC_TYPES),
            "reported only",
        )


def _no_promise(source: CheckSource) -> str:
    """Return why there is no target; empty if there is one."""
    config, baseline = source.config, ParameterSpaceConfig()
    space = dataclasses.replace(
        config.parameter_space, grid_size=baseline.grid_size, base_channels=baseline.base_channels
    )
    operators = -(-config.num_samples // config.probes_per_operator)
    if (
        config.operator != "convolutional"
        or space != baseline
        or config.initial_conditions != InitialConditionConfig()
        or config.num_timesteps > 1
    ):
        return "reported only (not the baseline's operators and variants at T = 1)"
    if operators < PROMISED_OPERATORS:
        return f"reported only (fewer than {PROMISED_OPERATORS:,} operators)"
    if config.num_realizations < PROMISED_REALIZATIONS or config.grid_size < PROMISED_SIDE:
        return f"reported only (M < {PROMISED_REALIZATIONS} or grid < {PROMISED_SIDE})"
    return ""


def _decomposed(source: CheckSource, name: str) -> ColumnShares:
    try:
        return column_shares(source, name)
    except DatasetError as error:
        raise NotMeasurableError(str(error)) from error


def _extreme(
    decomposed: Callable[[], ColumnShares], share: str, limit: float, reported_only: bool
) -> Measurement:
    """Return the smallest share of the operator, or the largest share of the variant."""
    names, shares = decomposed()
    places = [place for place, name in enumerate(names) if is_invariant(name)]
    if not places:
        raise NotMeasurableError("no invariant column is finite")
    values, intervals = getattr(shares, share), getattr(shares, f"{share}_interval")
    chosen = values[places]
    place = places[int(chosen.argmin() if share == "operator" else chosen.argmax())]
    value, (low, high) = float(values[place]), intervals[place].tolist()
    holds = value >= limit if share == "operator" else value <= limit
    text = f"{value:.3f} ({names[place]}, 95 % interval {low:.3f} to {high:.3f})"
    return Measurement(text, value, reported_only or holds)


def _mean(decomposed: Callable[[], ColumnShares], share: str) -> Measurement:
    names, shares = decomposed()
    value = float(getattr(shares, share).nanmean())
    return Measurement(f"{value:.3f} ({len(names)} columns)", value, True)
