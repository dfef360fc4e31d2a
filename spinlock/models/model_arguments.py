"""Constructor arguments of models as configuration objects, and as plain data for checkpoints."""

import math
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from spinlock import contract
from spinlock.configuration.plain_data import plain
from spinlock.configuration.validation import check_arguments, shown, structured
from spinlock.errors import ConfigurationError, DatasetError

Config = TypeVar("Config")

# Largest sizes. Codes and latent dimensions are those that a file of tokens may have.
_MOST = {
    "num_features": 1 << 20,
    "num_dynamics": 1 << 20,
    "num_initial_features": 1 << 20,
    "num_variants": 1 << 16,
    "latent_dim": 1 << 12,
    "hidden_dims": 1 << 16,
    "codebook_size": 1 << 16,
}
# Smallest sizes other than 1.
_LEAST = {"num_dynamics": 0, "num_initial_features": 0}

# Argument of a model: names in the data module that it is the number of.
_NAMES_OF_SIZES = {
    "num_features": "feature_names",
    "num_dynamics": "dynamics_names",
    "num_initial_features": "initial_feature_names",
    "num_variants": "variant_names",
}


def configured(kind: type[Config], given: Config | Mapping[str, Any] | None) -> Config:
    """Return an instance of a configuration class.

    Args:
        kind: Configuration class, a dataclass.
        given: An instance, a mapping of its fields such as a checkpoint holds, or None for the
            defaults.
    """
    if given is None:
        return kind()
    return structured(kind, given) if isinstance(given, Mapping) else given


def plain_arguments(model: type, given: Mapping[str, Any], annotated: type) -> dict[str, Any]:
    """Return the arguments of a model as plain data, with the import path of its class.

    A checkpoint with plain data loads with ``weights_only=True``, and LightningCLI finds the model
    by the import path.

    Args:
        model: Class of the model.
        given: Arguments by name. Dataclasses become dicts, and sequences become lists.
        annotated: Class whose constructor annotates the arguments.

    Raises:
        ConfigurationError: An argument has another type than its annotation, or is out of range.
            Names the argument.
    """
    arguments = {name: plain(value) for name, value in given.items()}
    check_arguments(vars(annotated)["__init__"], arguments)
    _check_ranges(arguments)
    package = model.__module__.rpartition(".")[0]
    is_exported = getattr(sys.modules.get(package), model.__name__, None) is model
    module = package if is_exported else model.__module__
    return arguments | {"_class_path": f"{module}.{model.__qualname__}"}


def _check_ranges(arguments: Mapping[str, Any]) -> None:
    """Check that sizes can be built, and that the learning rate is positive."""
    for name, most in _MOST.items():
        given = arguments.get(name)
        sizes = given if isinstance(given, list) else [given]
        for size in sizes:
            if size is not None and not (_LEAST.get(name, 1) <= size <= most):
                least = _LEAST.get(name, 1)
                raise ConfigurationError(f"{name}: must lie in {least}..{most}, got {shown(size)}")
    rate = arguments.get("learning_rate")
    if rate is not None and not 0 < rate < math.inf:
        raise ConfigurationError(f"learning_rate: must be finite and positive, got {shown(rate)}")


def data_sizes(trainer: object, given: Mapping[str, int | None], *, reader: str) -> dict[str, int]:
    """Return the sizes of a model, from the data module where they were not given.

    Args:
        trainer: Trainer with a data module.
        given: ``num_features``, ``num_dynamics``, ``num_initial_features`` and ``num_variants``, as
            the model's arguments; None for those of the data module.
        reader: Class name of the model, for messages.

    Raises:
        ConfigurationError: The data module has another number of variants.
        ContractError: A size was not given, and the data module lacks the names. Dynamics are
            optional.
    """
    sizes = {}
    for size, names in _NAMES_OF_SIZES.items():
        number = given[size]
        if number is None and size == "num_dynamics":
            number = len(contract.known_property(trainer, names) or ())
        elif number is None:
            number = len(contract.data_attribute(trainer, names, reader=reader))
        sizes[size] = number
    known = contract.known_property(trainer, "variant_names")
    # One group of variants stands for a model that does not distinguish them.
    if known is not None and sizes["num_variants"] not in (1, len(known)):
        raise ConfigurationError(
            f"num_variants: the model has {sizes['num_variants']} variants, the data module has "
            f"{len(known)}; set model.num_variants to {len(known)}"
        )
    return sizes


def stored_sizes(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of the model in a checkpoint.

    Args:
        checkpoint: Loaded checkpoint. Its author is not trusted.

    Raises:
        DatasetError: If it has none.
    """
    stored = checkpoint.get("hyper_parameters")
    arguments = stored if isinstance(stored, Mapping) else {}
    sizes = {size: arguments.get(size) for size in _NAMES_OF_SIZES}
    if missing := [size for size, number in sizes.items() if type(number) is not int]:
        raise DatasetError(
            f"the checkpoint's hyperparameters lack {', '.join(missing)}: it is not that of a "
            "trained model of this package. A subclass must not ignore them in "
            "save_hyperparameters()"
        )
    return {size: int(number) for size, number in sizes.items() if number is not None}
