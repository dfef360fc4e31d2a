"""Checks of initial conditions: shares of variants, variance and mean, spectral bands."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError
from spinlock.checks.field_statistics import FieldStatistics
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.simulation.initial_conditions import BandLimited
from spinlock.storage import schema

# Tolerances of shares, as fractions of all samples.
FAMILY_TOLERANCE, VARIANT_TOLERANCE = 0.02, 0.01
# The design keeps the counts of each probe within 3 of nominal, which dominates for small datasets.
COUNT_TOLERANCE = 3
# Mean and variance are normalized in float64 and stored in float32.
VARIANCE_TOLERANCE = MEAN_TOLERANCE = 1e-5
IN_BAND_SHARE = 0.999
_BANDS = tuple(BandLimited.PASSBANDS)


def share_tolerance(config: GenerationConfig, tolerance: float) -> float:
    """Return the allowed deviation of a share of samples from its weight.

    Args:
        config: Configuration of the dataset.
        tolerance: Allowed deviation in a large dataset.
    """
    return max(tolerance, COUNT_TOLERANCE * config.probes_per_operator / config.num_samples)


def distribution_claims(source: CheckSource) -> Iterator[Claim]:
    """Yield the shares of families, and of variants in families with several variants."""
    mixture = source.config.mixture
    weights = dict(zip(mixture.names, mixture.weights.tolist(), strict=True))
    for family in dict.fromkeys(mixture.families):
        members = [
            name for name, of in zip(mixture.names, mixture.families, strict=True) if of == family
        ]
        weight = sum(weights[name] for name in members)
        yield _share_claim(source, schema.IC_FAMILIES, family, weight, FAMILY_TOLERANCE)
        for name in members if len(members) > 1 else ():
            yield _share_claim(source, schema.IC_TYPES, name, weights[name], VARIANT_TOLERANCE)


def _share_claim(
    source: CheckSource, column: str, label: str, weight: float, tolerance: float
) -> Claim:
    allowed = share_tolerance(source.config, tolerance)

    def measure() -> Measurement:
        number = int((source.column(column) == label.encode()).sum())
        share = number / source.num_samples
        text = f"{share:.2%} ({number} of {source.num_samples})"
        return Measurement(text, share, abs(share - weight) <= allowed)

    target = f"{weight:.2%} ± {allowed:.2%}"
    return Claim(label, f"{label}: share of samples", measure, (column,), target)


def amplitude_claims(source: CheckSource, fields: FieldStatistics) -> Iterator[Claim]:
    """Yield the variance of the initial conditions of each variant, and their mean."""
    for name in source.config.mixture.names:
        variant = source.distributions.get(name)
        yield Claim(
            name,
            f"{name}: variance of each initial condition",
            partial(_variance, source, fields, name),
            (schema.INPUTS,),
            f"{variant.variance:g} ± {VARIANCE_TOLERANCE:.0e} (relative)" if variant else "",
        )
    yield Claim(
        "zero mean",
        "largest |mean| of a channel of an initial condition, in standard deviations",
        partial(_zero_mean, fields),
        (schema.INPUTS,),
        f"<= {MEAN_TOLERANCE:.0e}",
    )


def _of_variant(source: CheckSource, fields: FieldStatistics, name: str) -> NDArray[np.void]:
    """Return the numbers of the samples of a variant that were read."""
    numbers: NDArray[np.void] = fields.numbers[source.variants == name.encode()]
    numbers = numbers[~np.isnan(numbers["variance"])]
    if not len(numbers):
        raise NotMeasurableError("the file has no readable sample of this variant")
    return numbers


def _variance(source: CheckSource, fields: FieldStatistics, name: str) -> Measurement:
    if name not in source.distributions:
        raise NotMeasurableError(
            "the class of the variant cannot be imported, or is not trusted (--trust MODULE)"
        )
    measured = _of_variant(source, fields, name)["variance"]
    worst = float(np.abs(measured / source.distributions[name].variance - 1).max())
    text = f"mean {measured.mean():.7g}, largest relative deviation {worst:.1e}"
    return Measurement(text, float(measured.mean()), worst <= VARIANCE_TOLERANCE)


def _zero_mean(fields: FieldStatistics) -> Measurement:
    read = fields.numbers[fields.numbers["variance"] > 0]
    if not len(read):
        raise NotMeasurableError("no sample could be read")
    worst = float((read["channel_mean"] / np.sqrt(read["variance"])).max())
    return Measurement(f"{worst:.1e}", worst, worst <= MEAN_TOLERANCE)


def spectrum_claims(source: CheckSource, fields: FieldStatistics) -> Iterator[Claim]:
    """Yield the share of power inside the passband of each band-limited variant."""
    for name, variant in source.distributions.items():
        if isinstance(variant, BandLimited):
            low, high = BandLimited.PASSBANDS[variant.band]
            yield Claim(
                name,
                f"{name}: smallest share of power in {low:.4f}..{high:.4f} cycles/pixel",
                partial(_band_share, source, fields, name, variant.band),
                (schema.INPUTS,),
                f"> {IN_BAND_SHARE:.1%}",
            )


def _band_share(source: CheckSource, fields: FieldStatistics, name: str, band: str) -> Measurement:
    shares = _of_variant(source, fields, name)["band_power"]
    least = float(shares[:, _BANDS.index(band)].min())
    means = zip(_BANDS, shares.mean(axis=0), strict=True)
    text = f"{least:.6%} (mean over samples: {', '.join(f'{b} {s:.4%}' for b, s in means)})"
    return Measurement(text, least, least > IN_BAND_SHARE)
