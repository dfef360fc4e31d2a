"""The whole check: rows that pass, fail or are not measurable, and what is read for them."""

import json
import shutil

import h5py
import pytest
import torch

from spinlock.checks import CheckReport, CheckRow, check_dataset
from spinlock.configuration.file_content import Every, StorageConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import ConfigurationError, DatasetNotFoundError
from spinlock.storage import schema
from tests.checks import make, names

pytestmark = pytest.mark.slow

GROUPS = [
    "integrity",
    "distribution",
    "amplitude",
    "spectrum",
    "design",
    "liveness",
    "features",
    "variance",
    "replay",
]


def test_a_baseline_passes(baseline):
    report = check_dataset(baseline, full=True, progress=False)
    assert report.passed, report.table()
    assert list(dict.fromkeys(row.group for row in report.rows)) == GROUPS
    # At T = 1 there is no temporal feature that could be constant.
    temporal = ("sdf/per_trajectory: constant", "sdf/aggregated: constant")
    variance = {row for row in names(report.rows) if row[0] == "variance"}
    assert names(report.not_measurable) == {("features", name) for name in temporal} | variance
    assert len(names(report.rows)) == len(report.rows), "names are unique"
    family = report.row("distribution", "sinusoids")
    assert (family.target, family.value) == ("25.00% ± 2.00%", pytest.approx(0.25, abs=0.02))
    band = report.row("spectrum", "band_limited_mid")
    assert band.value > 1 - 1e-9
    assert report.row("liveness", "spread tracks noise_scale").value > 0.95
    replay = report.row("replay", "fields")
    assert replay.target.startswith("equal")
    assert replay.measured.startswith("4 of 4 samples equal")


def test_numbers_where_there_is_nothing_to_measure_are_found(baseline, tmp_path):
    path = shutil.copy(baseline, tmp_path / "invented.h5")
    with h5py.File(path, "r+") as file:
        file[schema.AGGREGATED][7, 3] = 0.0
    report = check_dataset(path, replay=0, progress=False)
    found = report.row("features", "sdf/aggregated: missing")
    assert not found.passed
    assert "energy_growth" not in found.measured
    assert "(199 NaN, expected 200)" in found.measured


def test_the_whole_of_trajectories_is_checked(pristine):
    report = check_dataset(pristine, full=True, progress=False)
    assert report.passed, report.table()
    assert {row.group for row in report.not_measurable} == {"variance"}


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
        found = {row for row in names(report.not_measurable) if row[0] != "variance"}
        assert found == {("liveness", "noise amplitude")}


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 1},
        {"num_samples": 5, "num_realizations": 1},
        {"num_samples": 80, "probes_per_operator": 4, "num_realizations": 2},
        {"num_samples": 30, "probes_per_operator": 3, "dynamics": True, "responses": False},
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
