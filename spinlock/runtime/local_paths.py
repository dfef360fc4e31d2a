"""Paths that users write: home folders and variables are expanded, and URLs are refused."""

import os
import re
from pathlib import Path

from spinlock.errors import ConfigurationError

# pathlib merges the slashes of a URL. A scheme has at least two letters.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of this machine's file system with ``~`` and ``$VARIABLES`` expanded.

    Args:
        path: Path as a user writes it.

    Raises:
        ConfigurationError: If it is no path or a URL, or names a variable or a user that does not exist.

    Example:
        >>> local_path("~/data.h5") == Path.home() / "data.h5"
        True
        >>> local_path("s3://data/a.h5")
        Traceback (most recent call last):
        spinlock.errors.ConfigurationError: s3://data/a.h5 is a URL; give the path of a local file
    """
    # Arguments in a checkpoint can be anything.
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"path: must be text, got {path!r}")
    given = os.fspath(path)
    if _URL.match(given):
        raise ConfigurationError(f"{given} is a URL; give the path of a local file")
    # A variable may itself begin with ~.
    expanded = os.path.expanduser(os.path.expandvars(given))
    if (unknown := _VARIABLE.search(expanded)) is not None:
        raise ConfigurationError(
            f"{given}: the environment variable {unknown[1] or unknown[2]} is not set; set it, or "
            "write the path without it"
        )
    if expanded.startswith("~") and os.path.dirname(expanded):
        raise ConfigurationError(
            f"{given}: there is no home folder of {expanded.partition('/')[0]}; write the path "
            "without ~"
        )
    return Path(expanded)
