"""Fixtures of the tests of outputs."""

import shutil

import pytest

from spinlock.checks import CheckReport
from spinlock.commands import plot
from spinlock.generation.build import generate
from spinlock.report import report_builder as build
from spinlock.storage import read_info
from tests.outputs.writing import CONFIG


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "data.h5"
    generate(CONFIG, path, progress=False)
    return path


@pytest.fixture(scope="session")
def info(built):
    return read_info(built)


@pytest.fixture
def folder(built, info, tmp_path, monkeypatch):
    """The working folder, which holds a copy of the dataset; reading and checking are instant."""
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(built, folder / "data.h5")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(build, "check_dataset", lambda path, trust, progress: CheckReport(()))
    monkeypatch.setattr(build, "report_plots", lambda source: [])
    for module in (build, plot):
        monkeypatch.setattr(module, "read_info", lambda path: info)
    return folder
