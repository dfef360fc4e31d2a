"""Converts arguments to plain data, which a checkpoint can hold."""

import json
import os
from dataclasses import asdict, is_dataclass
from typing import Any

from spinlock.configuration.generation_config import GenerationConfig


def plain(value: Any) -> Any:  # noqa: ANN401 (any argument)
    """Return an argument as plain data.

    Args:
        value: Argument of a model or a data module.

    Returns:
        Text of a path, dictionary of a dataclass, list of a sequence; other values unchanged.

    Example:
        >>> plain((1, 2))
        [1, 2]
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, GenerationConfig):
        return json.loads(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in asdict(value).items()}
    return list(value) if isinstance(value, tuple | list) else value
