"""Reads yaml that users write, also where it is hostile."""

import os
from pathlib import Path
from typing import Any

import yaml

from spinlock.errors import ConfigurationError, in_a_line

# Values that a yaml text may stand for. Nested aliases may stand for more than memory holds.
_MOST_VALUES = 100_000


def read_yaml(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401 (any yaml)
    """Return the content of a yaml file, in UTF-8 under any locale.

    Raises:
        ConfigurationError: If it cannot be read or is not yaml. Names the file.
    """
    try:
        # Reading a FIFO or a device would not end.
        if os.path.exists(path) and not os.path.isfile(path):
            raise ConfigurationError(f"{path}: is not a regular file; name a yaml file")
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a yaml file") from error
    return parsed_yaml(content, os.fspath(path))


def parsed_yaml(text: str | bytes, name: str) -> Any:  # noqa: ANN401 (any yaml)
    """Return the content of a yaml text.

    Args:
        text: Text.
        name: Name of its source, with which errors begin.

    Raises:
        ConfigurationError: If it is not yaml, or stands for too many values.

    Example:
        >>> parsed_yaml("a: [1, 2]", "--data")
        {'a': [1, 2]}
    """
    try:
        content = yaml.safe_load(text)
        if _expanded(content, {}) > _MOST_VALUES:
            raise ConfigurationError(
                f"{name}: stands for more than {_MOST_VALUES} values, by aliases that repeat "
                "others; write fewer"
            )
        return content
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigurationError):
            raise
        problem = (
            in_a_line(error) if isinstance(error, ValueError) else "values are nested too deeply"
        )
        raise ConfigurationError(f"{name}: is not valid yaml: {problem}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        problem = getattr(error, "problem", None) or in_a_line(error)
        raise ConfigurationError(f"{name}{where}: is not valid yaml: {problem}") from error


def _expanded(value: object, known: dict[int, int]) -> int:
    """Return the number of values that a yaml text stands for, with aliases written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        # An alias within the value that it names stands for infinitely many.
        known[id(value)] = _MOST_VALUES
        known[id(value)] = 1 + sum(_expanded(item, known) for item in items)
    return known[id(value)]
