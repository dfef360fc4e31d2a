"""Configuration of a dataset as typed dataclasses, and the fingerprint of the configuration.

Fields have the names that yaml files use. They are validated on construction, so that bad input is
refused before anything is computed or written.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

from spinlock.configuration.file_content import (
    CustomFeatureConfig,
    Every,
    StorageConfig,
    check_custom_features,
)
from spinlock.configuration.import_path import Trusted, check_spec
from spinlock.configuration.operator_axes import (
    axis_limits,
    declared_axes,
    plain_axis,
    resolve_axes,
)
from spinlock.configuration.parameter_axes import Axis, ParameterSpaceConfig
from spinlock.configuration.parameter_space import ParameterSpace
from spinlock.configuration.validation import check_types, require_at_least, structured
from spinlock.configuration.variant_mixture import InitialConditionConfig, Mixture
from spinlock.errors import ConfigurationError

# Part of every fingerprint. Increase it whenever a code change alters the bytes of a sample.
SIMULATION_VERSION = 2

Precision = Literal["float32", "tf32", "bfloat16"]
# The Sobol sequence has 2^30 points.
MAX_INDEX = 2**30
# Realization and timestep share one word of the random generator's counter; the timestep is in its
# lowest 16 bits.
MAX_REALIZATIONS = MAX_TIMESTEPS = 2**16 - 1
MAX_CHANNELS = 2**10


@dataclass(frozen=True, eq=False)
class GenerationConfig:
    """Configuration that determines every sample of a dataset.

    Args:
        num_samples: Number of samples in the dataset. It does not identify the dataset: the first
            100 of 10,000 samples are the dataset of 100 samples.
        num_realizations: Number of noise realizations M of each trajectory; default: 5.
        num_timesteps: Number of timesteps T of each trajectory; default: 1.
        probes_per_operator: Number of initial conditions P that each operator is applied to; sample
            i is operator ``i // P`` applied to probe ``i % P``. Default: 1.
        channels: Number of channels C of a field; default: 3.
        seed: Seed of the design and of every random draw, in [0, 2^64); default: 42.
        parameter_space: Ranges and choices of the 15 axes, and changes to the axes that the
            operator family adds.
        initial_conditions: Mixture of initial conditions.
        operator: Operator family: ``convolutional`` (random convolutional networks; the default),
            ``transport`` (the same, and each update is followed by an exact flow, which moves,
            smooths and scales the field), or a custom family as ``{class_path: ..., init_args:
            {...}}``, see `spinlock.simulation.operator_family.OperatorFamily`.
        features: Feature set: ``sdf``, which is Summary Descriptor Features 1.0, or
            ``{per_field: [...], per_trajectory: [...]}``, which adds custom features to it.
        responses: Whether files hold response features, which describe what a timestep does to the
            field; default: True.
        dynamics: Whether files hold the dynamics of each operator, which do not depend on an
            initial condition; default: True. Measuring them takes up to a third of the time of
            generation at T = 1.
        precision: Arithmetic of the operators' convolutions; everything else, also the calibration
            of operators, is float32. ``tf32`` has an effect on CUDA devices only. ``bfloat16``
            rounds operands, on any device; see docs/gpu.md.
        block_size: Number of samples of a block, which a CUDA device computes together. Shapes
            decide rounding, so it determines the bytes of samples of a CUDA device, and it is part
            of the fingerprint. Default: 64.
        storage: Which fields are stored, and how.

    Raises:
        ConfigurationError: If a setting is out of range. Names the setting.

    Example:
        >>> config = GenerationConfig(100, num_timesteps=3)
        >>> config.grid_size, config.stored_steps
        (128, (1, 2, 3))
        >>> config.fingerprint == GenerationConfig(5000, num_timesteps=3).fingerprint
        True
    """

    num_samples: int
    num_realizations: int = 5
    num_timesteps: int = 1
    probes_per_operator: int = 1
    channels: int = 3
    seed: int = 42
    parameter_space: ParameterSpaceConfig = field(default_factory=ParameterSpaceConfig)
    initial_conditions: InitialConditionConfig = field(default_factory=InitialConditionConfig)
    operator: Literal["convolutional", "transport"] | dict[str, Any] = "convolutional"
    features: Literal["sdf"] | CustomFeatureConfig = "sdf"
    responses: bool = True
    dynamics: bool = True
    precision: Precision = "float32"
    block_size: int = 64
    storage: StorageConfig = field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        check_types(self)
        check_types(self.storage, "storage.")
        if isinstance(self.operator, dict):
            check_spec(self.operator, "operator")
        _check_count("num_samples", self.num_samples, MAX_INDEX)
        _check_count("num_realizations", self.num_realizations, MAX_REALIZATIONS)
        _check_count("num_timesteps", self.num_timesteps, MAX_TIMESTEPS)
        _check_count("probes_per_operator", self.probes_per_operator, MAX_INDEX)
        _check_count("channels", self.channels, MAX_CHANNELS)
        _check_count("block_size", self.block_size, MAX_INDEX)
        shard_size = self.storage.shard_size
        if shard_size is not None:
            _check_count("storage.shard_size", shard_size, MAX_INDEX)
        if not 0 <= self.seed < 2**64:
            raise ConfigurationError(f"seed: must lie in [0, 2^64), got {self.seed}")
        if shard_size is not None and shard_size % self.block_size:
            raise ConfigurationError(
                f"storage.shard_size: must be a multiple of block_size={self.block_size}, got "
                f"{shard_size}"
            )
        if isinstance(self.storage.fields, Every):
            _check_count("storage.fields.every", self.storage.fields.every, self.num_timesteps)
        if isinstance(self.features, CustomFeatureConfig):
            check_custom_features(self.features)

    def __eq__(self, other: object) -> bool:
        # Trust is not a setting: a stored configuration equals the one that the user wrote.
        if not isinstance(other, GenerationConfig):
            return NotImplemented
        return self.to_json() == other.to_json()

    @cached_property
    def operator_axes(self) -> dict[str, Axis]:
        """Axes that the operator family adds, by name.

        Raises:
            ConfigurationError: If the family cannot be imported, or an axis is not valid.
        """
        space = self.parameter_space
        declared = self._declared_axes()
        limits = axis_limits(self.operator)
        return resolve_axes(declared, space.operator_axes, space.base_axes, limits)

    @property
    def axes(self) -> dict[str, Axis]:
        """All axes of the parameter space, by name."""
        return self.parameter_space.base_axes | self.operator_axes

    def _declared_axes(self) -> dict[str, Axis] | None:
        """Return the axes that the operator family declares; None if the configuration does."""
        return declared_axes(self.operator, self.trusted_modules)

    @cached_property
    def space(self) -> ParameterSpace:
        """Parameter space of the operators, with all axes."""
        return ParameterSpace(self.axes)

    @cached_property
    def mixture(self) -> Mixture:
        """Variants of the initial conditions and their weights."""
        return Mixture(self.initial_conditions)

    @property
    def grid_size(self) -> int:
        """Side length of the grid in pixels."""
        return self.parameter_space.grid_size[0]

    @property
    def stored_steps(self) -> tuple[int, ...]:
        """Timesteps, in 1..T, whose fields are stored."""
        match self.storage.fields:
            case "all":
                return tuple(range(1, self.num_timesteps + 1))
            case "last":
                return (self.num_timesteps,)
            case "none":
                return ()
            case Every(every=k):
                return tuple(range(k, self.num_timesteps + 1, k))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the settings that determine the bytes of a sample.

        It covers neither ``num_samples`` nor the packing of samples (``compression``,
        ``shard_size``, ``layout``).
        """
        content = self._plain()
        del content["num_samples"]
        for packing in ("compression", "shard_size", "layout"):
            del content["storage"][packing]
        content["simulation_version"] = SIMULATION_VERSION
        # Keys are not sorted, because the variant coordinate is cut in the order of the weights.
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def trusted_modules(self) -> Trusted:
        """Modules besides this package that class paths may name; None allows every module."""
        return None

    @property
    def vouched_modules(self) -> tuple[str, ...]:
        """Modules that a file of this dataset may name, because the user's configuration does."""
        specs = [*self.initial_conditions.custom.values()]
        specs += [self.operator] if isinstance(self.operator, dict) else []
        paths = [str(spec["class_path"]) for spec in specs]
        if isinstance(self.features, CustomFeatureConfig):
            paths += [*self.features.per_field, *self.features.per_trajectory]
        return tuple(dict.fromkeys(path.rpartition(".")[0] for path in paths))

    def to_json(self) -> str:
        """Return the configuration as JSON that `from_json` reads."""
        return json.dumps(self._plain())

    def _plain(self) -> dict[str, Any]:
        """Return the settings as nested dictionaries, without fields that a subclass adds."""
        content = dataclasses.asdict(self)
        axes = {name: plain_axis(axis) for name, axis in self.operator_axes.items()}
        content["parameter_space"]["operator_axes"] = axes
        return {field.name: content[field.name] for field in dataclasses.fields(GenerationConfig)}

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Build a configuration from the JSON that `to_json` returns.

        Args:
            text: JSON object.

        Raises:
            ConfigurationError: If the text is not JSON or is not a valid configuration.
        """
        try:
            values = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"the configuration is not valid JSON: {error}") from error
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from nested mappings of plain data, checking every key and type.

        Nothing is imported here: class paths remain text until the axes of the operator family, the
        fingerprint or samples are needed.

        Args:
            values: Values by field name; sections are mappings.

        Raises:
            ConfigurationError: If a key is unknown or a value has the wrong type. Names the key.

        Example:
            >>> GenerationConfig.from_dict({"num_samples": 10, "storage": {"fields": "last"}}).seed
            42
        """
        return structured(cls, values)


def _check_count(name: str, value: int, largest: int) -> None:
    require_at_least({name: value}, 1)
    if value > largest:
        raise ConfigurationError(f"{name}: must be at most {largest}, got {value}")
