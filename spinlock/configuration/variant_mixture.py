"""The mixture of initial conditions: variants, their families and weights, as data.

`spinlock.simulation.initial_conditions` draws their fields; nothing here needs the class of a
variant.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.import_path import check_spec
from spinlock.configuration.validation import check_types
from spinlock.errors import ConfigurationError

BASELINE_WEIGHTS: dict[str, float] = {
    "gaussian_noise_0.25": 0.05,
    "gaussian_noise_0.5": 0.05,
    "gaussian_noise_1": 0.05,
    "gaussian_noise_2": 0.05,
    "gaussian_noise_4": 0.05,
    "band_limited_low": 0.25 / 3,
    "band_limited_mid": 0.25 / 3,
    "band_limited_high": 0.25 / 3,
    "sinusoids": 0.25,
    "gaussian_blobs": 0.25,
}
# Names are shown on terminals and in figures, where others would be commands.
_NAME = re.compile(r"[\w.+-]+", re.ASCII)
# The name of a built-in variant begins with that of its family.
_BASELINE_FAMILIES = ("gaussian_noise", "band_limited", "sinusoids", "gaussian_blobs")


@dataclass(frozen=True)
class InitialConditionConfig:
    """The mixture of initial conditions.

    Args:
        weights: Variant name -> weight, in the order in which the design's coordinate is cut;
            weights are divided by their sum. A variant that is not named does not occur.
        custom: Further variants of the user's own, to be used in ``weights``: name ->
            ``{class_path: ..., init_args: {...}, family: ...}``, where ``class_path`` names a
            subclass of `spinlock.InitialCondition`. The family is text and defaults to the
            variant's name.
    """

    weights: dict[str, float] = field(default_factory=lambda: dict(BASELINE_WEIGHTS))
    custom: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self, "initial_conditions.")
        known = [*BASELINE_WEIGHTS, *self.custom]
        for name, weight in self.weights.items():
            if name not in known:
                raise ConfigurationError(
                    f"initial_conditions.weights: unknown variant {name!r}; known are "
                    f"{', '.join(known)}. Define others under initial_conditions.custom."
                )
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigurationError(
                    f"initial_conditions.weights: {name} must have a finite weight >= 0, "
                    f"got {weight}"
                )
        # As for ranges: 1 and 1.0 must not make two fingerprints.
        weights = {name: float(weight) for name, weight in self.weights.items()}
        object.__setattr__(self, "weights", weights)
        if sum(self.weights.values()) <= 0:
            raise ConfigurationError(
                "initial_conditions.weights: weights must sum to a positive number, got "
                f"{sum(self.weights.values())} over {len(self.weights)} variants"
            )
        for name in self.custom:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    "initial_conditions.custom: names must be ASCII letters, digits, _, ., + or -; "
                    f"got {name!r}"
                )
        clash = sorted(set(self.custom) & set(BASELINE_WEIGHTS))
        if clash:
            raise ConfigurationError(
                f"initial_conditions.custom: {', '.join(clash)} is the name of a built-in variant; "
                "choose another"
            )
        for name, spec in self.custom.items():
            where = f"initial_conditions.custom.{name}"
            check_spec(spec, where, ("family",))
            family = spec.get("family", name)
            if not (isinstance(family, str) and _NAME.fullmatch(family)):
                raise ConfigurationError(
                    f"{where}.family: must be ASCII letters, digits, _, ., + or -; got {family!r}"
                )

    def family(self, variant: str) -> str:
        """The family of a variant."""
        if variant in self.custom:
            return str(self.custom[variant].get("family", variant))
        return next(family for family in _BASELINE_FAMILIES if variant.startswith(family))


class Mixture:
    """The variants in use, with their weights: a coordinate in [0, 1) chooses one.

    Args:
        config: Weights and the user's own variants.
    """

    def __init__(self, config: InitialConditionConfig) -> None:
        used = {name: weight for name, weight in config.weights.items() if weight > 0}
        self.names: tuple[str, ...] = tuple(used)
        self.families: tuple[str, ...] = tuple(config.family(name) for name in used)
        weights = np.array(list(used.values()), dtype=np.float64)
        self.weights: NDArray[np.float64] = weights / weights.sum()

    def assign(self, coordinate: NDArray[np.float64]) -> NDArray[np.int64]:
        """Variants (positions in `names`) at coordinates in [0, 1), by cumulative weight."""
        cuts = np.cumsum(self.weights)[:-1]
        return np.searchsorted(cuts, coordinate, side="right").astype(np.int64)
