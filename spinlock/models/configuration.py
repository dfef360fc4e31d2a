"""Configurations of parts of a model, as arguments and as what a checkpoint holds of them."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

from spinlock.configuration.validation import check_arguments, structured

Config = TypeVar("Config")


def configured(kind: type[Config], given: Config | Mapping[str, Any] | None) -> Config:
    """An instance of a configuration class: what was given, or made of a checkpoint's dict.

    Args:
        kind: The class.
        given: An instance; its fields, as `primitive` gives them; or None for the defaults.
    """
    if given is None:
        return kind()
    return structured(kind, given) if isinstance(given, Mapping) else given


def kept_arguments(model: type, given: Mapping[str, Any], annotated: type) -> dict[str, Any]:
    """The arguments of a model as a checkpoint holds them: primitives, with the model's class.

    Args:
        model: Class of the model, which LightningCLI needs to read a checkpoint.
        given: Arguments by name.
        annotated: Class whose constructor annotates them.

    Raises:
        ConfigurationError: If an argument has another type than its annotation. Names it.
    """
    kept = {name: primitive(value) for name, value in given.items()}
    check_arguments(vars(annotated)["__init__"], kept)
    return kept | {"_class_path": import_path(model)}


def import_path(kind: type) -> str:
    """Where a class is imported from: its package, if that has it, else its module."""
    package = kind.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(package), kind.__name__, None) is kind
    return f"{package if exported else kind.__module__}.{kind.__qualname__}"


def primitive(value: Any) -> Any:  # noqa: ANN401 (any argument)
    """An argument as checkpoints can hold it: dataclasses as dicts, sequences as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: primitive(item) for name, item in asdict(value).items()}
    return list(value) if isinstance(value, tuple | list) else value
