"""Constructor arguments of models as configuration objects, and as plain data for checkpoints."""

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from spinlock.configuration.plain_data import plain
from spinlock.configuration.validation import check_arguments, structured

Config = TypeVar("Config")


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
        ConfigurationError: An argument has another type than its annotation. Names the argument.
    """
    arguments = {name: plain(value) for name, value in given.items()}
    check_arguments(vars(annotated)["__init__"], arguments)
    package = model.__module__.rpartition(".")[0]
    is_exported = getattr(sys.modules.get(package), model.__name__, None) is model
    module = package if is_exported else model.__module__
    return arguments | {"_class_path": f"{module}.{model.__qualname__}"}
