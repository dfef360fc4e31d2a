"""Generation refuses what it must not replace, and a failure leaves nothing half-written."""

import dataclasses
import re

import h5py
import pytest

from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import shard_task
from spinlock.generation.build import generate
from tests.generation import CONFIG
from tests.helpers import dataset_contents, small_config


def test_a_failure_leaves_no_half_written_file(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("spinlock.simulation.operator_runs.rollout", fail)
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        generate(CONFIG, tmp_path / "a.h5", progress=False)
    assert re.search(r"while computing samples \d+\.\.\d+", str(caught.value.__notes__))
    assert not (tmp_path / "a.h5").exists()
    assert not list(tmp_path.glob("a.h5.parts*"))


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigurationError, match="device: torch knows no device 'gpu'"):
        generate(CONFIG, tmp_path / "new" / "a.h5", device="gpu", progress=False)
    assert not list(tmp_path.iterdir())


def test_dropout_of_whole_layers_is_refused_before_anything_is_written(tmp_path):
    config = small_config(2, base_channels=(1, 4))
    with pytest.raises(ConfigurationError, match=r"could silence all channels .* base_channels=1"):
        generate(config, tmp_path / "new" / "a.h5", progress=False)
    assert not list(tmp_path.iterdir())
    # A file with this configuration can still be opened.
    assert type(config).from_json(config.to_json()) == config


def test_a_file_that_appears_during_the_build_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    original = shard_task.compute_shard

    def intrude(task, *rest):
        path.write_text("precious")
        return original(task, *rest)

    monkeypatch.setattr(shard_task, "compute_shard", intrude)
    with pytest.raises(DatasetError, match="was created by another program while the dataset"):
        generate(CONFIG, path, progress=False)
    assert path.read_text() == "precious"


def test_a_failing_assembly_leaves_no_file_and_goes_on_later(tmp_path, monkeypatch, dataset):
    path = tmp_path / "a.h5"
    with monkeypatch.context() as patch:
        patch.setattr("spinlock.storage.assemble.seal", lambda dataset: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(CONFIG, path, progress=False)
    assert not path.exists()
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(shard_task, "compute_shard", None)
    generate(CONFIG, path, progress=False)
    assert dataset_contents(path) == dataset_contents(dataset)


def drop(name):
    def change(file):
        del file[name]

    return change


def shorten(file):
    column = file["metadata/operator_index"][:-1]
    del file["metadata/operator_index"]
    file["metadata/operator_index"] = column


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("outputs/fields"), "outputs/fields is missing"),
        (drop("features/sdf/initial/features"), "features/sdf/initial/features is missing"),
        (drop("metadata"), "metadata/ic_types is missing"),
        (shorten, r"metadata/operator_index has the shape \(19,\), expected \(20,\)"),
        (lambda f: f.attrs.__delitem__("fingerprint"), "lacks the root attribute.* fingerprint"),
        (lambda f: f.attrs.__delitem__("device"), "lacks the root attribute.* device"),
        (lambda f: f.attrs.__setitem__("schema_version", "9"), "has schema version 9"),
        (lambda f: f.attrs.__setitem__("configuration", "{}"), "configuration is not valid"),
        (lambda f: f.attrs.__setitem__("configuration", "[1]"), "configuration is not valid"),
        (lambda f: f.attrs.__setitem__("configuration", 5), "configuration must be printable text"),
        (lambda f: f.attrs.__setitem__("device", "nonsense"), "device is not valid JSON"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(change, message, copy):
    with h5py.File(copy, "r+") as file:
        change(file)
    before = copy.read_bytes()
    with pytest.raises(DatasetError, match=message) as caught:
        generate(CONFIG, copy)
    assert "copy.h5" in str(caught.value)
    assert copy.read_bytes() == before


def test_another_dataset_is_named_and_left_alone(copy):
    before = copy.read_bytes()
    other = dataclasses.replace(CONFIG, seed=43, num_realizations=4)
    with pytest.raises(DatasetError) as caught:
        generate(other, copy)
    assert "num_realizations: 5 there, 4 asked for" in str(caught.value)
    assert "seed: 42 there, 43 asked for" in str(caught.value)
    assert copy.read_bytes() == before


def test_files_that_are_no_dataset_are_left_alone(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(DatasetError, match=r"text\.h5 is not a readable HDF5 file"):
        generate(CONFIG, text)
    assert text.read_text() == "not HDF5"
    with pytest.raises(DatasetError, match="is a directory"):
        generate(CONFIG, tmp_path)
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["x"] = 1
    before = foreign.read_bytes()
    with pytest.raises(DatasetError, match="no Spinlock dataset: it lacks the root attribute"):
        generate(CONFIG, foreign)
    assert foreign.read_bytes() == before
