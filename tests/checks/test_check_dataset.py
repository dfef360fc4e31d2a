"""The whole check: rows that pass, fail or are not measurable, and what is read for them."""

import json
import shutil
import tracemalloc

import h5py
import numpy as np
import pytest
import torch

from spinlock.checks import CheckReport, CheckRow, check_dataset
from spinlock.configuration.generation_config import CustomFeatureConfig, Every, StorageConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import ConfigurationError, DatasetNotFoundError
from spinlock.generation import generate
from spinlock.storage import schema
from tests.helpers import small_config

GROUPS = [
    "integrity",
    "distribution",
    "amplitude",
    "spectrum",
    "design",
    "liveness",
    "features",
    "replay",
]


def names(rows):
    return {(row.group, row.name) for row in rows}


def test_a_baseline_passes(baseline):
    report = check_dataset(baseline, full=True, progress=False)
    assert report.passed, report.table()
    assert list(dict.fromkeys(row.group for row in report.rows)) == GROUPS
    # At T = 1 there is no temporal feature that could be constant.
    temporal = ("sdf/per_trajectory: constant", "sdf/aggregated: constant")
    assert names(report.not_measurable) == {("features", name) for name in temporal}
    assert len(names(report.rows)) == len(report.rows), "names are unique"
    family = report.row("distribution", "sinusoids")
    assert (family.target, family.value) == ("25.00% ± 2.00%", pytest.approx(0.25, abs=0.02))
    band = report.row("spectrum", "band_limited_mid")
    assert band.value > 1 - 1e-9
    assert report.row("liveness", "spread tracks noise_scale").value > 0.95
    replay = report.row("replay", "fields")
    assert replay.target.startswith("bitwise")
    assert replay.measured.startswith("4 of 4 samples bitwise equal")


def test_numbers_where_there_is_nothing_to_measure_are_found(baseline, tmp_path):
    path = shutil.copy(baseline, tmp_path / "invented.h5")
    with h5py.File(path, "r+") as file:
        file[schema.AGGREGATED][7, 3] = 0.0
    report = check_dataset(path, replay=0, progress=False)
    found = report.row("features", "sdf/aggregated: missing")
    assert not found.passed
    assert "energy_growth" not in found.measured
    assert "(499 NaN, expected 500)" in found.measured


def test_the_whole_of_trajectories_is_checked(pristine):
    report = check_dataset(pristine, full=True, progress=False)
    assert report.passed, report.table()
    assert not report.not_measurable


def test_a_report_says_the_same_in_every_form(pristine):
    report = check_dataset(pristine, replay=1, progress=False)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["passed"] is True
    assert [row["name"] for row in plain["rows"]] == [row.name for row in report.rows]
    assert {row["status"] for row in plain["rows"]} == {"pass"}
    lines = report.table().splitlines()
    for row in report.rows:
        assert any(row.claim in line and row.measured in line for line in lines)
    assert lines[-1].startswith(f"PASSED: {len(report.rows)} of {len(report.rows)} claims hold")


def test_rows_that_are_not_measurable_neither_pass_nor_fail():
    good = CheckRow("a", "one", "", "", "", 1.0, passed=True)
    bad = CheckRow("a", "two", "", "", "", 2.0, passed=False)
    absent = CheckRow("a", "three", "", "", "", None, passed=False, measurable=False)
    assert CheckReport((good, absent)).passed
    assert not CheckReport((good, bad, absent)).passed
    assert CheckReport((good, bad, absent)).failures == (bad,)
    assert CheckReport((good, absent)).not_measurable == (absent,)
    assert [row.status for row in (good, bad, absent)] == ["pass", "FAIL", "not measurable"]
    with pytest.raises(KeyError, match="one"):
        CheckReport((good,)).row("a", "four")


FIELDS = [
    ("amplitude", "zero mean"),
    ("spectrum", "band_limited_low"),
    ("liveness", "outputs change"),
    ("liveness", "realizations differ"),
    ("liveness", "spread tracks noise_scale"),
    ("liveness", "noise amplitude"),
    ("integrity", "finite fields"),
    ("replay", "initial conditions"),
    ("replay", "fields"),
]


def make(tmp_path, num_samples=40, **options):
    path = tmp_path / "data.h5"
    options.setdefault("storage", StorageConfig(shard_size=160))
    config = small_config(num_samples, channels=1, block_size=20, **options)
    generate(config, path, progress=False)
    return path


