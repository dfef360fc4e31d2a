"""Training that resumes from a stranger's checkpoint deletes no files but its own checkpoints."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from spinlock import SpinlockDataModule
from tests.callbacks import quiet_trainer
from tests.datamodules.recorder import MeanModel
from tests.untrusted.entry_points import OPTIONS, run_file, small_model
from tests.untrusted.scene import CONFIG

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


def save_forged(scene, kind, path, model):
    saving = ModelCheckpoint(scene.folder / "checkpoints", **OPTIONS_OF_SAVING[kind])
    module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
    trainer = quiet_trainer(scene.folder)
    trainer.fit(model(module), module)
    forged = scene.folder / "checkpoints" / "forged.ckpt"
    trainer.save_checkpoint(forged)
    held = torch.load(forged, weights_only=True)
    state = forged_state(kind, path.format(folder=scene.folder), saving)
    torch.save(held | {"callbacks": {saving.state_key: state}}, forged)
    return forged, saving


@pytest.mark.parametrize("kind", OPTIONS_OF_SAVING)
@pytest.mark.parametrize("path", PATHS)
def test_no_script_deletes_what_a_checkpoint_names(scene, victims, kind, path):
    forged, saving = save_forged(scene, kind, PATHS[path], small_model)
    module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
    trainer = quiet_trainer(scene.folder, saving, max_epochs=2, enable_checkpointing=True)
    trainer.fit(small_model(module), module, ckpt_path=forged, weights_only=True)
    assert [file.read_text() for file in victims] == ["precious"] * 3
    assert len(list(saving_folder(scene).glob("*.ckpt"))) == 2


def saving_folder(scene):
    return scene.folder / "checkpoints"


def mean_model(module):
    return MeanModel()


@pytest.mark.parametrize("kind", OPTIONS_OF_SAVING)
@pytest.mark.parametrize("path", ["local protocol", "folder beside", "another kind of file"])
@pytest.mark.parametrize("model", [small_model, mean_model])
def test_no_command_deletes_what_a_checkpoint_names(scene, victims, kind, path, model):
    """Whatever package the model comes from."""
    forged, _ = save_forged(scene, kind, PATHS[path], model)
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
def test_states_of_another_form_are_refused_or_ignored(scene, states):
    forged, _ = save_forged(scene, "best", "", small_model)
    torch.save(torch.load(forged, weights_only=True) | {"callbacks": states}, forged)
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
