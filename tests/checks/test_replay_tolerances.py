"""Files of other devices in TF32 and bfloat16: honest ones pass the replay, wrong ones do not."""

import json

import h5py
import numpy as np
import pytest
import torch

from benchmarks.replay_tolerances import (
    PRECISIONS,
    mark_as_computed_on_a_gpu,
    rounding_of_a_gpu,
)
from spinlock.checks import check_dataset, replay
from spinlock.checks.replay_tolerances import tolerance
from spinlock.configuration.file_content import StorageConfig
from spinlock.generation import generate
from spinlock.simulation import operator_weights
from spinlock.simulation.provenance import provenance
from spinlock.storage import schema
from tests.helpers import small_config

pytestmark = pytest.mark.slow

COUNT = 12
OPTIONS = {
    "num_realizations": 2,
    "dynamics": True,
    "block_size": 4,
    "base_channels": (6, 12),
    "storage": StorageConfig(shard_size=COUNT),
}


@pytest.fixture(scope="module", params=PRECISIONS)
def files(request, tmp_path_factory):
    """A file of an emulated GPU, and a wrong one, of other operators and noise."""
    folder = tmp_path_factory.mktemp(request.param)
    config = small_config(COUNT, precision=request.param, **OPTIONS)
    with pytest.MonkeyPatch.context() as patch, rounding_of_a_gpu(request.param):
        generate(config, folder / "honest.h5", device="cpu", progress=False)
        # Other words for the weights; design, initial conditions and noise are the same.
        drawn = operator_weights.symmetric_uniform
        patch.setattr(
            operator_weights,
            "symmetric_uniform",
            lambda seed, *rest, **options: drawn(seed + 1, *rest, **options),
        )
        generate(config, folder / "wrong.h5", device="cpu", progress=False)
    for name in ("honest", "wrong"):
        mark_as_computed_on_a_gpu(folder / f"{name}.h5")
    return folder


def replayed(path):
    report = check_dataset(path, replay=COUNT, device="cpu", progress=False)
    return {row.name: row for row in report.rows if row.group == "replay"}


def test_an_honest_file_passes_and_each_value_alone_would_not(files, monkeypatch):
    rows = replayed(files / "honest.h5")
    assert all(row.passed for row in rows.values()), rows
    assert "root-mean-square" in rows["fields"].target
    monkeypatch.setattr(replay, "tolerance", lambda part, *_: tolerance(part, "float32", ()))
    rows = replayed(files / "honest.h5")
    assert "rtol 0.001" in rows["fields"].target
    assert not rows["fields"].passed


def test_every_sample_of_other_operators_is_caught(files, monkeypatch):
    """They have the same parameters, initial conditions and noise, and other weights."""
    with h5py.File(files / "honest.h5") as one, h5py.File(files / "wrong.h5") as two:
        np.testing.assert_array_equal(one[schema.INPUTS][:], two[schema.INPUTS][:])
    caught, original = [], replay._Comparison.result

    def counted(comparison):
        caught.append(len(comparison.differing))
        return original(comparison)

    monkeypatch.setattr(replay._Comparison, "result", counted)
    rows = replayed(files / "wrong.h5")
    assert [row.passed for row in rows.values()] == [True, False, False, False]
    initial, fields, features, dynamics = caught
    assert (initial, fields) == (0, COUNT)
    # Statistics of two operators with the same parameters are alike.
    assert features > 0.75 * COUNT
    assert dynamics > 0


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_operators_and_noise_are_caught_in_updates_of_any_size(gain, precision):
    """Relative to the field, an update with dt = 1e-3 would hide a wrong operator."""
    generator = np.random.default_rng(0)
    initial, operator, other = generator.normal(size=(3, 2, 32, 32))
    noise = generator.normal(size=(3, 2, 32, 32))
    allowed = tolerance("fields", precision, {"cpu", "cuda"})

    def fields(output, eta):
        return (initial + gain * (output + 0.01 * eta)).astype(np.float32)

    expected = fields(operator, noise)
    rounded = operator + 0.5 * allowed.norm * generator.normal(size=operator.shape)
    assert allowed.holds(fields(rounded, noise), expected, initial)
    assert not allowed.holds(fields(other, noise), expected, initial)
    assert not allowed.holds(fields(operator, noise[::-1]), expected, initial)
    assert not allowed.holds(np.full_like(expected, np.nan), expected, initial)


