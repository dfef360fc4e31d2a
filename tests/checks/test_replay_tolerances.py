"""Files of other devices in TF32 and bfloat16: honest ones pass the replay, wrong ones do not."""

import json

import h5py
import numpy as np
import pytest
import torch

from spinlock.checks import check_dataset, replay
from spinlock.checks.replay_tolerances import tolerance
from spinlock.configuration.file_content import StorageConfig
from spinlock.generation import generate
from spinlock.simulation import convolutional_operator, operator_weights
from spinlock.simulation.convolution import periodic_convolution
from spinlock.storage import schema
from tests.helpers import small_config

COUNT = 12
OPTIONS = {
    "num_realizations": 2,
    "dynamics": True,
    "block_size": 4,
    "base_channels": (6, 12),
    "storage": StorageConfig(shard_size=COUNT),
}


def truncated(x):
    """Drop all but 10 bits of the mantissa, as a GPU may do to operands in TF32."""
    return (x.view(torch.int32) & -(1 << 13)).view(torch.float32)


def tf32_of_a_gpu(x, weight, bias=None, *, tf32=False):
    if tf32:
        x, weight = truncated(x), truncated(weight)
    return periodic_convolution(x, weight, bias)


def bfloat16_of_a_gpu(x, weight, bias=None, *, tf32=False):
    """Fields on another scale: a GPU multiplies by 1 / (1 - rate) where a CPU prunes."""
    if weight.dtype != torch.bfloat16:
        return periodic_convolution(x, weight, bias)
    return periodic_convolution(x * 1.37, weight, None if bias is None else bias * 1.37) / 1.37


EMULATED = {"tf32": tf32_of_a_gpu, "bfloat16": bfloat16_of_a_gpu}


@pytest.fixture(scope="module", params=EMULATED)
def files(request, tmp_path_factory):
    """A file of an emulated GPU, and a wrong one, of other operators and noise."""
    folder = tmp_path_factory.mktemp(request.param)
    config = small_config(COUNT, precision=request.param, **OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        emulated = EMULATED[request.param]
        patch.setattr(convolutional_operator, "periodic_convolution", emulated)
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
        with h5py.File(folder / f"{name}.h5", "r+") as file:
            file.attrs["device"] = json.dumps([{"type": "cuda", "name": "another"}])
    return folder


def replayed(path):
    report = check_dataset(path, replay=COUNT, device="cpu", progress=False)
    return {row.name: row for row in report.rows if row.group == "replay"}


def test_an_honest_file_passes_and_each_value_alone_would_not(files):
    rows = replayed(files / "honest.h5")
    assert all(row.passed for row in rows.values()), rows
    assert "root-mean-square" in rows["fields"].target
    assert rows["fields"].value > 1e-3, "some value is outside the tolerances of float32"


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