@pytest.mark.parametrize("fields", ["none", "last", Every(2)])
def test_what_is_not_stored_is_not_measurable(fields, tmp_path):
    storage = StorageConfig(fields=fields, shard_size=40)
    mixture = InitialConditionConfig({"gaussian_noise_1": 1.0, "band_limited_low": 1.0})
    options = {"num_timesteps": 4, "num_realizations": 2, "initial_conditions": mixture}
    path = make(tmp_path, 16, **options, storage=storage)
    report = check_dataset(path, full=True, progress=False)
    assert report.passed, report.table()
    if fields == "none":
        assert set(FIELDS) <= names(report.not_measurable)
        row = report.row("liveness", "outputs change")
        assert row.measured == "not measurable: fields not stored"
        assert report.row("replay", "features").passed
    else:
        assert names(report.not_measurable) == {("liveness", "noise amplitude")}


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 1},
        {"num_samples": 5, "num_realizations": 1},
        {"num_samples": 80, "probes_per_operator": 4, "num_realizations": 2},
        {"initial_conditions": InitialConditionConfig({"sinusoids": 3.0}), "num_timesteps": 2},
        {
            "initial_conditions": InitialConditionConfig(
                {"gaussian_noise_1": 1.0, "gaussian_blobs": 2.0}
            ),
            "grid_size": 8,
            "storage": StorageConfig(compression="none", shard_size=40),
        },
    ],
    ids=lambda options: ",".join(options),
)
def test_datasets_of_other_configurations_pass(options, tmp_path):
    report = check_dataset(make(tmp_path, **options), full=True, progress=False)
    assert report.passed, report.table()


def test_targets_come_from_the_stored_configuration(tmp_path):
    weights = {"gaussian_noise_4": 1.0, "gaussian_blobs": 3.0}
    options = {"initial_conditions": InitialConditionConfig(weights), "num_realizations": 1}
    path = make(tmp_path, 160, grid_size=8, **options)
    report = check_dataset(path, replay=0, progress=False)
    assert report.row("distribution", "gaussian_noise").target == "25.00% ± 2.00%"
    assert report.row("distribution", "gaussian_blobs").target == "75.00% ± 2.00%"
    assert report.row("amplitude", "gaussian_noise_4").value == pytest.approx(4)


def test_without_full_outputs_are_sampled_from_every_variant(pristine, monkeypatch):
    monkeypatch.setattr("spinlock.checks.checked_file._MAX_SAMPLED", 40)
    report = check_dataset(pristine, replay=0, progress=False)
    assert report.passed
    assert report.row("integrity", "sample digests").measured == "0 (of 40 samples read)"
    finite = report.row("integrity", "finite fields").measured
    assert finite == "0 in inputs/fields of 160 samples, outputs/fields of 40 samples"
    assert "of 40)" in report.row("liveness", "outputs change").measured
    full = check_dataset(pristine, full=True, replay=0, progress=False)
    assert full.row("integrity", "sample digests").measured == "0 (of 160 samples read)"


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
        values = file[schema.VALUES][:]
        values["update_policy"][:] = b"sideways"
        file[schema.VALUES][:] = values
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


REPLAYED = {
    schema.INPUTS: "initial conditions",
    schema.OUTPUTS: "fields",
    schema.PER_TIMESTEP: "features",
    schema.PER_TRAJECTORY: "features",
    schema.AGGREGATED: "features",
    schema.INITIAL_FEATURES: "features",
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
    assert report.row("replay", part).measured.startswith("0 of 2 samples bitwise equal")


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
            elif name in (schema.PER_TRAJECTORY, schema.AGGREGATED):
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
    assert report.row("replay", "features").measured.startswith("1 of 1 samples bitwise")
    assert report.row("features", "custom/per_timestep: range").passed

    def refuse(*_):
        raise ConfigurationError("cannot import it")

    monkeypatch.setattr("spinlock.checks.replay.Simulator", refuse)
    report = check_dataset(path, replay=1, trust=trust, progress=False)
    assert report.passed
    row = report.row("replay", "features")
    assert row.measured == "not measurable: cannot import it"


def test_datasets_of_other_filters_are_read(pristine, tmp_path):
    """A file that a user repacked holds the same content: digests do not depend on filters."""
    path = shutil.copy(pristine, tmp_path / "repacked.h5")
    with h5py.File(path, "r+") as file:
        for name in (schema.INPUTS, schema.OUTPUTS):
            values, attributes = file[name][:], dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=values, chunks=True, compression="lzf")
            file[name].attrs.update(attributes)
    assert check_dataset(path, full=True, replay=1, progress=False).passed


def test_what_is_asked_for_wrongly_is_refused(pristine, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        check_dataset(tmp_path / "none.h5", progress=False)
    with pytest.raises(ConfigurationError, match="replay: must be at least 0, got -1"):
        check_dataset(pristine, replay=-1, progress=False)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="device"):
            check_dataset(pristine, device="cuda", progress=False)
