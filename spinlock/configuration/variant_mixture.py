"""The mixture of initial conditions: variants with their families and weights.

This module handles names and weights only. `spinlock.simulation.initial_conditions` draws the
fields.
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
# Names appear on terminals and in plots, where other characters could act as commands.
_NAME = re.compile(r"[\w.+-]+", re.ASCII)
# The name of a built-in variant begins with the name of its family.
_BASELINE_FAMILIES = ("gaussian_noise", "band_limited", "sinusoids", "gaussian_blobs")


@dataclass(frozen=True)
class InitialConditionConfig:
    """The mixture of initial conditions.

    Args:
        weights: Weights by variant name, divided by their sum. The variant coordinate of the design
            is cut in this order. A variant without a weight does not occur.
        custom: Custom variants that ``weights`` may name, by name: ``{class_path: ..., init_args:
            {...}, family: ...}``, where ``class_path`` names a subclass of
            `spinlock.InitialCondition`. The family is text; default: the variant's name.

    Raises:
        ConfigurationError: If a weight, a name or a custom variant is not valid. Names it.

    Example:
        >>> config = InitialConditionConfig(weights={"sinusoids": 3, "gaussian_noise_1": 1})
        >>> config.family("gaussian_noise_1")
        'gaussian_noise'
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
        # 1 and 1.0 are the same weight and must give the same fingerprint.
        weights = {name: float(weight) for name, weight in self.weights.items()}
        object.__setattr__(self, "weights", weights)
        if not 0 < sum(self.weights.values()) < math.inf:
            raise ConfigurationError(
                "initial_conditions.weights: weights must sum to a finite positive number, got "
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
                "choose another name"
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
        """Return the family of a variant."""
        if variant in self.custom:
            return str(self.custom[variant].get("family", variant))
        return next(family for family in _BASELINE_FAMILIES if variant.startswith(family))


class Mixture:
    """Variants with positive weight, chosen by a coordinate in [0, 1).

    Args:
        config: Weights and custom variants.

    Example:
        >>> import numpy as np
        >>> mixture = Mixture(InitialConditionConfig({"sinusoids": 3, "gaussian_noise_1": 1}))
        >>> mixture.assign(np.array([0.0, 0.7, 0.8]))
        array([0, 0, 1])
    """

    def __init__(self, config: InitialConditionConfig) -> None:
        used = {name: weight for name, weight in config.weights.items() if weight > 0}
        self.names: tuple[str, ...] = tuple(used)
        self.families: tuple[str, ...] = tuple(config.family(name) for name in used)
        weights = np.array(list(used.values()), dtype=np.float64)
        self.weights: NDArray[np.float64] = weights / weights.sum()

    def assign(self, coordinate: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the variants at some coordinates, by cumulative weight.

        Args:
            coordinate: Coordinates in [0, 1), shape (N,).

        Returns:
            Positions in `names`, shape (N,).
        """
        cuts = np.cumsum(self.weights)[:-1]
        return np.searchsorted(cuts, coordinate, side="right").astype(np.int64)
