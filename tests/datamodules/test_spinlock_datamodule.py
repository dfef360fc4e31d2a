"""The data module: batches, splits, life cycle, and equal runs from a script and from yaml."""

import dataclasses
import logging

import h5py
import lightning
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

from spinlock import SpinlockDataModule
from spinlock.commands.command_line import main
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules import LoaderOptions
from spinlock.errors import ConfigurationError, DatasetError, DatasetNotFoundError
from spinlock.features import PER_TIMESTEP_NAMES
from spinlock.models import FeatureVQVAE, LossConfig
from tests.datamodules import collect, loaders, ready
from tests.helpers import small_config

CONFIG = small_config(120, num_realizations=2)
SMALL = small_config(60, num_realizations=2)


@pytest.fixture(scope="module")
def path(datasets):
    path, config = datasets["single"]
    assert config == CONFIG
    return path


def test_batches_are_as_documented(path):
    batch = next(iter(ready(path, CONFIG, batch_size=32).train_dataloader()))
    found = {key: (tuple(value.shape), value.dtype) for key, value in batch.items()}
    assert found == {
        "features": ((32, 46), torch.float32),
        "initial_features": ((32, 46), torch.float32),
        "variant": ((32,), torch.int64),
        "family": ((32,), torch.int64),
        "update_policy": ((32,), torch.int64),
        "normalization": ((32,), torch.int64),
        "parameter_count": ((32,), torch.int64),
        "params": ((32, 15), torch.float32),
        "operator": ((32,), torch.int64),
        "index": ((32,), torch.int64),
    }


def test_rows_are_those_of_the_file(path):
    datamodule = ready(path, CONFIG, scaling="none")
    rows = collect(datamodule.predict_dataloader())
    assert rows["index"].tolist() == list(range(120))
    with h5py.File(path) as file:
        features = file["features/sdf/per_timestep/features"][:, -1]
        initial = file["features/sdf/initial/features"][:]
        np.testing.assert_array_equal(rows["features"], features)
        np.testing.assert_array_equal(rows["initial_features"], initial)
        np.testing.assert_array_equal(rows["params"], file["parameters/params"][:])
        types = file["metadata/ic_types"][:].astype(str)
        families = file["metadata/ic_families"][:].astype(str)
    assert [datamodule.variant_names[i] for i in rows["variant"]] == types.tolist()
    assert [datamodule.family_names[i] for i in rows["family"]] == families.tolist()
    assert datamodule.feature_names == PER_TIMESTEP_NAMES


def test_splits_partition_the_samples(path):
    split = loaders(ready(path, CONFIG))
    parts = {name: collect(loader)["index"] for name, loader in split.items()}
    together = torch.cat(list(parts.values()))
    assert sorted(together.tolist()) == list(range(120))
    assert abs(len(parts["val"]) - 12) <= 4
    assert abs(len(parts["test"]) - 12) <= 4


def test_only_training_batches_are_shuffled(path):
    datamodule = ready(path, CONFIG)
    for name, loader in loaders(datamodule).items():
        index = collect(loader)["index"].tolist()
        assert (index == sorted(index)) == (name != "train")


def test_scaling_statistics_come_from_the_training_split(path):
    datamodule = ready(path, CONFIG, signed_log=False)
    raw = collect(ready(path, CONFIG, scaling="none").predict_dataloader())["features"].double()
    training = collect(datamodule.train_dataloader())["index"]
    torch.testing.assert_close(datamodule.feature_scaler.center, raw[training].mean(dim=0))
    assert not torch.allclose(datamodule.feature_scaler.center, raw.mean(dim=0), rtol=1e-6)

    initial = collect(ready(path, CONFIG, scaling="none").predict_dataloader())["initial_features"]
    expected = initial[training].double().mean(dim=0)
    torch.testing.assert_close(datamodule.initial_feature_scaler.center, expected)


def test_the_device_is_the_argument_else_the_trainers(path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "spinlock.datamodules.spinlock_datamodule.generate",
        lambda *args, device, **options: seen.append(device),
    )
    SpinlockDataModule(path, CONFIG).prepare_data()
    SpinlockDataModule(path, CONFIG, device="cpu").prepare_data()
    datamodule = SpinlockDataModule(path, CONFIG)
    datamodule.trainer = lightning.Trainer(accelerator="cpu", logger=False, barebones=True)
    datamodule.prepare_data()
    assert seen == [None, "cpu", torch.device("cpu")]


def test_one_process_of_a_run_builds_by_default(path):
    assert not SpinlockDataModule(path, CONFIG).prepare_data_per_node


def test_extending_moves_no_sample_between_splits(tmp_path):
    config = small_config(40, num_realizations=1)
    before = loaders(ready(tmp_path / "a.h5", config))
    before = {name: set(collect(loader)["index"].tolist()) for name, loader in before.items()}
    more = dataclasses.replace(config, num_samples=64)
    after = loaders(ready(tmp_path / "a.h5", more))
    for name, loader in after.items():
        kept = {index for index in collect(loader)["index"].tolist() if index < 40}
        assert kept == before[name]


