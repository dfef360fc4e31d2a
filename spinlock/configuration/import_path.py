"""Imports the classes and functions that a configuration names, if their module is trusted.

A path remains text until a computation needs the object. Importing a module runs its code, so a
path that was read from a file is imported only from this package or from a module that the user
trusts; see docs/security.md.
"""

import importlib
from collections.abc import Collection, Mapping
from typing import TypeVar

from spinlock.errors import ConfigurationError, in_a_line

_T = TypeVar("_T")
_PACKAGE = "spinlock"

#: Modules besides this package that may be imported; None allows every module, because the user
#: wrote the configuration.
Trusted = Collection[str] | None


def imported(path: str, where: str, trusted: Trusted = None) -> object:
    """Import the object that a path names.

    Args:
        path: Import path ``package.module.attribute``.
        where: Name of the setting, for messages.
        trusted: Modules besides this package that may be imported, including their submodules;
            default: every module.

    Raises:
        ConfigurationError: If the module is not trusted, or the path cannot be imported.
    """
    if not is_import_path(path):
        raise ConfigurationError(f"{where}: expected package.module.name, got {path!r}")
    module, _, attribute = path.rpartition(".")
    allowed = trusted is None or any(
        module == name or module.startswith(f"{name}.") for name in (_PACKAGE, *trusted)
    )
    if not allowed:
        raise ConfigurationError(
            f"{where}: {path} is named by a configuration that was read from a file, and importing "
            f"it runs the code of {module}. If you trust that module, use --trust {module} on the "
            f"command line or trust=[{module!r}] in Python"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"{where}: cannot import {path}: {in_a_line(error)}"
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            message += (
                f". Add the folder of {error.name} to the environment variable PYTHONPATH; "
                "`python -m spinlock` also searches the current folder"
            )
        raise ConfigurationError(message) from error


def is_import_path(path: str) -> bool:
    """Whether a text has the form of an absolute import path ``package.name``."""
    parts = path.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def check_spec(spec: Mapping[str, object], where: str, further: Collection[str] = ()) -> None:
    """Check the form of a ``{class_path: ..., init_args: ...}`` mapping without importing anything.

    Args:
        spec: Mapping to check.
        where: Name of the setting, for messages.
        further: Additional keys that the mapping may have.

    Raises:
        ConfigurationError: If the mapping has another form.
    """
    path, arguments = spec.get("class_path"), spec.get("init_args", {})
    named = isinstance(path, str) and is_import_path(path)
    if not (
        named and isinstance(arguments, dict) and {*spec} <= {"class_path", "init_args", *further}
    ):
        keys = "".join(f", {key}: ..." for key in further)
        raise ConfigurationError(
            f"{where}: expected {{class_path: package.Class, init_args: {{...}}{keys}}}, got "
            f"{dict(spec)}"
        )


def instantiate(
    base: type[_T], spec: Mapping[str, object], where: str, trusted: Trusted = None
) -> _T:
    """Build the object that a ``{class_path: ..., init_args: ...}`` mapping describes.

    Args:
        base: Class that the object must be an instance of.
        spec: Mapping that `check_spec` accepts.
        where: Name of the setting, for messages.
        trusted: Modules besides this package that may be imported; default: every module.

    Raises:
        ConfigurationError: If the module is not trusted, or the class cannot be imported, is not a
            subclass of ``base`` or does not accept the arguments.
    """
    path, arguments = str(spec["class_path"]), spec.get("init_args", {})
    cls = imported(path, where, trusted)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigurationError(f"{where}: {path} must be a subclass of {base.__qualname__}")
    if missing := getattr(cls, "__abstractmethods__", None):
        raise ConfigurationError(f"{where}: {path} does not implement {', '.join(sorted(missing))}")
    try:
        made: _T = cls(**arguments)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigurationError(
            f"{where}: {path} does not take these init_args: {in_a_line(error)}"
        ) from error
    return made
