"""The scripts in examples/ and the code in docs/extending.md run."""

import os
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from spinlock import SpinlockDataModule
from spinlock.callbacks import ICMutualInformation
from spinlock.commands import check, info
from tests.callbacks import TokenModel, quiet_trainer
from tests.helpers import parameter_values, shortened

pytestmark = pytest.mark.slow

DOCS, EXAMPLES = (Path(__file__).parent.parent / name for name in ("docs", "examples"))


def test_quantizers_train_on_the_loader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = (EXAMPLES / "train_vq.py").read_text()
    assert len([line for line in script.splitlines() if line]) <= 20
    found = {}
    assert script.count('"num_samples": 500') == script.count("range(10)") == 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(
            script.replace('"num_samples": 500', '"num_samples": 100').replace(
                "range(10)", "range(60)"
            ),
            found,
        )
    errors = found["errors"]
    assert set(errors) == {"VectorQuantize", "ResidualVQ"}
    for name, losses in errors.items():
        # The variance of a scaled column is one.
        first, last = sum(losses[:6]) / 6, sum(losses[-6:]) / 6
        assert last < 0.8 * first, name
        assert last < 0.8, name
    assert errors["ResidualVQ"][-1] < errors["VectorQuantize"][-1]


def merged(documents):
    """Merge nested dictionaries."""
    whole = {}
    for document in documents:
        for key, value in document.items():
            both = isinstance(value, dict) and isinstance(whole.get(key), dict)
            whole[key] = merged([whole[key], value]) if both else value
    return whole


@pytest.fixture(scope="module")
def extensions(tmp_path_factory):
    """A folder with the module of docs/extending.md and the dataset that tests make in it."""
    folder = tmp_path_factory.mktemp("extensions")
    text = (DOCS / "extending.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (folder / "my_extensions.py").write_text("\n\n".join(code))
    return folder, text


@pytest.fixture
def extended(extensions, monkeypatch):
    """The data module of the configuration in docs/extending.md."""
    folder, text = extensions
    # Spawned workers find the module too.
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.syspath_prepend(folder)
    config = merged(map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)))
    small = {
        "path": str(folder / "a.h5"),
        "batch_size": 4,
        "val_fraction": 0.3,
        "progress": False,
        "generation": {
            "num_samples": 24,
            "num_realizations": 2,
            "block_size": 4,
            "storage": {"shard_size": 12},
            "parameter_space": {"grid_size": [32], "update_policy": ["autoregressive"]},
        },
    }
    parser = ArgumentParser()
    parser.add_class_arguments(SpinlockDataModule, "data")
    given = merged([config, {"data": small}])
    yield parser.instantiate(parser.parse_object(given)).data
    sys.modules.pop("my_extensions", None)


def test_everything_in_docs_extending(extended):
    extended.prepare_data()
    assert type(extended.executor).__name__ == "PoliteProcesses"
    extended.setup()
    assert extended.variant_names == ("gaussian_noise_1", "sinusoids", "red_noise")
    assert extended.family_names[-1] == "power_law"
    assert extended.eval_parts == ("held_in", "held_out")
    assert extended.feature_names[-1] == "positive_fraction"
    assert extended.num_features == 47
    batch = next(iter(extended.predict_dataloader()))
    assert batch["features"].shape == (4, 47)
    with h5py.File(extended.path) as file:
        types = file["metadata/ic_types"][:].astype(str)
        initial, fields = file["inputs/fields"][:], file["outputs/fields"][:]
        fraction = file["features/custom/initial/features"][:, 0]
        values = parameter_values(file)
    np.testing.assert_allclose(fraction, (initial > 0).mean(axis=(1, 2, 3)), atol=1e-6)
    # |k|^-3: nine tenths of the power in the longest waves.
    power = np.abs(np.fft.fft2(initial[types == "red_noise"])) ** 2
    assert power[..., [0, 1, 1, -1], [1, 0, 1, 1]].sum() / power.sum() > 0.3
    # Five modes, and a little noise: beyond them there is nothing.
    quiet = fields[values["noise_scale"] < 1e-3]
    assert len(quiet) > 3
    spectrum = np.abs(np.fft.rfft2(np.arctanh(np.clip(quiet, -0.999999, 0.999999))))
    high = spectrum[..., 5:-5, 5:]
    assert high.max() < 0.05 * spectrum.max()


def test_a_fourier_neural_operator_trains_on_fields(tmp_path, monkeypatch):
    pytest.importorskip("neuralop", reason="neuraloperator is not installed: no FNO is trained")
    monkeypatch.chdir(tmp_path)
    script, found = (EXAMPLES / "train_fno.py").read_text(), {}
    changes = {
        '"num_samples": 1000': '"num_samples": 160',
        "range(20)": "range(8)",
        "(12, 12)": "(6, 6)",
        "hidden_channels=32": "hidden_channels=16",
    }
    script = shortened(script, changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(script, found)
    # A prediction of zero has the error 1.
    assert found["learned"] < min(1, 0.8 * found["unchanged"])


def test_axes_of_a_custom_family_are_like_the_others(extended, capsys):
    extended.prepare_data()
    extended.setup()
    assert extended.parameter_axes[15:] == ("amplitude", "coupling")
    batch = next(iter(extended.predict_dataloader()))
    assert batch["params"].shape == (4, 17)
    with h5py.File(extended.path) as file:
        values, params = parameter_values(file), file["parameters/params"][:]
        assert tuple(file["parameters/params"].attrs["names"][15:]) == ("amplitude", "coupling")
    # The configuration has changed the lower end of the range; the upper one is as declared.
    np.testing.assert_allclose(values["amplitude"], 4.0 ** params[:, 15].astype(float))
    assert set(values["coupling"]) == {b"full", b"none"}
    # A stranger's file is read without importing the class.
    sys.modules.pop("my_extensions", None)
    info.run([str(extended.path)])
    assert "amplitude log-uniform 1 to 4;" in capsys.readouterr().out
    check.run([str(extended.path)])
    assert "my_extensions" not in sys.modules


class CouplingTokens(TokenModel):
    """Tokens that are the value of the axis ``coupling``."""

    codebook_size = 2

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"loss": batch["features"].mean(), "tokens": (2 * batch["params"][:, 16]).long()}


def test_callbacks_know_the_axes_of_a_custom_family(extended, tmp_path):
    extended.prepare_data()
    callback = ICMutualInformation(detailed=True)
    trainer = quiet_trainer(tmp_path, callback)
    trainer.validate(CouplingTokens(), extended, verbose=False)
    scores = {key: value for key, value in trainer.callback_metrics.items() if "axis_ami" in key}
    assert any("axis_ami/amplitude" in key for key in scores)
    found = [value for key, value in scores.items() if "axis_ami/coupling" in key]
    assert max(found) > 0.99
