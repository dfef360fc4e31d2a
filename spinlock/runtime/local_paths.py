"""Paths that users write: home folders and variables are expanded, and URLs are refused."""

import errno
import os
import re
from pathlib import Path

from spinlock.errors import ConfigurationError

# pathlib merges the slashes of a URL. A scheme has at least two letters.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


def is_url(path: str) -> bool:
    """Return whether a text is a URL.

    Example:
        >>> is_url("s3://data/a.h5"), is_url("data/a.h5")
        (True, False)
    """
    return _URL.match(path) is not None


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of this machine's file system with ``~`` and ``$VARIABLES`` expanded.

    An absolute `Path` is returned as it is, so that a path is expanded once. The leading folders of
    a text that exist as they are written, with ``$`` in their names, are not expanded.

    Args:
        path: Path as a user writes it.

    Raises:
        ConfigurationError: If it is no path or a URL, holds NUL, is too long or a link to itself,
            or names a variable or a user that does not exist.

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
    _require_possible(os.fspath(path))
    if isinstance(path, Path) and path.is_absolute():
        return path
    given = os.fspath(path)
    if is_url(given):
        raise ConfigurationError(f"{given} is a URL; give the path of a local file")
    kept = _as_written(given)
    rest = given[len(kept) :]
    names = [braced or plain for braced, plain in _VARIABLE.findall(rest)]
    if (unknown := next((name for name in names if name not in os.environ), None)) is not None:
        raise ConfigurationError(
            f"{given}: the environment variable {unknown} is not set; set it, or write the path "
            "without it"
        )
    # A variable may itself begin with ~.
    expanded = os.path.expanduser(kept + os.path.expandvars(rest))
    if expanded.startswith("~") and os.path.dirname(expanded):
        raise ConfigurationError(
            f"{given}: there is no home folder of {expanded.partition('/')[0]}; write the path "
            "without ~"
        )
    _require_possible(expanded)
    return Path(expanded)


def _require_possible(path: str) -> None:
    """Refuse a path that no file can have, which functions of `os` report in various ways."""
    try:
        os.stat(path)
    except ValueError:
        problem = "holds a NUL character"
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            return
        problem = "is a link to itself" if error.errno == errno.ELOOP else "is too long"
    else:
        return
    raise ConfigurationError(f"{path[:200]}: {problem}; give another path")


def _as_written(path: str) -> str:
    """Return the longest leading part that exists and has ``$`` in its name, or nothing."""
    ends = [match.start() for match in re.finditer("/", path)]
    parts = [path, *(path[:end] for end in reversed(ends))]
    return next((part for part in parts if "$" in part and os.path.exists(part)), "")
