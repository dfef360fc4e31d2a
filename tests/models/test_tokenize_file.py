"""A checkpoint tokenizes other files, aligned with their sample indices."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch
import yaml
from lightning import seed_everything

from spinlock import SpinlockDataModule
from spinlock.commands.command_line import main
from spinlock.configuration.file_content import StorageConfig
from spinlock.datamodules import ViewOptions
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import generate
from spinlock.models import FeatureVQVAE
from spinlock.storage import schema
from tests.callbacks import quiet_trainer
from tests.helpers import small_config

pytestmark = pytest.mark.slow


def config(num_samples, probes, **options):
    storage = StorageConfig(fields="none", shard_size=8)
    settings = {"num_realizations": 2, "base_channels": (4, 6), "storage": storage} | options
    return small_config(num_samples, probes_per_operator=probes, **settings)


CONFIGS = {
    "trained on": config(32, 2),
    "one probe": config(8, 1, seed=7),
    "three probes": config(12, 3, seed=8),
    "two steps": config(8, 2, seed=9, num_timesteps=2),
}
COLUMNS = ("responses", "noise")
VIEW = ViewOptions("pairs", columns=COLUMNS, selection="invariant")
MODEL = {"codebook_size": 8, "hidden_dims": (16,), "latent_dim": 4}


@pytest.fixture(scope="module")
def files(made_once):
    """Map each name in `CONFIGS` to the path of a file."""

    def write(folder):
        for name, dataset in CONFIGS.items():
            generate(dataset, folder / f"{name}.h5", progress=False)

    folder = made_once("tokenized", write)
    return {name: folder / f"{name}.h5" for name in CONFIGS}


@pytest.fixture(scope="module")
def checkpoint(files, tmp_path_factory):
    """A checkpoint, the trained model and its data module. The sizes are those of the data."""
    folder, name = tmp_path_factory.mktemp("trained"), "trained on"
    seed_everything(0)
    data = SpinlockDataModule(files[name], CONFIGS[name], view=VIEW, batch_size=16, progress=False)
    model = FeatureVQVAE(**MODEL)
    trainer = quiet_trainer(folder, max_epochs=10, limit_val_batches=0)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt", model.eval(), data


def expected_tokens(files, name, model, data):
    """Tokens of each sample, and of the probes of each operator together, from the file itself."""
    with h5py.File(files[name]) as file:
        parts = [file[schema.RESPONSES][:, -1], file[schema.NOISE_RESPONSES][:]]
    features = data.invariant.select(torch.from_numpy(np.hstack(parts)))
    features = data.feature_scaler.transform(features)
    sets = features.unflatten(0, (-1, CONFIGS[name].probes_per_operator))
    with torch.no_grad():
        return (model({"features": rows})["tokens"].numpy() for rows in (features, sets))


def test_the_checkpoint_is_of_the_selected_columns(checkpoint):
    path, model, data = checkpoint
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    sizes = {key: stored[key] for key in ("num_features", "num_dynamics", "num_variants")}
    expected = {"num_features": len(data.invariant.selected), "num_variants": 1}
    assert sizes == {**expected, "num_dynamics": len(data.dynamics_names)}
    assert 0 < len(data.invariant.selected) < len(data.invariant.names)
    loaded = FeatureVQVAE.load_from_checkpoint(path, weights_only=True)
    assert loaded.hparams == model.hparams


def run_file(folder, path, dataset, view):
    view = {"name": view, "columns": list(COLUMNS), "selection": "invariant"}
    trainer = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    config = {
        "data": {
            "path": str(path),
            "generation": json.loads(dataset.to_json()),
            "view": view,
            "batch_size": 16,
            "progress": False,
            "allow_transfer": True,
        },
        "model": {
            "class_path": "spinlock.models.FeatureVQVAE",
            "init_args": MODEL | {"hidden_dims": [16]},
        },
        "trainer": {**trainer, "default_root_dir": str(folder)},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "run.yaml"


@pytest.mark.parametrize("name", ["one probe", "two steps"])
def test_a_new_file_is_tokenized_from_the_command_line(tmp_path, files, checkpoint, name):
    """Another number of samples, probes and timesteps."""
    path, model, data = checkpoint
    run, out = run_file(tmp_path, files[name], CONFIGS[name], "responses"), tmp_path / "tokens.h5"
    main(["predict", "--config", str(run), "--ckpt_path", str(path), "--out", str(out)])
    expected, _ = expected_tokens(files, name, model, data)
    assert len(np.unique(expected)) > 2
    with h5py.File(out) as file:
        assert file["index"][:].tolist() == list(range(CONFIGS[name].num_samples))
        assert np.array_equal(file["tokens"][:], expected)
        assert file.attrs["fingerprint"] == CONFIGS[name].fingerprint
        assert file.attrs["dataset"] == f"{name}.h5"


def other_data(path, dataset, view):
    options = {"view": dataclasses.replace(VIEW, name=view), "batch_size": 16, "progress": False}
    return SpinlockDataModule(path, dataset, allow_transfer=True, **options)


def predicted(path, files, name, view):
    data = other_data(files[name], CONFIGS[name], view)
    model = FeatureVQVAE.load_from_checkpoint(path, weights_only=True)
    batches = quiet_trainer(path.parent).predict(model, data, ckpt_path=path, weights_only=True)
    return {key: torch.cat([batch[key] for batch in batches]).numpy() for key in batches[0]}


def test_one_token_for_all_probes_of_an_operator(files, checkpoint):
    path, model, data = checkpoint
    _, expected = expected_tokens(files, "three probes", model, data)
    found = predicted(path, files, "three probes", "probes")
    assert np.array_equal(found["tokens"], expected)
    assert found["operator"].tolist() == list(range(4))
    assert found["index"].tolist() == np.arange(12).reshape(4, 3).tolist()


def test_the_model_that_was_trained_tests_its_own_file(files, checkpoint, tmp_path):
    """From a yaml file that names no sizes."""
    path, _, _ = checkpoint
    name = "trained on"
    run = run_file(tmp_path, files[name], CONFIGS[name], "pairs")
    main(["test", "--config", str(run), "--ckpt_path", str(path)])
    main(["fit", "--config", str(run), "--ckpt_path", str(path), "--trainer.max_epochs=11"])
    (resumed,) = tmp_path.rglob("*.ckpt")
    stored = torch.load(resumed, weights_only=True)
    assert stored["hyper_parameters"] == torch.load(path, weights_only=True)["hyper_parameters"]
    assert stored["epoch"] == 10


def test_a_file_without_responses_is_refused(checkpoint, tmp_path):
    path, _, _ = checkpoint
    without = config(8, 2, responses=False)
    remedy = r"`spinlock extract-features FILE --responses` adds them"
    with pytest.raises(ConfigurationError, match=remedy):
        other_data(tmp_path / "a.h5", without, "pairs")
    run = run_file(tmp_path, tmp_path / "a.h5", without, "responses")
    with pytest.raises(ConfigurationError, match=remedy):
        main(["predict", "--config", str(run), "--ckpt_path", str(path)])


def test_a_file_without_noise_columns_is_refused(checkpoint, tmp_path):
    _, _, data = checkpoint
    other = other_data(tmp_path / "a.h5", config(8, 2, num_realizations=1), "pairs")
    with pytest.raises(DatasetError, match=r"from \d+ columns, .*only there: \['noise_abs', "):
        other.load_state_dict(data.state_dict())
