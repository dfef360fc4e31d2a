"""Generation: one complete file, readable by anything, never overwritten, extended when asked."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from spinlock.configuration.file_content import Every, StorageConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import build as generation, shard_task
from spinlock.generation.build import generate, shard_folder
from spinlock.simulation.sobol_design import make_design
from spinlock.storage import read_info, schema
from spinlock.storage.columns import metadata_columns
from spinlock.storage.schema import dataset_specs
from tests.helpers import dataset_contents, small_config

CONFIG = small_config(20)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("generation") / "dataset.h5"
    generate(CONFIG, path, progress=False)
    return path


@pytest.fixture
def copy(dataset, tmp_path):
    return shutil.copy(dataset, tmp_path / "copy.h5")


def test_plain_h5py_reads_it(dataset):
    with h5py.File(dataset, "r") as f:
        features = f["features/sdf/per_timestep/features"][:, 0, :]
        fields = f["outputs/fields"][:]
        types = f["metadata/ic_types"][:].astype(str)
        params = f["parameters/params"][:]
        names = f["features/sdf/per_timestep/features"].attrs["names"]
    assert (features.shape, features.dtype) == ((20, 46), np.float32)
    assert (fields.shape, fields.dtype) == ((20, 5, 3, 32, 32), np.float32)
    assert (params.shape, params.dtype) == ((20, 15), np.float32)
    assert set(types) <= set(schema.dataset_specs(CONFIG)[4].names)
    assert len(types) == 20
    assert list(names[:2]) == ["spatial_mean", "spatial_variance"]
    np.testing.assert_allclose(fields.mean(axis=(1, 2, 3, 4)), features[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, {"outputs/fields": (3, 5, 3, 32, 32), "inputs/fields": (3, 3, 32, 32)}),
        (
            {"num_timesteps": 4, "num_realizations": 2, "channels": 1},
            {
                "outputs/fields": (3, 2, 4, 1, 32, 32),
                "features/sdf/per_timestep/features": (3, 4, 46),
                "features/sdf/per_trajectory/features": (3, 2, 13),
                "features/sdf/aggregated/features": (3, 39),
                "features/sdf/initial/features": (3, 46),
            },
        ),
        (
            {"num_timesteps": 4, "storage": StorageConfig(fields="last", shard_size=8)},
            {"outputs/fields": (3, 5, 1, 3, 32, 32)},
        ),
        (
            {"num_timesteps": 4, "storage": StorageConfig(fields=Every(2), shard_size=8)},
            {"outputs/fields": (3, 5, 2, 3, 32, 32)},
        ),
        (
            {"num_timesteps": 4, "storage": StorageConfig(fields="none", shard_size=8)},
            {"outputs/fields": None, "inputs/fields": None},
        ),
    ],
)
def test_layout(options, shapes, tmp_path):
    config = small_config(3, **options)
    generate(config, tmp_path / "a.h5", progress=False)
    with h5py.File(tmp_path / "a.h5") as file:
        for name, shape in shapes.items():
            assert (file[name].shape if name in file else None) == shape
        for spec in dataset_specs(config):
            assert file[spec.name].attrs["description"] == spec.description
            assert len(file[spec.name].attrs["dimensions"]) == file[spec.name].ndim or (
                spec.name == schema.VALUES
            )
            if spec.chunk is not None:
                assert file[spec.name].chunks == (1, *spec.chunk)
                assert spec.chunk[-2:] == (32, 32)


def test_metadata_agrees_with_the_parameters(dataset):
    with h5py.File(dataset) as file:
        values = file["parameters/values"][:]
        families = file["metadata/ic_families"][:].astype(str)
        types = file["metadata/ic_types"][:].astype(str)
        regimes = file["metadata/noise_regimes"][:].astype(str)
        np.testing.assert_array_equal(
            file["metadata/evolution_policies"][:].astype(str), values["update_policy"].astype(str)
        )
        np.testing.assert_array_equal(file["metadata/grid_sizes"][:], 32)
        np.testing.assert_array_equal(file["metadata/operator_index"][:], np.arange(20))
        assert h5py.check_string_dtype(file["metadata/ic_types"].dtype).encoding == "utf-8"
        assert values.dtype.names == tuple(file["parameters/params"].attrs["names"])
    scale = values["noise_scale"]
    expected = np.where(scale < 0.01, "low", np.where(scale < 0.1, "medium", "high"))
    np.testing.assert_array_equal(regimes, expected)
    assert all(t.startswith(f) for t, f in zip(types, families, strict=True))


def test_root_attributes_tell_where_it_came_from(dataset):
    info = read_info(dataset)
    assert info.config == CONFIG
    assert info.fingerprint == CONFIG.fingerprint
    assert info.provenance["device"][0]["type"] == "cpu"
    assert {"torch", "numpy", "spinlock"} <= set(info.provenance["package_versions"][0])
    assert info.design_quality["max_abs_correlation"] > 0


def test_nothing_is_left_beside_the_file(dataset):
    assert sorted(p.name for p in dataset.parent.iterdir()) == ["dataset.h5", "dataset.h5.lock"]


def test_a_complete_file_is_used_as_it_is(copy, monkeypatch):
    before = copy.stat()
    monkeypatch.setattr(generation, "_build", None)
    generate(CONFIG, copy)
    generate(dataclasses.replace(CONFIG, num_samples=7), copy)
    assert copy.stat().st_mtime_ns == before.st_mtime_ns


def test_extending_computes_only_what_is_missing(dataset, copy, monkeypatch, tmp_path):
    computed = []
    original = shard_task.compute_shard

    def spy(task, *rest):
        computed.extend(range(task.start, task.stop))
        return original(task, *rest)

    monkeypatch.setattr(shard_task, "compute_shard", spy)
    more = dataclasses.replace(CONFIG, num_samples=45)
    generate(more, copy, progress=False)
    assert computed == list(range(20, 45))
    generate(more, tmp_path / "fresh.h5", progress=False)
    assert dataset_contents(copy) == dataset_contents(tmp_path / "fresh.h5")
    first = dataset_contents(dataset)
    assert all(dataset_contents(copy)[name].startswith(first[name]) for name in first)


def test_extending_may_change_the_compression(copy, tmp_path):
    plain = StorageConfig(compression="none", shard_size=8)
    config = dataclasses.replace(CONFIG, num_samples=24, storage=plain)
    generate(config, copy, progress=False)
    generate(dataclasses.replace(CONFIG, num_samples=24), tmp_path / "deflated.h5", progress=False)
    assert dataset_contents(copy) == dataset_contents(tmp_path / "deflated.h5")
    with h5py.File(copy) as file:
        assert file["outputs/fields"].compression is None


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """The path of a dataset whose run was interrupted after two shards."""
    path = tmp_path / "a.h5"
    original = shard_task.compute_shard

    def fail_at_third(task, *rest):
        if task.start >= 16:
            raise KeyboardInterrupt
        return original(task, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shard_task, "compute_shard", fail_at_third)
        with pytest.raises(KeyboardInterrupt):
            generate(CONFIG, path, progress=False)
    return path


def test_an_interrupted_run_goes_on_from_its_shards(dataset, interrupted, monkeypatch):
    path, original = interrupted, shard_task.compute_shard
    assert not path.exists()
    folder = shard_folder(CONFIG, path)
    assert len(list(folder.iterdir())) == 2
    # One shard is damaged in the meantime: it is computed again.
    next(iter(sorted(folder.iterdir()))).write_bytes(b"not a shard")
    computed = []

    def spy(task, *rest):
        computed.append((task.start, task.stop))
        return original(task, *rest)

    monkeypatch.setattr(shard_task, "compute_shard", spy)
    generate(CONFIG, path, progress=False)
    assert computed == [(0, 8), (16, 20)]
    assert dataset_contents(path) == dataset_contents(dataset)
    assert not folder.exists()


def test_a_failure_leaves_no_half_written_file(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("spinlock.simulation.simulator.rollout", fail)
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        generate(CONFIG, tmp_path / "a.h5", progress=False)
    assert re.search(r"while computing samples \d+\.\.\d+", str(caught.value.__notes__))
    assert not (tmp_path / "a.h5").exists()
    assert not list(shard_folder(CONFIG, tmp_path / "a.h5").iterdir())


def test_asking_for_fewer_samples_keeps_the_shards_of_a_longer_run(interrupted):
    path = interrupted
    generate(dataclasses.replace(CONFIG, num_samples=4), path, progress=False)
    assert sorted(p.name for p in shard_folder(CONFIG, path).iterdir()) == [
        "shard-0000000000-0000000008.h5",
        "shard-0000000008-0000000016.h5",
    ]


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


def test_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("spinlock.runtime.output_files.sync", lambda path: order.append(path.name))
    for name in ("replace", "link"):
        function = getattr(os, name)

        def record(source, target, function=function):
            order.append(f"-> {Path(target).name}")
            function(source, target)

        monkeypatch.setattr(os, name, record)
    generate(small_config(2), tmp_path / "a.h5", progress=False)
    renamed = order.index("-> a.h5")
    assert order[renamed - 1].startswith("a.h5")
    assert order[renamed - 1].endswith(".tmp")
    assert order[renamed + 1] == tmp_path.name


def test_a_link_stays_a_link(dataset, tmp_path):
    (tmp_path / "store").mkdir()
    target = shutil.copy(dataset, tmp_path / "store" / "x.h5")
    link = tmp_path / "link.h5"
    link.symlink_to(target)
    generate(dataclasses.replace(CONFIG, num_samples=24), link, progress=False)
    assert link.is_symlink()
    assert read_info(target).config.num_samples == 24


def test_the_default_dtype_of_the_caller_does_not_get_into_the_file(dataset, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        generate(CONFIG, tmp_path / "a.h5", progress=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert dataset_contents(tmp_path / "a.h5") == dataset_contents(dataset)


def test_noise_regimes_of_a_large_design():
    design = make_design(small_config(2000))
    regimes = metadata_columns(small_config(1), design)[schema.NOISE_REGIMES]
    scale = design.values["noise_scale"]
    expected = np.select([scale < 0.01, scale < 0.1], [b"low", b"medium"], b"high")
    np.testing.assert_array_equal(regimes, expected)
    assert min(np.unique(regimes, return_counts=True)[1]) > 300


def test_progress_counts_what_is_computed(tmp_path, capsys):
    generate(CONFIG, tmp_path / "a.h5")
    assert "a.h5: 20/20 samples" in capsys.readouterr().err
    generate(CONFIG, tmp_path / "a.h5")
    assert capsys.readouterr().err == ""


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


def test_two_processes_build_one_file(tmp_path, dataset):
    path = tmp_path / "a.h5"
    code = (
        "import sys, json, logging; logging.basicConfig(level=logging.INFO)\n"
        "from spinlock import GenerationConfig, generate\n"
        "generate(GenerationConfig.from_json(sys.argv[1]), sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, CONFIG.to_json(), str(path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    logs = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    assert sum("computing 20 samples" in log for log in logs) == 1, logs
    assert dataset_contents(path) == dataset_contents(dataset)


def test_design_quality_counts_each_operator_once(tmp_path):
    config = small_config(8, probes_per_operator=2)
    generate(config, tmp_path / "a.h5", progress=False)
    with h5py.File(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["design_quality"])["discrepancy_points"] == 4
        np.testing.assert_array_equal(file["metadata/operator_index"][:], np.arange(8) // 2)
