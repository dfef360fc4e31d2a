"""Objects of a user's own, named in yaml by ``class_path`` and ``init_args``."""

import importlib
from collections.abc import Mapping
from typing import TypeVar

from spinlock.errors import ConfigurationError

_T = TypeVar("_T")


def instantiate(base: type[_T], spec: Mapping[str, object], where: str) -> _T:
    """Make the object that a configuration describes.

    Args:
        base: What it must be a subclass of.
        spec: ``{class_path: package.Class, init_args: {...}}``; ``init_args`` may be left out.
        where: The setting, for messages.

    Raises:
        ConfigurationError: If there is no such class, it is no subclass, or it does not take the
            arguments.
    """
    path, arguments = spec.get("class_path"), spec.get("init_args", {})
    known = {"class_path", "init_args"}
    valid = isinstance(path, str) and "." in path and isinstance(arguments, dict)
    if not (valid and set(spec) <= known):
        raise ConfigurationError(
            f"{where}: expected {{class_path: package.Class, init_args: {{...}}}}, got {spec}"
        )
    module, _, attribute = str(path).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{where}: cannot import {path}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigurationError(f"{where}: {path} must be a subclass of {base.__qualname__}")
    try:
        made: _T = cls(**arguments)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigurationError(
            f"{where}: {path} does not take these init_args: {error}"
        ) from error
    return made
