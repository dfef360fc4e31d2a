"""Fixtures of the storage tests."""

import shutil

import h5py
import pytest

from spinlock.generation.build import generate
from spinlock.storage import schema
from tests.helpers import reseal
from tests.storage import forgeries
from tests.storage.dataset_damages import RAW
from tests.storage.extended_files import COMPRESSIONS, Made, extended, extracted
from tests.storage.sabotage import CONFIG


@pytest.fixture(scope="session")
def intact(made_once):
    """Compression -> an undamaged file."""

    def write(folder):
        for config in (CONFIG, RAW):
            generate(config, folder / f"{config.storage.compression}.h5", progress=False)

    folder = made_once("intact", write)
    return {name: folder / f"{name}.h5" for name in ("deflate", "none")}


@pytest.fixture
def path(intact, tmp_path):
    return shutil.copy(intact["deflate"], tmp_path / "a.h5")


@pytest.fixture(scope="session")
def made(made_once):
    return Made(made_once("extension", Made.write))


@pytest.fixture(params=COMPRESSIONS)
def compression(request):
    return request.param


@pytest.fixture(params=[extended, extracted], ids=lambda function: function.__name__)
def written_anew(request):
    return request.param


@pytest.fixture
def victims(tmp_path):
    (tmp_path / "home").mkdir()
    made = forgeries.Victims(tmp_path / "home")
    yield made
    made.watch.close()


@pytest.fixture(scope="session")
def original(made_once):
    def write(folder):
        generate(forgeries.CONFIG, folder / "data.h5", progress=False)

    return made_once("local", write) / "data.h5"


@pytest.fixture(scope="session")
def telling(original, tmp_path_factory):
    """A file with telling values in its features and fields, which its digests agree with."""
    path = tmp_path_factory.mktemp("telling") / "data.h5"
    shutil.copy(original, path)
    with h5py.File(path, "r+") as file:
        for name in (schema.PER_TIMESTEP, schema.INITIAL_FEATURES):
            file[name][:, ..., 3] = forgeries.SECRET
        file[schema.INPUTS][:, 0, 5, 5] = forgeries.SECRET
        file[schema.OUTPUTS][:, :, 0, 5, 5] = forgeries.SECRET
        reseal(file, forgeries.CONFIG)
    return path