@pytest.mark.parametrize(
    ("precision", "devices", "wide"),
    [
        ("float32", {"cpu", "cuda"}, False),
        ("tf32", {"cpu"}, False),
        ("tf32", {"cpu", "cuda"}, True),
        ("tf32", {"cuda"}, True),
        ("bfloat16", {"cpu"}, True),
    ],
)
def test_tolerances_are_wide_only_where_operands_are_rounded(precision, devices, wide):
    parts = ("fields", "features", "dynamics")
    assert all((tolerance(part, precision, devices).norm is not None) == wide for part in parts)
    assert tolerance("initial conditions", precision, devices).norm is None


def test_only_samples_that_were_computed_here_must_be_equal(tmp_path):
    config = small_config(4, num_realizations=1, grid_size=24)
    generate(config, tmp_path / "a.h5", device="cpu", progress=False)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        (here,) = json.loads(file.attrs["device"])
        records = [here | {"samples": "0..1"}, {"type": "cuda", "samples": "2..3"}]
        file.attrs["device"] = json.dumps(records)
        values = file[schema.OUTPUTS][:]
        values[2:] *= np.float32(1 + 1e-5)
        file[schema.OUTPUTS][:] = values

    def row():
        rows = check_dataset(tmp_path / "a.h5", replay=4, device="cpu", progress=False)
        return rows.row("replay", "fields")

    found = row()
    assert found.passed
    assert found.target.startswith("2 of 4 samples equal")
    assert found.measured.startswith("2 of 4 samples equal")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file[schema.OUTPUTS][1] = np.nextafter(values[1], np.float32(np.inf))
    assert row().measured.endswith("outside the tolerance: sample 1")


class Source:
    """A file in TF32 whose samples several devices computed, as far as `replay` asks it."""

    def __init__(self, config, devices):
        self.config = config
        packages = provenance(config, torch.device("cpu"))["package_versions"]
        self.attributes = {"device": json.dumps(devices), "package_versions": packages}


def origin(monkeypatch, devices, device="cpu"):
    source = Source(small_config(4, precision="tf32"), devices)
    monkeypatch.setattr(
        replay, "json_attribute", lambda source, name: json.loads(source.attributes[name])
    )
    return replay._Origin(source, torch.device(device))


def test_the_tolerance_is_that_of_the_devices_of_the_sample(monkeypatch):
    records = [{"type": "cpu", "samples": "0..1"}, {"type": "cuda", "samples": "2..3"}]
    mixed = origin(monkeypatch, records)
    norms = [mixed.tolerance("fields", sample).norm for sample in range(4)]
    assert norms == [None, None, 0.03, 0.03]
    # Nothing says which ones the GPU computed.
    unknown = origin(monkeypatch, [{"type": "cpu"}, {"type": "cuda"}])
    assert unknown.tolerance("fields", 0).norm == 0.03
    assert origin(monkeypatch, []).tolerance("fields", 0).norm == 0.03
    monkeypatch.setattr(replay, "provenance", lambda *_: {"device": "[]", "package_versions": "[]"})
    assert origin(monkeypatch, [{"type": "cpu"}], "cuda").tolerance("fields", 0).norm == 0.03


@pytest.mark.parametrize(("driver", "here"), [("580.1", True), ("unknown", False)])
def test_samples_of_an_unknown_driver_need_not_be_equal(driver, here, monkeypatch):
    device = [{"type": "cuda", "name": "a card", "driver": driver}]
    records = provenance(small_config(4), torch.device("cpu")) | {"device": json.dumps(device)}
    monkeypatch.setattr(replay, "provenance", lambda config, device: records)
    assert origin(monkeypatch, device).is_here(0) is here
