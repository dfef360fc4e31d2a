"""A small dataset, generated once, and copies of it."""

import shutil

import pytest

from spinlock.generation.build import generate
from tests.generation import CONFIG


@pytest.fixture(scope="session")
def dataset(made_once):
    def write(folder):
        generate(CONFIG, folder / "dataset.h5", progress=False)

    return made_once("generation", write) / "dataset.h5"


@pytest.fixture
def copy(dataset, tmp_path):
    return shutil.copy(dataset, tmp_path / "copy.h5")
