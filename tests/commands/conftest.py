"""A small dataset and a run on it, shared by the tests of the command line."""

import logging
import sys
from types import SimpleNamespace

import pytest
import yaml

from spinlock.commands.command_line import main
from spinlock.configuration.file_content import StorageConfig
from spinlock.generation.build import generate
from tests.helpers import small_config

MODEL = {"codebook_size": 8, "hidden_dims": [16], "latent_dim": 4}


def quiet(folder, epochs=2):
    """Options of a run that is short and writes only into a folder."""
    return [
        "--trainer.accelerator=cpu",
        f"--trainer.max_epochs={epochs}",
        f"--trainer.default_root_dir={folder}",
    ]


@pytest.fixture(scope="session")
def dataset(made_once):
    """32 operators with two probes each; fields are not stored."""
    storage = StorageConfig(fields="none", shard_size=16)
    config = small_config(64, probes_per_operator=2, num_realizations=2, storage=storage)
    folder = made_once("commands", lambda folder: generate(config, folder / "a.h5", progress=False))
    return folder / "a.h5"


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    """`seed_everything` stores its seed in the environment, which would affect other tests."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")


@pytest.fixture
def run_file(dataset, tmp_path):
    """A yaml file that trains on the dataset without naming its configuration."""
    names = ("CodebookUsage", "ICMutualInformation", "OperatorConsistency")
    callbacks = [{"class_path": f"spinlock.callbacks.{name}"} for name in names]
    callbacks[0]["init_args"] = {"plots_every_n_epochs": 1}
    view = {"name": "pairs", "columns": ["responses", "noise"]}
    content = {
        "seed_everything": 1,
        "data": {"path": str(dataset), "view": view, "batch_size": 16},
        "model": {"class_path": "spinlock.models.FeatureVQVAE", "init_args": MODEL},
        "trainer": {
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(tmp_path), "name": "logs"},
            },
            "callbacks": callbacks,
            "log_every_n_steps": 1,
        },
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def fitted(run_file, tmp_path, monkeypatch, capfd):
    """What a fit printed, and where."""
    monkeypatch.chdir(tmp_path)
    # The handlers write to the standard error stream of the time when Lightning was imported.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            # Not the handlers of pytest, which are of classes of its own.
            if type(handler) is logging.StreamHandler:
                monkeypatch.setattr(handler, "stream", sys.stderr)
    main(["fit", "--config", str(run_file), *quiet(tmp_path)])
    printed = capfd.readouterr()
    return SimpleNamespace(folder=tmp_path, out=printed.out, err=printed.err)
