"""Replay: recomputed samples are compared with the stored ones, exactly or within tolerances."""

import json
import shutil

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.configuration.file_content import CustomFeatureConfig, StorageConfig
from spinlock.errors import ConfigurationError
from spinlock.storage import schema
from tests.checks import make, names

pytestmark = pytest.mark.slow

REPLAYED = {
    schema.INPUTS: "initial conditions",
    schema.OUTPUTS: "fields",
    schema.PER_TIMESTEP: "features",
    schema.PER_TRAJECTORY: "features",
    schema.AGGREGATED: "features",
    schema.INITIAL_FEATURES: "features",
    schema.RESPONSES: "features",
    schema.NOISE_RESPONSES: "features",
    schema.DIVERGENCE: "features",
}


@pytest.mark.parametrize(
    ("name", "part"), REPLAYED.items(), ids=lambda name: name.replace("/", " ")
)
def test_replay_finds_the_last_bit(name, part, pristine, tmp_path):
    path = shutil.copy(pristine, tmp_path / "nudged.h5")
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        file[name][:] = np.nextafter(values, np.float32(np.inf))
    report = check_dataset(path, replay=2, progress=False)
    rows = {row for group, row in names(report.failures) if group == "replay"}
    assert rows == {part}
    assert report.row("replay", part).measured.startswith("0 of 2 samples equal")


def elsewhere(pristine, tmp_path):
    """Copy the file as if another device had computed it."""
    path = shutil.copy(pristine, tmp_path / "elsewhere.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["device"] = json.dumps([{"type": "cuda", "name": "another"}])
    return path


@pytest.mark.parametrize(("factor", "holds"), [(1 + 1e-4, True), (1 + 1e-2, False)])
def test_across_devices_replay_allows_rounding(factor, holds, pristine, tmp_path):
    path = elsewhere(pristine, tmp_path)
    with h5py.File(path, "r+") as file:
        for name in REPLAYED:
            values = file[name][:]
            # What has diverged after the first timestep is not compared.
            if name == schema.OUTPUTS:
                values[:, :, 1:] += 1
            elif name in (schema.PER_TRAJECTORY, schema.AGGREGATED, schema.DIVERGENCE):
                values += 1
            file[name][:] = values * np.float32(factor)
    report = check_dataset(path, replay=3, progress=False)
    for part in ("initial conditions", "fields"):
        row = report.row("replay", part)
        assert "rtol 0.001, atol 0.0001" in row.target
        assert row.passed == holds
    assert report.row("replay", "features").passed


def test_across_devices_later_steps_are_not_comparable(tmp_path):
    storage = StorageConfig(fields="last", shard_size=40)
    path = elsewhere(make(tmp_path, 8, num_timesteps=3, storage=storage), tmp_path)
    report = check_dataset(path, replay=1, progress=False)
    assert "another device" in report.row("replay", "fields").measured
    assert not report.row("replay", "fields").measurable


def test_features_that_cannot_be_imported_are_not_replayed(tmp_path, monkeypatch):
    features = CustomFeatureConfig(per_field=("tests.features.custom_features.mean_modulus",))
    path = make(tmp_path, 6, features=features)
    trust = ["tests.features.custom_features"]
    report = check_dataset(path, replay=1, trust=trust, progress=False)
    assert report.passed, report.table()
    assert report.row("replay", "features").measured.startswith("1 of 1 samples equal")
    assert report.row("features", "custom/per_timestep: range").passed

    def refuse(*_):
        raise ConfigurationError("cannot import it")

    monkeypatch.setattr("spinlock.checks.replay.Simulator", refuse)
    report = check_dataset(path, replay=1, trust=trust, progress=False)
    assert report.passed
    row = report.row("replay", "features")
    assert row.measured == "not measurable: cannot import it"


@pytest.mark.parametrize(
    "probes", [2, *(pytest.param(number, marks=pytest.mark.repeated) for number in (1, 3))]
)
def test_dynamics_are_those_of_the_samples_operators(probes, tmp_path):
    options = {"num_realizations": 1, "grid_size": 24, "dynamics": True}
    path = make(tmp_path, 7, probes_per_operator=probes, **options)
    report = check_dataset(path, replay=7, progress=False)
    assert report.row("replay", "dynamics").measured.startswith("7 of 7 samples equal")
    with h5py.File(path, "r+") as file:
        values = file[schema.DYNAMICS][:]
        values[1] = np.nextafter(values[1], np.float32(np.inf))
        file[schema.DYNAMICS][:] = values
    report = check_dataset(path, replay=7, progress=False)
    assert {row for group, row in names(report.failures) if group == "replay"} == {"dynamics"}
    changed = ", ".join(f"sample {index}" for index in range(probes, 2 * probes))
    measured = report.row("replay", "dynamics").measured
    assert measured.startswith(f"{7 - probes} of 7 samples equal")
    assert measured.endswith(f"outside the tolerance: {changed}")


@pytest.mark.parametrize(("factor", "holds"), [(1 + 1e-3, True), (1.1, False)])
def test_across_devices_dynamics_are_compared_at_any_t(factor, holds, tmp_path):
    path = make(tmp_path, 4, num_timesteps=2, grid_size=24, dynamics=True)
    path = elsewhere(path, tmp_path)
    with h5py.File(path, "r+") as file:
        file[schema.DYNAMICS][:] = file[schema.DYNAMICS][:] * np.float32(factor)
        file[schema.RESPONSES][:, 1] += 1
        file[schema.TRANSPORT_RESPONSES][:] += 1
    report = check_dataset(path, replay=2, progress=False)
    assert report.row("replay", "dynamics").passed == holds
    assert report.row("replay", "features").passed, "later timesteps and jumps are not compared"


@pytest.mark.parametrize("resolved", [False, True])
def test_across_devices_noise_is_compared_if_rounding_does_not_hide_it(resolved, tmp_path):
    path = elsewhere(make(tmp_path, 40, num_realizations=2, grid_size=24), tmp_path)
    with h5py.File(path, "r+") as file:
        place = file[schema.NOISE_RESPONSES].attrs["names"].tolist().index("noise_rel")
        values = file[schema.NOISE_RESPONSES][:]
        strong = values[:, place] >= -4.5
        assert 0 < strong.sum() < len(strong)
        values[strong == resolved] += 0.1
        file[schema.NOISE_RESPONSES][:] = values
    report = check_dataset(path, replay=40, progress=False)
    assert report.row("replay", "features").passed != resolved
