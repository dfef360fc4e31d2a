"""Damaged and hostile files: the rows that fail, and what the check refuses to read."""

import json
import shutil
import tracemalloc
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.storage import schema
from tests.checks import names


def flip(path, row, name=schema.OUTPUTS):
    """Flip a bit in the middle of a stored chunk."""
    with h5py.File(path) as file:
        data = file[name]
        chunk = data.id.get_chunk_info_by_coord((row, *(0 for _ in data.shape[1:])))
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        byte = raw.read(1)[0]
        raw.seek(-1, 1)
        raw.write(bytes([byte ^ 0b100]))


@pytest.mark.parametrize("name", [schema.INPUTS, schema.OUTPUTS])
def test_a_flipped_bit_is_found(name, pristine, tmp_path):
    path = tmp_path / "flipped.h5"
    shutil.copy(pristine, path)
    flip(path, 17, name)
    report = check_dataset(path, full=True, replay=0, progress=False)
    digests = report.row("integrity", "sample digests")
    assert not digests.passed
    assert "sample 17" in digests.measured
    assert digests.value == 1


def test_a_chunk_that_is_no_deflate_stream_is_found(pristine, tmp_path):
    path = tmp_path / "garbled.h5"
    shutil.copy(pristine, path)
    with h5py.File(path) as file:
        chunk = file[schema.OUTPUTS].id.get_chunk_info(30)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * 64)
    report = check_dataset(path, full=True, progress=False)
    assert names(report.failures) == {("integrity", "readable"), ("integrity", "sample digests")}
    assert report.row("integrity", "readable").value == 1


@pytest.mark.parametrize("name", [schema.INPUTS, schema.PARAMS])
def test_infinite_values_fail_without_warnings(name, pristine, tmp_path):
    """A user could do nothing about them; the rows that fail say what is wrong."""
    path = Path(shutil.copy(pristine, tmp_path / "infinite.h5"))
    with h5py.File(path, "r+") as file:
        values = file[name][...]
        values[3].flat[0] = np.inf
        file[name][...] = values
    # NumPy warns in the threads of a pool, too.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check_dataset(path, full=True, replay=0, progress=False)
    assert not report.passed
    assert "RuntimeWarning" not in str(report.rows)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_found(share, pristine, tmp_path):
    content = pristine.read_bytes()
    path = tmp_path / "truncated.h5"
    path.write_bytes(content[: int(len(content) * share)])
    report = check_dataset(path, progress=False)
    assert names(report.failures) == {("integrity", "file")}
    assert "truncated" in report.rows[0].measured or "HDF5" in report.rows[0].measured


def test_a_file_without_its_configuration_is_found(pristine, tmp_path):
    path = shutil.copy(pristine, tmp_path / "anonymous.h5")
    with h5py.File(path, "r+") as file:
        del file.attrs["configuration"]
    report = check_dataset(path, progress=False)
    assert names(report.failures) == {("integrity", "file")}
    assert "configuration" in report.rows[0].measured


def test_what_cannot_be_measured_for_damage_fails(pristine, tmp_path):
    path = shutil.copy(pristine, tmp_path / "policy.h5")
    with h5py.File(path, "r+") as file:
        file["parameters/values/update_policy"][:] = b"sideways"
    report = check_dataset(path, replay=0, progress=False)
    row = report.row("liveness", "spread tracks noise_scale")
    assert row.status == "FAIL"
    assert row.measured == "KeyError: 'sideways'"


def test_the_table_contains_no_control_characters(pristine, tmp_path):
    path = shutil.copy(pristine, tmp_path / "commands.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["attributes_digest"] = "\x1b]0;title\x07\n"
    report = check_dataset(path, replay=0, progress=False)
    assert not report.row("integrity", "attributes digest").passed
    assert report.table().replace("\n", "").isprintable()
    assert "\\x1b]0;title\\x07\\n" in report.table()


def claim_samples(file, number):
    configuration = json.loads(file.attrs["configuration"])
    file.attrs["configuration"] = json.dumps(configuration | {"num_samples": number})


def stretch_digests(file, number):
    """Replace the digests by a dataset of any number of rows, for which nothing is stored."""
    shape, attributes = file[schema.DIGESTS].shape, dict(file[schema.DIGESTS].attrs)
    del file[schema.DIGESTS]
    digests = file.create_dataset(schema.DIGESTS, (number, *shape[1:]), "S64", chunks=(1024,))
    digests.attrs.update(attributes)


def drop_digests(file, number):
    del file[schema.DIGESTS]


@pytest.mark.parametrize("change", [claim_samples, stretch_digests, drop_digests])
def test_a_configuration_cannot_claim_more_samples_than_the_file_holds(change, pristine, tmp_path):
    """Memory is not allocated for samples that do not exist."""
    path = shutil.copy(pristine, tmp_path / "many.h5")
    with h5py.File(path, "r+") as file:
        claim_samples(file, 2**30)
        change(file, 2**30)
    tracemalloc.start()
    report = check_dataset(path, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.name, row.status) for row in report.rows] == [("file", "FAIL")]
    assert report.rows[0].measured.startswith("metadata/digests ")
    assert peak < 10e6


def test_fields_that_cannot_be_measured_fail(pristine, monkeypatch):
    def refuse(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr("spinlock.checks.dataset_check.measure_fields", refuse)
    report = check_dataset(pristine, progress=False)
    assert [row.measured for row in report.rows] == ["MemoryError: no memory"]
    assert not report.passed
