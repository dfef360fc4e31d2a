"""Everything that a user may do with a stranger's file."""

import dataclasses
import json
from collections.abc import Callable

import yaml
from lightning import seed_everything

from spinlock import SpinlockDataModule
from spinlock.datamodules import SpinlockStream
from spinlock.generation.build import generate
from spinlock.models import FeatureVQVAE, IndependenceConfig, LossConfig
from spinlock.storage import read_info
from tests.untrusted.scene import CONFIG, Outcome, Scene


def plot(scene):
    return scene.type("plot", scene.data, "--sample", 3, "--out", scene.folder / "sample.png")


def export(scene):
    return scene.type("export", scene.data, "--format", "well", "--out", scene.folder / "well")


def own_module(scene, **options):
    return SpinlockDataModule(scene.data, CONFIG, progress=False, **options)


def set_up_as_stored(scene):
    """Serve the file with the configuration that it holds."""
    module = SpinlockDataModule(
        scene.data, read_info(scene.data).config, progress=False, batch_size=2
    )
    module.prepare_data()
    module.setup()
    assert len(next(iter(module.train_dataloader()))["features"]) == 2


def extend_as_stored(scene):
    config = dataclasses.replace(read_info(scene.data).config, num_samples=16)
    generate(config, scene.data, progress=False)


def stream_as_stored(scene):
    next(iter(SpinlockStream(read_info(scene.data).config, batch_size=2, num_batches=1)))


ENTRIES: dict[str, Callable[[Scene], Outcome]] = {
    "info": lambda s: s.type("info", s.data),
    "check": lambda s: s.type("check", s.data, "--replay", 2),
    "check --full": lambda s: s.type("check", s.data, "--full", "--json"),
    "report": lambda s: s.type("report", s.data, "--out", s.folder / "report.html"),
    "plot": plot,
    "export": export,
    "extract-features": lambda s: s.type("extract-features", s.data),
    "read_info": lambda s: s.run(lambda: read_info(s.data)),
    "prepare_data": lambda s: s.run(lambda: own_module(s).prepare_data()),
    "setup": lambda s: s.run(lambda: own_module(s, view="both").setup()),
    "setup as stored": lambda s: s.run(lambda: set_up_as_stored(s)),
    "generate": lambda s: s.run(lambda: generate(CONFIG, s.data, progress=False)),
    "generate as stored": lambda s: s.run(lambda: extend_as_stored(s)),
    "stream as stored": lambda s: s.run(lambda: stream_as_stored(s)),
}
# Those that need the file to be the one of the user's own configuration.
OWN = ("prepare_data", "setup", "generate")
COMPUTES = ("generate as stored", "stream as stored")
# These draw and write pictures or fields, which takes most of the time.
SLOW = ("report", "plot", "export")


def try_all(scene, entries, problem):
    """Run entry points; `problem` says what is wrong with an outcome, if anything is."""
    problems = {}
    for entry in entries:
        try:
            outcome = ENTRIES[entry](scene)
            wrong = problem(entry, outcome)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            problems[entry] = wrong[:300]
    assert not problems


OPTIONS = {"batch_size": 4, "val_fraction": 0.3, "test_fraction": 0.3, "progress": False}


def small_model(module):
    seed_everything(0)
    return FeatureVQVAE(
        module.num_features,
        num_initial_features=module.num_features,
        num_variants=module.num_variants,
        latent_dim=2,
        hidden_dims=[4],
        codebook_size=4,
        independence=IndependenceConfig(),
        loss=LossConfig(other_probe=0.0, alignment=0.0),
    )


def run_file(scene):
    run = {
        "data": {"path": str(scene.data), "generation": json.loads(CONFIG.to_json()), **OPTIONS},
        "model": {
            "class_path": "spinlock.models.FeatureVQVAE",
            "init_args": {
                "latent_dim": 2,
                "hidden_dims": [4],
                "codebook_size": 4,
                "independence": {},
                "loss": {"other_probe": 0.0, "alignment": 0.0},
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "max_epochs": 2,
        },
    }
    path = scene.folder / "run.yaml"
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path
