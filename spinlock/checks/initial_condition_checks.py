"""Initial conditions: shares of the mixture, imposed variances, spectral isolation."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.check_results import CheckRow, Claim
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.field_statistics import FieldStatistics
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.simulation.initial_conditions import BandLimited
from spinlock.storage import schema

# Tolerances of shares, as fractions of all samples.
FAMILY_TOLERANCE, VARIANT_TOLERANCE = 0.02, 0.01
# The design keeps counts within 3 of nominal, for each probe; in a small dataset that is more.
COUNT_TOLERANCE = 3
# Mean and variance are imposed in float64 and stored in float32.
VARIANCE_TOLERANCE = MEAN_TOLERANCE = 1e-5
IN_BAND_SHARE = 0.999
_NONE = "no sample has this variant, or none could be read"
_CUSTOM = "the variant's class cannot be imported, or is not trusted (--trust MODULE)"


def distribution_rows(source: CheckSource) -> Iterator[CheckRow]:
    """Shares of families, of the variants of families that have several, and of unknown labels."""
    mixture = source.mixture
    families = list(dict.fromkeys(mixture.families))
    for family in families:
        members = [i for i, name in enumerate(mixture.families) if name == family]
        weight = float(mixture.weights[members].sum())
        yield _share_row(source, schema.IC_FAMILIES, family, weight, FAMILY_TOLERANCE)
        if len(members) > 1:
            for i in members:
                name, weight = mixture.names[i], float(mixture.weights[i])
                yield _share_row(source, schema.IC_TYPES, name, weight, VARIANT_TOLERANCE)


def share_tolerance(config: GenerationConfig, tolerance: float) -> float:
    """What a share of samples may differ from its weight: so much, or the share of a few counts."""
    return max(tolerance, COUNT_TOLERANCE * config.probes_per_operator / config.num_samples)


def _share_row(
    source: CheckSource, column: str, label: str, weight: float, tolerance: float
) -> CheckRow:
    num = source.num_samples
    allowed = share_tolerance(source.config, tolerance)
    claim = Claim(
        "distribution",
        label,
        f"{label}: share of samples",
        f"{weight:.2%} ± {allowed:.2%}",
    )
    if reason := source.lacks(column):
        return claim.not_measurable(reason)
    count = int((source.column(column) == label.encode()).sum())
    share = count / num
    measured = f"{share:.2%} ({count} of {num})"
    return claim.result(measured, share, abs(share - weight) <= allowed)


def amplitude_rows(source: CheckSource, fields: FieldStatistics) -> Iterator[CheckRow]:
    """Variance of every initial condition, by variant, and its mean."""
    for name in source.mixture.names:
        text = f"{name}: variance of each sample"
        if name not in source.distributions:
            yield Claim("amplitude", name, text, "").not_measurable(_CUSTOM)
            continue
        nominal = source.distributions[name].variance
        target = f"{nominal:g} ± {VARIANCE_TOLERANCE:.0e} of it"
        claim = Claim("amplitude", name, text, target)
        measured = fields.variance[source.variants == name.encode()]
        measured = measured[~np.isnan(measured)]
        yield _variance_row(source, claim, measured, nominal)
    claim = Claim(
        "amplitude",
        "zero mean",
        "largest |mean| of a channel, in standard deviations",
        f"<= {MEAN_TOLERANCE:.0e}",
    )
    if reason := source.lacks(schema.INPUTS):
        yield claim.not_measurable(reason)
        return
    read = fields.variance > 0
    if not read.any():
        yield claim.not_measurable("no sample could be read")
        return
    worst = float((fields.channel_mean[read] / np.sqrt(fields.variance[read])).max())
    yield claim.result(f"{worst:.1e}", worst, worst <= MEAN_TOLERANCE)


def _variance_row(
    source: CheckSource, claim: Claim, measured: NDArray[np.float64], nominal: float
) -> CheckRow:
    if reason := source.lacks(schema.INPUTS):
        return claim.not_measurable(reason)
    if not len(measured):
        return claim.not_measurable(_NONE)
    deviation = np.abs(measured / nominal - 1)
    worst = float(deviation.max())
    text = f"mean {measured.mean():.7g}, largest deviation {worst:.1e} of it"
    return claim.result(text, float(measured.mean()), worst <= VARIANCE_TOLERANCE)


def spectrum_rows(source: CheckSource, fields: FieldStatistics) -> Iterator[CheckRow]:
    """Of each band-limited variant, the share of its power inside its passband."""
    bands = tuple(BandLimited.PASSBANDS)
    for name, variant in source.distributions.items():
        if not isinstance(variant, BandLimited):
            continue
        low, high = BandLimited.PASSBANDS[variant.band]
        claim = Claim(
            "spectrum",
            name,
            f"{name}: least share of a sample's power in {low:.4f}..{high:.4f} cycles/pixel",
            f"> {IN_BAND_SHARE:.1%}",
        )
        if reason := source.lacks(schema.INPUTS):
            yield claim.not_measurable(reason)
            continue
        shares = fields.band_power[source.variants == name.encode()]
        shares = shares[~np.isnan(shares).any(axis=1)]
        if not len(shares):
            yield claim.not_measurable(_NONE)
            continue
        least = float(shares[:, bands.index(variant.band)].min())
        means = ", ".join(
            f"{band} {share:.4%}" for band, share in zip(bands, shares.mean(axis=0), strict=True)
        )
        yield claim.result(
            f"{least:.6%} (mean over samples: {means})", least, least > IN_BAND_SHARE
        )
