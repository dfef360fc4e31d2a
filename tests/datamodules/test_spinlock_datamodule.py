"""The data module: batches, splits, life cycle, and the same run from a script and from yaml."""

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
from spinlock.cli import main
from spinlock.config import GenerationConfig
from spinlock.errors import ConfigurationError, DatasetError, DatasetNotFoundError
from spinlock.features import PER_TIMESTEP_NAMES
from spinlock.models import FeatureVQVAE
from tests.helpers import small_config

CONFIG = small_config(120, num_realizations=2)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("datamodule") / "dataset.h5"
    SpinlockDataModule(path, CONFIG, progress=False).prepare_data()
    return path


def ready(path, config=CONFIG, **options):
    options.setdefault("batch_size", 32)
    datamodule = SpinlockDataModule(path, config, progress=False, **options)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def collect(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def loaders(datamodule):
    return {
        "train": datamodule.train_dataloader(),
        "val": datamodule.val_dataloader(),
        "test": datamodule.test_dataloader(),
    }


def test_batches_are_as_documented(path):
    batch = next(iter(ready(path).train_dataloader()))
    found = {key: (tuple(value.shape), value.dtype) for key, value in batch.items()}
    assert found == {
        "features": ((32, 46), torch.float32),
        "initial_features": ((32, 46), torch.float32),
        "ic_type": ((32,), torch.int64),
        "ic_family": ((32,), torch.int64),
        "params": ((32, 15), torch.float32),
        "operator": ((32,), torch.int64),
        "index": ((32,), torch.int64),
    }


def test_rows_are_those_of_the_file(path):
    datamodule = ready(path, scaling="none")
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
    assert [datamodule.ic_names[i] for i in rows["ic_type"]] == types.tolist()
    assert [datamodule.family_names[i] for i in rows["ic_family"]] == families.tolist()
    assert datamodule.feature_names == PER_TIMESTEP_NAMES


def test_splits_partition_the_samples(path):
    parts = {name: collect(loader)["index"] for name, loader in loaders(ready(path)).items()}
    together = torch.cat(list(parts.values()))
    assert sorted(together.tolist()) == list(range(120))
    assert abs(len(parts["val"]) - 12) <= 4
    assert abs(len(parts["test"]) - 12) <= 4


def test_only_training_batches_are_shuffled(path):
    datamodule = ready(path)
    for name, loader in loaders(datamodule).items():
        index = collect(loader)["index"].tolist()
        assert (index == sorted(index)) == (name != "train")


def test_scaling_statistics_come_from_the_training_split(path):
    datamodule = ready(path, scaling="standard")
    raw = collect(ready(path, scaling="none").predict_dataloader())["features"].double()
    training = collect(datamodule.train_dataloader())["index"]
    torch.testing.assert_close(datamodule.feature_scaler.mean, raw[training].mean(dim=0))
    assert not torch.allclose(datamodule.feature_scaler.mean, raw.mean(dim=0), rtol=1e-6)

    initial = collect(ready(path, scaling="none").predict_dataloader())["initial_features"]
    expected = initial[training].double().mean(dim=0)
    torch.testing.assert_close(datamodule.initial_feature_scaler.mean, expected)


def test_every_variant_is_split(path):
    whole = collect(ready(path).predict_dataloader())["ic_family"]
    val = collect(ready(path, val_fraction=0.25).val_dataloader())["ic_family"]
    counts, of_val = (torch.bincount(x, minlength=4).double() for x in (whole, val))
    # Each variant to about one operator; a family has up to five.
    assert ((of_val - counts / 4).abs() <= torch.tensor([5, 3, 1, 1])).all()


def test_features_are_those_of_the_last_timestep(tmp_path):
    config = small_config(30, num_timesteps=3, num_realizations=1)
    rows = collect(ready(tmp_path / "a.h5", config, scaling="none").predict_dataloader())
    with h5py.File(tmp_path / "a.h5") as file:
        stored = file["features/sdf/per_timestep/features"]
        np.testing.assert_array_equal(rows["features"], stored[:, 2])
        assert (stored[:, 2] != stored[:, 0]).any()


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


def test_probes_of_an_operator_stay_together(tmp_path):
    config = small_config(90, probes_per_operator=3, num_realizations=1)
    datamodule = ready(tmp_path / "a.h5", config)
    operators = [
        set(collect(loader)["operator"].tolist()) for loader in loaders(datamodule).values()
    ]
    assert sum(map(len, operators)) == len(set.union(*operators)) == 30


def test_extending_moves_no_sample_between_splits(tmp_path):
    config = small_config(100, num_realizations=1)
    before = loaders(ready(tmp_path / "a.h5", config))
    before = {name: set(collect(loader)["index"].tolist()) for name, loader in before.items()}
    more = dataclasses.replace(config, num_samples=160)
    after = loaders(ready(tmp_path / "a.h5", more))
    for name, loader in after.items():
        kept = {index for index in collect(loader)["index"].tolist() if index < 100}
        assert kept == before[name]


def test_a_longer_file_serves_its_first_samples(path):
    fewer = ready(path, dataclasses.replace(CONFIG, num_samples=60), val_fraction=0.3)
    assert len(collect(fewer.predict_dataloader())["index"]) == 60


def test_names_need_no_file(tmp_path):
    datamodule = SpinlockDataModule(tmp_path / "missing.h5", CONFIG)
    assert len(datamodule.ic_names) == 10
    assert datamodule.family_names == (
        "gaussian_noise",
        "band_limited",
        "sinusoids",
        "gaussian_blobs",
    )


def test_prepare_data_builds_once(path, caplog):
    with caplog.at_level(logging.INFO, logger="spinlock"):
        ready(path)
    assert "computing" not in caplog.text


def test_errors_name_the_file_and_what_to_do(path, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"missing\.h5 does not exist; make it with"):
        SpinlockDataModule(tmp_path / "missing.h5", CONFIG).setup("fit")
    with pytest.raises(DatasetError, match="seed: 42 there, 1 asked for"):
        SpinlockDataModule(path, dataclasses.replace(CONFIG, seed=1)).prepare_data()
    with pytest.raises(DatasetError, match=r"holds 120 samples, 500 are asked for; call prepare"):
        SpinlockDataModule(path, dataclasses.replace(CONFIG, num_samples=500)).setup("fit")
    with pytest.raises(RuntimeError, match=r"call setup\(\) before"):
        SpinlockDataModule(path, CONFIG).train_dataloader()
    with pytest.raises(ConfigurationError, match=r"the test split of .* is empty"):
        ready(path, test_fraction=0.0).test_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "leave something to train on"),
        ({"val_fraction": -0.1}, "val_fraction and test_fraction: must be >= 0"),
        ({"scaling": "log"}, "scaling: must be one of"),
        ({"split_seed": -1}, "split_seed: must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(options, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        SpinlockDataModule(tmp_path / "a.h5", CONFIG, **options)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_give_the_same_batches(path, num_workers):
    loader = ready(path, num_workers=num_workers).val_dataloader()
    expected = collect(ready(path).val_dataloader())
    for key, value in collect(loader).items():
        assert torch.equal(value, expected[key]), key


MODEL = {"codebook_size": 16, "hidden_dims": [32], "latent_dim": 4}


def losses(folder):
    """train/loss by step."""
    rows = np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True, dtype=None)
    return [float(x) for x in rows["trainloss"] if np.isfinite(x)]


def test_script_and_yaml_give_the_same_loss_curve(tmp_path):
    """The datasets are built by both runs, each in its own file."""
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
    datamodule = SpinlockDataModule(tmp_path / "script.h5", CONFIG, batch_size=32, progress=False)
    trainer.fit(FeatureVQVAE(**MODEL), datamodule=datamodule)

    generation = {
        "num_samples": 120,
        "num_realizations": 2,
        "block_size": 4,
        "parameter_space": {"base_channels": {"low": 4, "high": 8}, "grid_size": [32]},
        "storage": {"shard_size": 8},
    }
    assert GenerationConfig.from_dict(generation) == CONFIG
    config = {
        "seed_everything": 7,
        "data": {
            "path": str(tmp_path / "yaml.h5"),
            "generation": generation,
            "batch_size": 32,
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


def test_checkpoints_load_with_weights_only(path, tmp_path):
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(FeatureVQVAE(**MODEL), datamodule=ready(path))
    checkpoint = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    stored = checkpoint["datamodule_hyper_parameters"]
    assert stored["path"] == str(path)
    assert GenerationConfig.from_dict(stored["generation"]) == CONFIG
    again = SpinlockDataModule.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert again.generation == CONFIG
