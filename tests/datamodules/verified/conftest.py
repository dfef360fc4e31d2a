"""An undamaged file, what is served of it, and copies to damage."""

import shutil

import pytest

from spinlock.generation import generate
from tests.datamodules.verified import CONFIG, RAW, VIEWS, served


@pytest.fixture(scope="session")
def intact(made_once):
    """Map each compression to an undamaged file."""

    def write(folder):
        for config in (CONFIG, RAW):
            generate(config, folder / f"{config.storage.compression}.h5", progress=False)

    folder = made_once("verified", write)
    return {name: folder / f"{name}.h5" for name in ("deflate", "none")}


@pytest.fixture(scope="session")
def batches(intact):
    """Map each view to all samples of the undamaged file."""
    return {view: served(intact["deflate"], view) for view in VIEWS}


@pytest.fixture
def path(intact, tmp_path):
    return shutil.copy(intact["deflate"], tmp_path / "a.h5")
