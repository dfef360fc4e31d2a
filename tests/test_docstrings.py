"""The examples in docstrings run, and public classes and functions have one."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import spinlock
from spinlock.datamodules import BaseDataModule
from tests.test_architecture import MODULES

# Packages whose public names users call.
PACKAGES = ("features", "checks", "generation", "storage", "datamodules", "callbacks", "models")


@pytest.mark.parametrize("name", [name for name in MODULES if name != "spinlock.__main__"])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
    assert list(tmp_path.iterdir()) == [], "an example leaves files behind"


def public():
    """Public classes and functions by their full names."""
    names = {f"spinlock.{name}": name for name in spinlock._MODULES}
    found = {name: getattr(spinlock, short) for name, short in names.items()}
    for package in (import_module(f"spinlock.{name}") for name in PACKAGES):
        for name in package.__all__:
            found[f"{package.__name__}.{name}"] = getattr(package, name)
    return {name: value for name, value in found.items() if needs_example(value)}


def needs_example(value):
    """Exceptions and the base class of data modules are documented where they are used."""
    if inspect.isclass(value):
        return not issubclass(value, Exception) and value is not BaseDataModule
    return inspect.isfunction(value)


@pytest.mark.parametrize("name", public())
def test_public_names_have_an_example(name):
    value = public()[name]
    assert ">>> " in (inspect.getdoc(value) or ""), Path(inspect.getfile(value)).name
