"""Generation: one complete file, readable by anything, never overwritten, extended when asked."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from spinlock.configuration.file_content import Every, StorageConfig
from spinlock.generation import build as generation, shard_task
from spinlock.generation.build import generate, shard_folder
from spinlock.simulation.sobol_design import make_design
from spinlock.storage import read_info, schema
from spinlock.storage.columns import metadata_columns
from spinlock.storage.schema import dataset_specs
from tests.forks import Messages, in_processes
from tests.generation import CONFIG
from tests.helpers import dataset_contents, parameter_values, small_config


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
    assert set(types) <= set(CONFIG.mixture.names)
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
            assert len(file[spec.name].attrs["dimensions"]) == file[spec.name].ndim
            if spec.chunk is not None:
                assert file[spec.name].chunks == (1, *spec.chunk)
                assert spec.chunk[-2:] == (32, 32)


def test_metadata_agrees_with_the_parameters(dataset):
    with h5py.File(dataset) as file:
        values = parameter_values(file)
        families = file["metadata/ic_families"][:].astype(str)
        types = file["metadata/ic_types"][:].astype(str)
        regimes = file["metadata/noise_regimes"][:].astype(str)
        np.testing.assert_array_equal(
            file["metadata/evolution_policies"][:].astype(str), values["update_policy"].astype(str)
        )
        np.testing.assert_array_equal(file["metadata/grid_sizes"][:], 32)
        np.testing.assert_array_equal(file["metadata/operator_index"][:], np.arange(20))
        for text in ("metadata/ic_types", "parameters/values/activation"):
            assert h5py.check_string_dtype(file[text].dtype).encoding == "utf-8"
        assert list(file["parameters/values/activation"].attrs["names"]) == ["relu", "gelu", "silu"]
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


def test_asking_for_fewer_samples_keeps_the_shards_of_a_longer_run(interrupted):
    path = interrupted
    generate(dataclasses.replace(CONFIG, num_samples=4), path, progress=False)
    assert sorted(p.name for p in shard_folder(CONFIG, path).iterdir()) == [
        "shard-0000000000-0000000008.h5",
        "shard-0000000008-0000000016.h5",
    ]


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


def test_two_processes_build_one_file(tmp_path, dataset):
    path = tmp_path / "a.h5"

    def build():
        with Messages() as logged:
            generate(CONFIG, path)
        return logged

    logs = in_processes(2, build)
    assert sum("computing 20 samples" in text for log in logs for text in log) == 1, logs
    assert dataset_contents(path) == dataset_contents(dataset)


def test_design_quality_counts_each_operator_once(tmp_path):
    config = small_config(8, probes_per_operator=2)
    generate(config, tmp_path / "a.h5", progress=False)
    with h5py.File(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["design_quality"])["discrepancy_points"] == 4
        np.testing.assert_array_equal(file["metadata/operator_index"][:], np.arange(8) // 2)