def test_prepare_data_builds_once(path, caplog):
    with caplog.at_level(logging.INFO, logger="spinlock"):
        ready(path, CONFIG)
    assert "computing" not in caplog.text


def test_errors_name_the_file_and_what_to_do(path, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"missing\.h5 does not exist; make it with"):
        SpinlockDataModule(tmp_path / "missing.h5", CONFIG).setup("fit")
    with pytest.raises(DatasetError, match="seed: 42 there, 1 asked for"):
        SpinlockDataModule(path, dataclasses.replace(CONFIG, seed=1)).prepare_data()
    with pytest.raises(DatasetError, match=r"120 samples, but num_samples is 500; call prep"):
        SpinlockDataModule(path, dataclasses.replace(CONFIG, num_samples=500)).setup("fit")
    with pytest.raises(RuntimeError, match=r"call setup\(\) before"):
        SpinlockDataModule(path, CONFIG).train_dataloader()
    with pytest.raises(ConfigurationError, match=r"the test split is empty; there are"):
        ready(path, CONFIG, test_fraction=0.0).test_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "leave samples to train on"),
        ({"val_fraction": -0.1}, "val_fraction and test_fraction: must be >= 0"),
        ({"scaling": "log"}, "scaling: must be one of"),
        ({"split_seed": -1}, "split_seed: must be at least 0"),
        ({"max_samples": 0}, "max_samples: must be at least 1"),
        ({"balance": "operator"}, "balance: must be one of none, variant, family, got 'operator'"),
        (
            {"loader": {"prefetch_factor": 2}},
            "prefetch_factor: needs loader.num_workers",
        ),
        ({"loader": {"multiprocessing_context": "spawn"}}, "_context: needs loader.num_workers"),
        (
            {"loader": {"multiprocessing_context": "thread", "num_workers": 1}},
            "multiprocessing_context: must be one of 'fork', 'spawn', 'forkserver'",
        ),
    ],
)
def test_bad_arguments_are_refused(options, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        SpinlockDataModule(tmp_path / "a.h5", CONFIG, **options)


def test_loaders_are_made_as_asked(path):
    options = {"num_workers": 2, "pin_memory": True, "prefetch_factor": 5}
    for persistent in (True, False):
        loader = LoaderOptions(persistent_workers=persistent, **options)
        datamodule = ready(path, CONFIG, loader=loader)
        datamodule.batch_size = 11  # Lightning's tuner sets it like this.
        for loader in loaders(datamodule).values():
            assert (loader.num_workers, loader.pin_memory, loader.prefetch_factor) == (2, True, 5)
            assert (loader.persistent_workers, loader.batch_size) == (persistent, 11)
    assert not ready(path, CONFIG).train_dataloader().persistent_workers


MODEL = {
    "codebook_size": 16,
    "hidden_dims": [32],
    "latent_dim": 4,
    "encoder_conditions": ["initial_features", "variant"],
    "loss": {"other_probe": 0.0, "alignment": 0.0},
}


def losses(folder):
    """Return train/loss of each step."""
    rows = np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True, dtype=None)
    return [float(x) for x in rows["trainloss"] if np.isfinite(x)]


@pytest.mark.repeated
def test_script_and_yaml_give_the_same_loss_curve(tmp_path):
    """Each run builds the dataset in its own file."""
    lightning.seed_everything(7)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=CSVLogger(tmp_path, name="script", version=0),
    )
    datamodule = SpinlockDataModule(tmp_path / "script.h5", SMALL, batch_size=16, progress=False)
    model = FeatureVQVAE(**(MODEL | {"loss": LossConfig(**MODEL["loss"])}))
    trainer.fit(model, datamodule=datamodule)

    generation = {
        "num_samples": 60,
        "num_realizations": 2,
        "dynamics": False,
        "block_size": 4,
        "parameter_space": {"base_channels": {"low": 4, "high": 8}, "grid_size": [32]},
        "storage": {"shard_size": 8},
    }
    assert GenerationConfig.from_dict(generation) == SMALL
    config = {
        "seed_everything": 7,
        "data": {
            "path": str(tmp_path / "yaml.h5"),
            "generation": generation,
            "batch_size": 16,
            "progress": False,
        },
        "model": {"class_path": "spinlock.models.FeatureVQVAE", "init_args": MODEL},
        "trainer": {
            "max_epochs": 3,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(tmp_path), "name": "yaml", "version": 0},
            },
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(tmp_path / "run.yaml")])
    script, from_yaml = (losses(tmp_path / name / "version_0") for name in ("script", "yaml"))
    assert len(script) == 9
    assert script == from_yaml
