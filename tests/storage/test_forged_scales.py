"""Damaged and forged dimension scales are refused, and reading them takes little memory."""

import shutil
import tracemalloc

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.configuration import GenerationConfig
from spinlock.configuration.file_content import StorageConfig
from spinlock.errors import DatasetError
from spinlock.generation import generate
from spinlock.simulation.operator_family import OperatorFamily
from spinlock.storage import dimensions, read_info, schema
from spinlock.storage.dataset_file import DatasetFile
from tests.helpers import small_config

CONFIG = small_config(4, grid_size=24, base_channels=(2, 3), num_timesteps=2, num_realizations=1)
TEXTS, NUMBERS, COLUMN = "parameters/axis", "outputs/timestep", "parameters/values/alpha"
TEXT_BYTES = 1 << 20


class Many(OperatorFamily):
    """Has more choices than an attribute can hold."""

    axes = {"kind": tuple(f"kind_{number}" for number in range(5000))}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("scales") / "data.h5"
    generate(CONFIG, path, progress=False)
    return path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copy(made, tmp_path / "copy.h5")


def replaced(path, name, dtype, **options):
    """Replace a dataset by one of the same shape, whose values are not written."""
    with h5py.File(path, "r+") as file:
        shape = file[name].shape
        del file[name]
        if isinstance(dtype, h5py.h5t.TypeID):
            h5py.h5d.create(file.id, name.encode(), dtype, h5py.h5s.create_simple(shape))
        else:
            file.create_dataset(name, shape, dtype, **options)


def require_refused(path, match, failed="dimension scales"):
    with pytest.raises(DatasetError, match=match):
        read_info(path)
    report = check_dataset(path, replay=0, progress=False)
    assert failed in [row.name for row in report.failures]


def test_a_flipped_byte_of_the_heap_of_texts(path):
    with h5py.File(path) as file:
        element = file[TEXTS].id.get_offset()
    content = bytearray(path.read_bytes())
    # An element is the length of a text, then the address and the number of its place in a heap.
    content[int.from_bytes(content[element + 4 : element + 12], "little")] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError):
        read_info(path)
    with DatasetFile.open(path) as dataset:
        assert "cannot be read" in dataset.layout_problems()[TEXTS].text


@pytest.mark.parametrize("inner", [np.int32, h5py.string_dtype()])
def test_sequences_are_not_texts(path, inner):
    replaced(path, TEXTS, h5py.vlen_dtype(inner))
    require_refused(path, f"{TEXTS} is not text")


@pytest.mark.parametrize("name", [NUMBERS, COLUMN])
def test_numbers_that_numpy_lacks(path, name):
    kind = h5py.h5t.NATIVE_INT64.copy()
    kind.set_size(16)
    replaced(path, name, kind)
    failed = "types" if name == COLUMN else "dimension scales"
    require_refused(path, f"{name} has a type that cannot be read", failed)


def test_a_linked_scale_is_not_stored_locally(path):
    with h5py.File(path, "r+") as file:
        del file[NUMBERS]
        file[NUMBERS] = h5py.SoftLink("/features/timestep")
    require_refused(path, f"{NUMBERS} is reached through a link", "local storage")


def test_texts_are_compared_one_at_a_time(path, monkeypatch):
    """As in files of usual sizes."""
    monkeypatch.setattr(dimensions, "_BYTES_AT_ONCE", 0)
    assert read_info(path).config == CONFIG
    with h5py.File(path, "r+") as file:
        texts = file[TEXTS]
        texts[len(texts) - 1] = "other"
    require_refused(path, f"{TEXTS} does not have the values of the configuration")


def test_long_texts_are_not_read_together(path):
    """In a forged file, all texts may be the same long one, which is stored once."""
    with h5py.File(path, "r+") as file:
        file[TEXTS][...] = ["a" * TEXT_BYTES] * len(file[TEXTS])
    tracemalloc.start()
    try:
        with DatasetFile.open(path) as dataset:
            assert "does not have the values" in dataset.layout_problems()[TEXTS].text
        assert tracemalloc.get_traced_memory()[1] < 4 * TEXT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [NUMBERS, TEXTS, COLUMN])
def test_chunks_that_are_far_larger_than_a_dataset(path, name):
    with h5py.File(path) as file:
        dtype = file[name].dtype
    replaced(path, name, dtype, chunks=(1 << 24,), maxshape=(None,), compression="gzip")
    failed = "shapes" if name == COLUMN else "dimension scales"
    require_refused(path, f"{name} has chunks of", failed)


def test_other_programs_may_choose_chunks(path):
    with h5py.File(path, "r+") as file:
        for name in (NUMBERS, TEXTS, COLUMN):
            data, attributes = file[name], dict(file[name].attrs)
            values, dtype = data[...], data.dtype
            del file[name]
            options = {"chunks": (1024,), "maxshape": (None,), "compression": "gzip"}
            file.create_dataset(name, data=values, dtype=dtype, **options)
            file[name].attrs.update(attributes)
    assert read_info(path).config == CONFIG


@pytest.mark.parametrize(
    "options",
    [{"operator": {"class_path": f"{__name__}.Many"}}, {"num_timesteps": 5000}],
)
def test_names_that_no_attribute_can_hold_are_left_out(tmp_path, options):
    config = GenerationConfig(2, storage=StorageConfig(fields="none"), **options)
    name = schema.DIVERGENCE if "num_timesteps" in options else f"{schema.VALUES}/kind"
    with DatasetFile.create(tmp_path / "new.h5", config, range(2), {}) as dataset:
        assert "names" not in dataset.file[name].attrs
        assert list(dataset.file[schema.IC_FAMILIES].attrs["names"])
        assert dataset.layout_problems() == {}
