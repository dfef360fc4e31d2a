"""The state of a data module in a checkpoint is data, and nothing that it names is used."""

import json

import pytest
import torch

from tests.untrusted.forged_checkpoints import RESUMING, copied, write_checkpoint
from tests.untrusted.forged_configurations import huge, names, nested, opens, refused, with_settings

pytestmark = pytest.mark.slow


def states(s):
    """Changes of a data module's state in a checkpoint, and what a refusal names."""

    def other(text):
        """State of another dataset: its configuration is looked at."""
        return {"fingerprint": "0" * 64, "configuration": text}

    def scaler(**changes):
        return {"scalers": {"features": changes}}

    halves = with_settings(operator={"class_path": f"{s.module}.Halves"})
    return {
        "command in the operator": (other(refused(s)["command in the operator"][0]), "operator"),
        "command as the operator": (other(opens(s)["command as the operator"][0]), "another"),
        "module as the operator": (other(halves), "another dataset"),
        "secret as storage": (other(with_settings(storage=str(s.secrets[1]))), "storage"),
        "secret as everything": (other(json.dumps(str(s.secrets[0]))), "configuration"),
        "secret as the text": (other(str(s.secrets[0])), "JSON"),
        "configuration is a command": (other(s.command), "configuration"),
        "no configuration": (other(None), "configuration"),
        "huge weight": (other(huge(s)["weight"][0]), "weights"),
        "as deep as JSON allows": (other(nested(900)), "configuration"),
        "fingerprint is a number": ({"fingerprint": 5}, "fingerprint"),
        "settings are a list": ({"settings": []}, "settings"),
        "settings are tensors": ({"settings": {"timestep": torch.ones(3)}}, "settings"),
        "no scalers": ({"scalers": None}, "scalers"),
        "scalers are a list": ({"scalers": [1.0]}, "scalers"),
        "a scaler is a number": ({"scalers": {"features": 5}}, "scaling"),
        "a scaler is a list": ({"scalers": {"features": [1.0, 2.0]}}, "scaling"),
        "an empty scaler": ({"scalers": {"features": {}}}, "scaling"),
        "scalers of nothing": ({"scalers": {"other": None}}, "scal"),
        "a scaler has another name": ("rename", "scal"),
        "text in a scaler": (scaler(center="a"), "scaling"),
        "a command in a scaler": (scaler(center=s.command), "scaling"),
        "nothing in a scaler": (scaler(spread=None), "scaling"),
        "a number in a scaler": (scaler(knee=1.0), "scaling"),
        "NaN in a scaler": (scaler(center=[float("nan")] * 46), "scaling"),
        "too much in a scaler": (scaler(center=[0.0] * 47), "scaling"),
        "ragged lists in a scaler": (scaler(knots=[[0.0], [0.0, 1.0]]), "scaling"),
        "a huge number in a scaler": (scaler(center=[10**400] * 46), "scaling"),
        "a secret as scaling": (scaler(scaling=str(s.secrets[0])), "scaling"),
    }


def with_state(scene, good_checkpoint, attack):
    """A checkpoint with such a state; scalers are whole but for what is changed."""
    changes, named = states(scene)[attack]
    forged = copied(good_checkpoint)
    state = forged["SpinlockDataModule"]
    held = state["scalers"]["features"]
    if changes == "rename":
        changes = {"scalers": {"other": held}}
    scalers = changes.get("scalers")
    if isinstance(scalers, dict) and isinstance(scalers.get("features"), dict):
        changed = scalers["features"]
        changes = {"scalers": {"features": held | changed if changed else {}}}
    forged["SpinlockDataModule"] = state | changes
    return write_checkpoint(scene, forged), named


@pytest.mark.parametrize("attack", names(states))
def test_the_state_of_a_data_module_is_data(scene, good_checkpoint, attack):
    path, named = with_state(scene, good_checkpoint, attack)
    outcome = RESUMING["load_state_dict"](scene, path)
    assert "checkpoint" in outcome.error
    assert named in outcome.error


@pytest.mark.parametrize(
    "attack", ["command in the operator", "module as the operator", "a scaler is a number"]
)
@pytest.mark.parametrize("entry", ["fit", "validate", "test", "predict", "spinlock predict"])
def test_no_trainer_makes_more_of_a_state(scene, good_checkpoint, attack, entry):
    path, named = with_state(scene, good_checkpoint, attack)
    outcome = RESUMING[entry](scene, path)
    assert named in outcome.error
    assert not (scene.folder / "tokens.h5").exists()


@pytest.mark.parametrize("entry", ["fit", "test", "spinlock predict"])
def test_a_configuration_that_nobody_needs_is_not_looked_at(scene, good_checkpoint, entry):
    forged = copied(good_checkpoint)
    text = refused(scene)["command in the operator"][0]
    forged["SpinlockDataModule"]["configuration"] = text
    outcome = RESUMING[entry](scene, write_checkpoint(scene, forged))
    assert outcome.error == ""


@pytest.mark.parametrize("state", [None, 5, [], "text"])
def test_a_state_that_is_no_dictionary_is_refused(scene, good_checkpoint, state):
    forged = copied(good_checkpoint) | {"SpinlockDataModule": state}
    outcome = RESUMING["load_state_dict"](scene, write_checkpoint(scene, forged))
    assert "checkpoint" in outcome.error


LOOPS = {
    "no dictionary": ({"fit_loop": 5}, "fit_loop must be a dictionary"),
    "text": ({"fit_loop": {"epoch_progress": {"total": {"ready": "1"}}}}, "total.ready must be a"),
    "nothing": ({"fit_loop": {"epoch_loop.batch_progress": {"total": None}}}, "total must be a"),
    "negative": ({"fit_loop": {"epoch_progress": {"current": {"completed": -1}}}}, "got -1"),
    "large": (
        {"fit_loop": {"epoch_loop.state_dict": {"_batches_that_stepped": 2**80}}},
        "an integer",
    ),
    "no truth": ({"fit_loop": {"epoch_loop.batch_progress": {"is_last_batch": 3}}}, "True or"),
}


@pytest.mark.parametrize("attack", LOOPS)
@pytest.mark.parametrize("entry", ["fit", "spinlock fit"])
def test_loops_adopt_counts_only(scene, good_checkpoint, attack, entry):
    """Lightning would fail at a later step, or train for ever."""
    forged = copied(good_checkpoint)
    changes, named = LOOPS[attack]
    forged["loops"] = merged(forged["loops"], changes)
    outcome = RESUMING[entry](scene, write_checkpoint(scene, forged))
    assert named in outcome.error
    assert "loops.fit_loop" in outcome.error


def merged(values, changes):
    if not (isinstance(values, dict) and isinstance(changes, dict)):
        return changes
    return values | {name: merged(values.get(name), new) for name, new in changes.items()}


def test_a_loop_state_replaces_no_method(scene, good_checkpoint):
    forged = copied(good_checkpoint)
    for progress in forged["loops"]["fit_loop"].values():
        progress |= {"increment_ready": 5, "reset": 5} if "total" in progress else {}
    outcome = RESUMING["fit"](scene, write_checkpoint(scene, forged))
    assert outcome.error == ""
