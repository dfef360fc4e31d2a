"""A script beside the clone imports the package of an editable install."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools")
BACKEND = Path(__file__).parent.parent / "scripts" / "build_backend.py"


@pytest.fixture
def install(tmp_path):
    """A function that runs a script with the package of a clone installed in a folder."""
    spec = importlib.util.spec_from_file_location("build_backend", BACKEND)
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    clone = tmp_path / "spinlock"
    (clone / "spinlock").mkdir(parents=True)
    (clone / "spinlock" / "__init__.py").write_text("PLACE = 'clone'\n")
    wheel = tmp_path / "spinlock-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("spinlock-1.dist-info/RECORD", "spinlock-1.dist-info/RECORD,,\n")
    backend.add_finder(wheel, clone)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    return tmp_path


def place(folder):
    """Where a script in a folder imports the package from."""
    code = (
        f"import site, sys; sys.path.insert(0, {str(folder)!r}); "
        f"site.addsitedir({str(folder / 'site')!r}); import spinlock; "
        "print(getattr(spinlock, 'PLACE', None))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_clone_is_no_namespace_package(install):
    assert place(install) == "clone"
    (install / "site" / "_spinlock_beside_clone.pth").unlink()
    assert place(install) == "None", "what setuptools alone gives"


def test_a_package_of_that_name_on_the_path_wins(install):
    (install / "spinlock" / "__init__.py").write_text("PLACE = 'own'\n")
    assert place(install) == "own"


def test_uninstalling_removes_the_finder(install):
    listed = (install / "site" / "spinlock-1.dist-info" / "RECORD").read_text().splitlines()
    names = {line.partition(",")[0] for line in listed}
    assert {"_spinlock_beside_clone.py", "_spinlock_beside_clone.pth"} <= names
