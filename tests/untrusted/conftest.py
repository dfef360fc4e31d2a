"""Fixtures of the tests of untrusted files."""

import importlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from spinlock import SpinlockDataModule
from spinlock.generation.build import generate
from tests.callbacks import quiet_trainer
from tests.untrusted.entry_points import OPTIONS, small_model
from tests.untrusted.scene import CONFIG, EXTENSIONS, SECRET, STRANGER, Scene, custom_config

_NUMBER = itertools.count()


@pytest.fixture
def scene(tmp_path, original, monkeypatch):
    """A copy of a good file, secrets of the user's, and a stranger's module on the path."""
    data = Path(shutil.copy(original, tmp_path / "data.h5"))
    made = Scene(tmp_path, f"evil_{os.getpid()}_{next(_NUMBER)}", data)
    for path in made.secrets:
        path.write_text(json.dumps({"fields": "last", "compression": SECRET}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    made.lay_module()
    known = set(sys.modules)
    yield made
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in (made.module, STRANGER, "e"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def original(made_once):
    def write(folder):
        generate(CONFIG, folder / "data.h5", progress=False)

    return made_once("untrusted", write) / "data.h5"


@pytest.fixture(scope="session")
def strangers_file(made_once):
    """A whole and true file, made where the stranger's module was."""
    return made_once("stranger", write_strangers_file) / "data.h5"


def write_strangers_file(folder):
    text = EXTENSIONS.format(imported=str(folder / "imported"), used=str(folder / "used"))
    (folder / f"{STRANGER}.py").write_text(text)
    sys.path.insert(0, str(folder))
    try:
        generate(custom_config(STRANGER), folder / "data.h5", progress=False)
    finally:
        sys.path.remove(str(folder))
        del sys.modules[STRANGER]
    (folder / f"{STRANGER}.py").unlink()
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def good_checkpoint(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    module = SpinlockDataModule(original, CONFIG, **OPTIONS)
    model = small_model(module)
    trainer = quiet_trainer(folder)
    trainer.fit(model, module)
    trainer.save_checkpoint(folder / "good.ckpt")
    return torch.load(folder / "good.ckpt", weights_only=True)


@pytest.fixture
def custom(scene, strangers_file):
    """A scene whose file names a stranger's module, which is not there."""
    shutil.copy(strangers_file, scene.data)
    return scene


@pytest.fixture
def no_plots(monkeypatch):
    """Reports without plots, which know of no class paths."""
    monkeypatch.setattr("spinlock.report.report_builder.report_plots", lambda source: [])


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    """`seed_everything` leaves its seed in the environment, where other tests would find it."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
