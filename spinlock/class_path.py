"""Objects of a user's own, named in yaml by ``class_path`` and ``init_args``."""

import importlib
from collections.abc import Mapping
from typing import TypeVar

from spinlock.errors import ConfigurationError

_T = TypeVar("_T")


def imported(path: str, where: str) -> object:
    """What an import path names.

    Args:
        path: ``package.module.attribute``.
        where: The setting, for messages.

    Raises:
        ConfigurationError: If it cannot be imported.
    """
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{where}: cannot import {path}: {error}") from error


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
    named = isinstance(path, str) and "." in path and all(path.split("."))
    if not (named and isinstance(arguments, dict) and set(spec) <= known):
        raise ConfigurationError(
            f"{where}: expected {{class_path: package.Class, init_args: {{...}}}}, got {spec}"
        )
    cls = imported(str(path), where)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigurationError(f"{where}: {path} must be a subclass of {base.__qualname__}")
    if missing := getattr(cls, "__abstractmethods__", None):
        raise ConfigurationError(f"{where}: {path} does not implement {', '.join(sorted(missing))}")
    try:
        made: _T = cls(**arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"{where}: {path} does not take these init_args: {error}"
        ) from error
    return made
