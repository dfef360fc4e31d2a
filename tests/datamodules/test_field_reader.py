"""The field reader reads raw chunks in any process and refuses damaged or repacked ones."""

import dataclasses
import multiprocessing
import pickle
import shutil

import h5py
import numpy as np
import pytest

from benchmarks.synthetic import write_synthetic
from spinlock.datamodules import LoaderOptions
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import DatasetError
from spinlock.storage import schema
from tests.datamodules import collect, ready

pytestmark = pytest.mark.slow


def reader(datasets, **options):
    path, config = datasets["single"]
    return FieldReader(path, config, **options)


def test_rows_come_in_the_order_asked_for(datasets):
    rows = np.array([7, 3, 119, 3])
    with h5py.File(datasets["single"][0]) as file:
        expected = {name: file[name][:] for name in (schema.INPUTS, schema.OUTPUTS)}
    for name, values in expected.items():
        np.testing.assert_array_equal(reader(datasets).read(name, rows), values[rows])
    one = reader(datasets).read(schema.OUTPUTS, rows, np.array([0, 1, 1, 0]))
    np.testing.assert_array_equal(one[:, 0], expected[schema.OUTPUTS][rows, [0, 1, 1, 0]])


def _inputs_of(given):
    return given.read(schema.INPUTS, np.array([5])).tobytes()


def test_a_reader_works_in_another_process(datasets):
    """The reader works in a forked process and after pickling."""
    given = reader(datasets)
    expected = _inputs_of(given)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_inputs_of, (given,)) == expected
    assert _inputs_of(pickle.loads(pickle.dumps(given))) == expected
    assert _inputs_of(given) == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_batches_however_they_start(datasets, method):
    options = {"view": "both", "realizations": "all", "batch_size": 16}
    expected = collect(ready(*datasets["steps"], **options).train_dataloader())
    options["loader"] = LoaderOptions(
        num_workers=1, multiprocessing_context=method, prefetch_factor=3
    )
    loader = ready(*datasets["steps"], **options).train_dataloader()
    assert loader.prefetch_factor == 3
    for key, value in collect(loader).items():
        assert value.equal(expected[key]), key


def test_damage_is_named(datasets, tmp_path):
    path, config = datasets["single"]
    shutil.copy(path, tmp_path / "a.h5")
    with h5py.File(path) as file:
        chunk = file[schema.OUTPUTS].id.get_chunk_info_by_coord((4, 0, 1, 0, 0))
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x10]))
    damaged = FieldReader(tmp_path / "a.h5", config)
    damaged.read(schema.OUTPUTS, np.array([3, 5]))
    with pytest.raises(DatasetError, match="outputs/fields of sample 4 is damaged"):
        damaged.read(schema.OUTPUTS, np.array([3, 4, 5]))


def test_a_file_that_is_replaced_is_noticed(datasets, tmp_path):
    path, config = datasets["steps"]
    shutil.copy(path, tmp_path / "a.h5")
    early = FieldReader(tmp_path / "a.h5", config)
    shutil.copy(path, tmp_path / "b.h5")
    (tmp_path / "b.h5").replace(tmp_path / "a.h5")
    with pytest.raises(DatasetError, match=r"was replaced since setup\(\); set the data module up"):
        early.read(schema.INPUTS, np.array([0]))


@pytest.mark.parametrize(
    "packing", [{"compression": "lzf"}, {"compression": "gzip"}, {"chunks": (2, 3, 32, 32)}]
)
def test_a_repacked_file_is_refused(datasets, tmp_path, packing):
    path, config = datasets["steps"]
    shutil.copy(path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        values = file[schema.INPUTS][:]
        del file[schema.INPUTS]
        file.create_dataset(schema.INPUTS, data=values, **packing)
    with pytest.raises(DatasetError, match=r"inputs/fields has .* another program has repacked it"):
        FieldReader(tmp_path / "a.h5", config)


def test_a_chunk_that_was_never_written_is_named(datasets, tmp_path):
    path, config = datasets["steps"]
    shutil.copy(path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        values = file[schema.INPUTS]
        options = {"chunks": values.chunks, "shuffle": True, "compression": "gzip"}
        shape, part = values.shape, values[:7]
        del file[schema.INPUTS]
        file.create_dataset(schema.INPUTS, shape, np.float32, **options)[:7] = part
    with pytest.raises(DatasetError, match="inputs/fields of sample 7 is missing or packed"):
        FieldReader(tmp_path / "a.h5", config)


def test_fewer_samples_than_the_file_holds(datasets):
    path, config = datasets["single"]
    some = FieldReader(path, dataclasses.replace(config, num_samples=10))
    assert some.read(schema.INPUTS, np.array([9])).shape == (1, 3, 32, 32)
    with pytest.raises(IndexError):
        some.read(schema.INPUTS, np.array([10]))


def test_uncompressed_fields(datasets, tmp_path):
    path, config = datasets["single"]
    storage = dataclasses.replace(config.storage, compression="none")
    raw = dataclasses.replace(config, num_samples=12, storage=storage)
    write_synthetic(tmp_path / "a.h5", raw)
    rows = np.array([11, 2])
    with h5py.File(tmp_path / "a.h5") as file:
        expected = file[schema.OUTPUTS][:][rows]
    given = FieldReader(tmp_path / "a.h5", raw)
    np.testing.assert_array_equal(given.read(schema.OUTPUTS, rows), expected)
    one = given.read(schema.OUTPUTS, rows, np.array([1, 0]))
    np.testing.assert_array_equal(one[:, 0], expected[[0, 1], [1, 0]])
    with pytest.raises(DatasetError, match="another program has repacked it"):
        FieldReader(path, raw)
