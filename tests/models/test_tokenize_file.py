"""A checkpoint tokenizes a new file from the command line, aligned with its sample indices."""

import h5py
import numpy as np
import pytest
import torch
import yaml
from lightning import seed_everything

from spinlock import SpinlockDataModule
from spinlock.commands.command_line import main
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.models import FeatureVQVAE
from tests.callbacks import quiet_trainer


def generation(**changes):
    space = {"base_channels": {"low": 4, "high": 6}, "grid_size": [32]}
    dataset = {"num_samples": 48, "block_size": 4, "num_realizations": 2, "parameter_space": space}
    return {**dataset, "storage": {"fields": "none", "shard_size": 8}, **changes}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    seed_everything(0)
    data = SpinlockDataModule(
        folder / "train.h5", GenerationConfig.from_dict(generation()), batch_size=16, progress=False
    )
    model = FeatureVQVAE(codebook_size=8, hidden_dims=(16,), latent_dim=4)
    trainer = quiet_trainer(folder, max_epochs=10, limit_val_batches=0)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt", model, data


def predict(folder, checkpoint, data):
    config = {
        "data": data,
        "model": {
            "class_path": "spinlock.models.FeatureVQVAE",
            "init_args": {"codebook_size": 8, "hidden_dims": [16], "latent_dim": 4},
        },
        "trainer": {"logger": False, "accelerator": "cpu", "enable_progress_bar": False},
    }
    config["trainer"]["default_root_dir"] = str(folder)
    (folder / "predict.yaml").write_text(yaml.safe_dump(config))
    out = folder / "tokens.h5"
    arguments = ["--config", str(folder / "predict.yaml"), "--ckpt_path", str(checkpoint)]
    main(["predict", *arguments, "--out", str(out)])
    with h5py.File(out) as file:
        return file["index"][:], file["tokens"][:], dict(file.attrs)


def test_a_new_file_is_tokenized_with_the_scaling_of_the_checkpoint(tmp_path, checkpoint):
    path, model, trained_on = checkpoint
    settings = {"path": str(tmp_path / "new.h5"), "generation": generation(seed=7, num_samples=24)}
    settings |= {"batch_size": 16, "progress": False, "allow_transfer": True}
    index, tokens, attributes = predict(tmp_path, path, settings)
    assert index.tolist() == list(range(24))

    new = SpinlockDataModule(
        settings["path"], GenerationConfig.from_dict(settings["generation"]), progress=False
    )
    new.setup()
    with h5py.File(settings["path"]) as file:
        features = torch.from_numpy(file["features/sdf/per_timestep/features"][:, -1])
        initial = torch.from_numpy(file["features/sdf/initial/features"][:])
    batch = {
        "features": trained_on.feature_scaler.transform(features),
        "initial_features": trained_on.initial_feature_scaler.transform(initial),
        "variant": new.prepared.columns["variant"],
    }
    expected = model.eval()(batch)["tokens"].numpy()
    assert np.array_equal(tokens, expected)
    assert len(np.unique(expected)) > 2
    assert attributes["fingerprint"] == new.generation.fingerprint
    assert attributes["dataset"] == "new.h5"
