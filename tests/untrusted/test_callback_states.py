"""Training that resumes from a stranger's checkpoint deletes no files but its own checkpoints."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from spinlock import SpinlockDataModule
from tests.callbacks import quiet_trainer
from tests.datamodules.recorder import MeanModel
from tests.untrusted.entry_points import OPTIONS, run_file, small_model
from tests.untrusted.scene import CONFIG

pytestmark = pytest.mark.slow

# Paths that a checkpoint in the folder `checkpoints` may name, relative to the parent of both.
PATHS = {
    "local protocol": "local://{folder}/victim",
    "file protocol": "file://{folder}/victim",
    "chained protocols": "simplecache::local://{folder}/victim",
    "folder beside": "{folder}/checkpoints/../victim",
    "folder inside": "{folder}/checkpoints/inside",
    "file beside": "{folder}/checkpoints/../victim/model.ckpt",
    "file inside": "{folder}/checkpoints/inside/model.ckpt",
    "another kind of file": "{folder}/checkpoints/notes.txt",
}
OPTIONS_OF_SAVING = {
    "best": {"save_top_k": 1},
    "last": {"save_top_k": 0, "save_last": True},
    "worst": {"save_top_k": 1, "monitor": "step", "mode": "max"},
}


def forged_state(kind, path, saving):
    """The state of a callback which would next delete a path."""
    state = saving.state_dict()
    if kind == "best":
        return state | {"best_model_path": path}
    if kind == "last":
        return state | {"last_model_path": path}
    scores = {path: torch.tensor(-1.0)}
    return state | {"kth_best_model_path": path, "best_k_models": scores, "best_model_path": path}


@pytest.fixture
def victims(scene):
    """Files of the user's, beside and among the checkpoints."""
    found = [scene.folder / name for name in ("victim/model.ckpt", "checkpoints/inside/model.ckpt")]
    found.append(scene.folder / "checkpoints" / "notes.txt")
    for file in found:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("precious")
    return found


def mean_model(module):
    return MeanModel()


@pytest.fixture(scope="module")
def checkpoints(original, tmp_path_factory):
    """Checkpoints after one epoch, by the function that makes the model."""
    found, folder = {}, tmp_path_factory.mktemp("checkpoints")
    for model in (small_model, mean_model):
        module = SpinlockDataModule(original, CONFIG, **OPTIONS)
        trainer = quiet_trainer(folder)
        trainer.fit(model(module), module)
        trainer.save_checkpoint(folder / "a.ckpt")
        found[model] = torch.load(folder / "a.ckpt", weights_only=True)
    return found


def save_forged(scene, kind, path, checkpoint):
    saving = ModelCheckpoint(saving_folder(scene), **OPTIONS_OF_SAVING[kind])
    forged = saving_folder(scene) / "forged.ckpt"
    forged.parent.mkdir(exist_ok=True)
    state = forged_state(kind, path.format(folder=scene.folder), saving)
    torch.save(checkpoint | {"callbacks": {saving.state_key: state}}, forged)
    return forged, saving


# Each kind with every second path, and each path with every second kind.
SCRIPTS = [
    (kind, path)
    for row, kind in enumerate(OPTIONS_OF_SAVING)
    for column, path in enumerate(PATHS)
    if (row + column) % 2 == 0
]


@pytest.mark.parametrize(("kind", "path"), SCRIPTS)
def test_no_script_deletes_what_a_checkpoint_names(scene, victims, checkpoints, kind, path):
    forged, saving = save_forged(scene, kind, PATHS[path], checkpoints[small_model])
    module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
    trainer = quiet_trainer(scene.folder, saving, max_epochs=2, enable_checkpointing=True)
    trainer.fit(small_model(module), module, ckpt_path=forged, weights_only=True)
    assert [file.read_text() for file in victims] == ["precious"] * 3
    assert len(list(saving_folder(scene).glob("*.ckpt"))) == 2


def saving_folder(scene):
    return scene.folder / "checkpoints"


# Each kind with each path, and each of both with either model.
COMMANDS = [
    (kind, path, (small_model, mean_model)[(row + column) % 2])
    for row, kind in enumerate(OPTIONS_OF_SAVING)
    for column, path in enumerate(("local protocol", "folder beside", "another kind of file"))
]


@pytest.mark.parametrize(("kind", "path", "model"), COMMANDS)
def test_no_command_deletes_what_a_checkpoint_names(scene, victims, checkpoints, kind, path, model):
    """Whatever package the model comes from."""
    forged, _ = save_forged(scene, kind, PATHS[path], checkpoints[model])
    options = [f"--trainer.callbacks.{name}={v}" for name, v in OPTIONS_OF_SAVING[kind].items()]
    foreign = ["--model=tests.datamodules.recorder.MeanModel"] if model is mean_model else []
    outcome = scene.type(
        *("fit", "--config", run_file(scene), *foreign, "--ckpt_path", forged),
        "--trainer.enable_checkpointing=true",
        "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
        f"--trainer.callbacks.dirpath={saving_folder(scene)}",
        *options,
    )
    assert outcome.error == ""
    assert [file.read_text() for file in victims] == ["precious"] * 3
    assert len(list(saving_folder(scene).glob("*.ckpt"))) == 2


@pytest.mark.parametrize("states", [5, [], {"ModelCheckpoint": 5}, {5: {"best_model_path": None}}])
def test_states_of_another_form_are_refused_or_ignored(scene, checkpoints, states):
    forged = scene.folder / "forged.ckpt"
    torch.save(checkpoints[small_model] | {"callbacks": states}, forged)
    outcome = scene.type("fit", "--config", run_file(scene), "--ckpt_path", forged)
    assert bool(outcome.error) == (not isinstance(states, dict))


def test_ones_own_checkpoints_are_still_replaced(scene):
    """A resumed run deletes the same checkpoints as a run that was not interrupted."""

    def fit(max_epochs, ckpt_path=None):
        saving = ModelCheckpoint(
            saving_folder(scene), "{epoch}", save_top_k=2, monitor="step", mode="max"
        )
        module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
        settings = {"max_epochs": max_epochs, "enable_checkpointing": True}
        trainer = quiet_trainer(scene.folder, saving, **settings)
        trainer.fit(small_model(module), module, ckpt_path=ckpt_path)
        return sorted(path.name for path in saving_folder(scene).iterdir())

    assert fit(2) == ["epoch=0.ckpt", "epoch=1.ckpt"]
    # Lightning keeps the checkpoint that it resumes from.
    kept = ["epoch=1.ckpt", "epoch=2.ckpt", "epoch=3.ckpt"]
    assert fit(4, saving_folder(scene) / "epoch=1.ckpt") == kept
