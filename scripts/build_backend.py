"""The build backend: setuptools, whose editable install can be imported from beside the clone.

An editable install of setuptools finds a package after `sys.path`. If a script lies in the same
folder as the clone, and the clone is named ``spinlock``, Python takes the clone for a namespace
package of that name, and the import of the package fails. The wheel of an editable install
therefore gets a finder that prefers the package to a namespace package.
"""

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 (the hooks of the backend)

_NAME = "_spinlock_beside_clone"
_FINDER = '''"""Finds the package spinlock where its clone looks like a namespace package."""

import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

INIT = {init!r}


class Finder:
    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname != "spinlock":
            return None
        found = PathFinder.find_spec(fullname, path)
        # A namespace package has no file.
        is_namespace = found is not None and found.origin is None
        return spec_from_file_location(fullname, INIT) if is_namespace else None


sys.meta_path.insert(0, Finder)
'''


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, str | list[str] | None] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel of an editable install; see PEP 660."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    add_finder(Path(wheel_directory, name), Path(__file__).resolve().parent.parent)
    return name


def add_finder(wheel: Path, clone: Path) -> None:
    """Add the finder to a wheel, which is changed in place.

    Args:
        wheel: Wheel of an editable install.
        clone: Folder that contains the folder ``spinlock`` of the package.
    """
    files = {
        f"{_NAME}.py": _FINDER.format(init=str(clone / "spinlock" / "__init__.py")),
        f"{_NAME}.pth": f"import {_NAME}\n",
    }
    changed = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(changed, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                content += "".join(_record(name, text) for name, text in files.items()).encode()
            new.writestr(item, content)
        for name, text in files.items():
            new.writestr(name, text)
    shutil.move(changed, wheel)


def _record(name: str, text: str) -> str:
    """Return the line of a file in the list of installed files."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"{name},sha256={digest},{len(text.encode())}\n"
