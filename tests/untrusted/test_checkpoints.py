"""Nothing that a checkpoint names is imported, unpickled, opened or deleted."""

import contextlib
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from lightning import __version__ as lightning_version

from spinlock import SpinlockDataModule
from spinlock.errors import SpinlockError
from spinlock.models import FeatureVQVAE, SequenceVQVAE
from tests.callbacks import quiet_trainer
from tests.untrusted.scene import (
    CONFIG,
    OPTIONS,
    huge,
    names,
    nested,
    opens,
    refused,
    run_file,
    settings,
    small_model,
    with_settings,
)


@pytest.fixture(scope="module")
def good_checkpoint(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    module = SpinlockDataModule(original, CONFIG, **OPTIONS)
    model = small_model(module)
    trainer = quiet_trainer(folder)
    trainer.fit(model, module)
    trainer.save_checkpoint(folder / "good.ckpt")
    return torch.load(folder / "good.ckpt", weights_only=True)


def write_checkpoint(scene, checkpoint):
    path = scene.folder / "forged.ckpt"
    limit = sys.getrecursionlimit()
    # Writing nested data needs recursion; reading them does not.
    sys.setrecursionlimit(50_000)
    try:
        torch.save(checkpoint, path)
    finally:
        sys.setrecursionlimit(limit)
    # A stranger can send what passes weights_only.
    torch.load(path, weights_only=True)
    return path


def copied(value):
    return {k: copied(v) for k, v in value.items()} if isinstance(value, dict) else value


def trainer_entry(name):
    def act(scene, checkpoint):
        module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
        model = small_model(module)
        trainer = quiet_trainer(scene.folder, max_epochs=2)
        options = {} if name in ("fit", "predict") else {"verbose": False}
        getattr(trainer, name)(model, datamodule=module, ckpt_path=str(checkpoint), **options)

    return act


def load_state(scene, checkpoint):
    held = torch.load(checkpoint, weights_only=True)["SpinlockDataModule"]
    module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
    module.load_state_dict(held)
    module.setup()


def predict_command(scene, checkpoint, *options):
    out = scene.folder / "tokens.h5"
    given = ("--config", run_file(scene), "--ckpt_path", checkpoint, "--out", out, *options)
    return scene.type("predict", *given)


def fit_command(scene, checkpoint):
    return scene.type("fit", "--config", run_file(scene), "--ckpt_path", checkpoint)


def within(action):
    return lambda scene, checkpoint: scene.run(lambda: action(scene, checkpoint))


RESUMING = {
    "fit": within(trainer_entry("fit")),
    "validate": within(trainer_entry("validate")),
    "test": within(trainer_entry("test")),
    "predict": within(trainer_entry("predict")),
    "load_state_dict": within(load_state),
    "spinlock predict": predict_command,
    "spinlock fit": fit_command,
}


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


INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def data_arguments(s):
    """Changes of a data module's arguments in a checkpoint."""
    made = {"_instantiator": INSTANTIATOR}
    inside = {"generation": settings() | {"operator": {"a": s.shell_command}}}
    own = {"_class_path": "spinlock.datamodules.SpinlockDataModule"}
    weight = json.loads(huge(s)["weight"][0])
    return {
        "command in the operator": inside,
        "command in the operator, and an instantiator": inside | made,
        "command in the operator, and a class": inside | made | own,
        "another class": inside | made | {"_class_path": f"{s.module}.Other"},
        "another instantiator": inside | {"_instantiator": "os.system"},
        "secret as the configuration": {"generation": str(s.secrets[1])},
        "class as the configuration": {"generation": f"{s.module}.Other"},
        "command as the configuration": {"generation": s.command},
        "no configuration": {"generation": None},
        "a list as the configuration": {"generation": [s.command]},
        "secret as a section": {"generation": settings() | {"storage": str(s.secrets[0])}},
        "huge weight": {"generation": weight},
        "command as the variants": {"train_variants": s.command},
        "text as the batch size": {"batch_size": "4"},
        "command as the batch size": {"batch_size": s.command},
        "text as a fraction": {"val_fraction": "0.1"},
        "number as the path": {"path": 5},
        "command as the path": {"path": s.command},
        "number as the view": {"view": 5},
        "list as the scaling": {"scaling": ["standard"]},
        "text as the number of workers": {"loader": {"num_workers": "1"}},
    }


def use_data_module(path):
    module = SpinlockDataModule.load_from_checkpoint(path)
    module.prepare_data()
    module.setup()


def with_data_arguments(scene, good_checkpoint, **changes):
    forged = copied(good_checkpoint)
    forged["datamodule_hyper_parameters"] |= {"path": str(scene.data)} | changes
    return write_checkpoint(scene, forged)


@pytest.mark.parametrize("attack", names(data_arguments))
def test_the_arguments_of_a_data_module_are_data(scene, good_checkpoint, attack):
    changes = data_arguments(scene)[attack]
    path = with_data_arguments(scene, good_checkpoint, **changes)
    outcome = scene.run(lambda: use_data_module(path))
    assert outcome.error


def test_an_executor_in_a_checkpoint_is_not_made(scene, good_checkpoint):
    """It is no argument that checkpoints keep: left out or refused."""
    changes = {"executor": scene.command, "_instantiator": INSTANTIATOR}
    path = with_data_arguments(scene, good_checkpoint, **changes)
    scene.run(lambda: use_data_module(path))


@pytest.mark.parametrize("attack", ["command as the operator", "module as the operator"])
def test_a_data_module_of_a_checkpoint_does_not_import(scene, good_checkpoint, attack):
    """Not even when it is asked to build the dataset."""
    new, generation = scene.folder / "new.h5", json.loads(opens(scene)[attack][0])
    path = with_data_arguments(scene, good_checkpoint, path=str(new), generation=generation)
    outcome = scene.run(
        lambda: SpinlockDataModule.load_from_checkpoint(path, allow_transfer=True).prepare_data()
    )
    assert "--trust" in outcome.error
    assert not new.exists()


def model_arguments(s):
    """Changes of a model's arguments in a checkpoint."""
    deep: list[object] = []
    for _ in range(1500):
        deep = [deep]
    return {
        "command as the quantizer": {"quantizer": s.command},
        "command in the quantizer": {"quantizer": {"kind": s.shell_command}},
        "command as the schedule": {"schedule": s.command},
        "command as the widths": {"hidden_dims": s.command},
        "command among the widths": {"hidden_dims": [s.command]},
        "class as the quantizer": {"quantizer": f"{s.module}.Other"},
        "secret as the quantizer": {"quantizer": str(s.secrets[0])},
        "secret as the terms": {"independence": str(s.secrets[1])},
        "secret as the widths": {"hidden_dims": str(s.secrets[1])},
        "secret as a number": {"codebook_size": str(s.secrets[1])},
        "text as a number": {"latent_dim": "2"},
        "number as a name": {5: 1},
        "number as a name in the quantizer": {"quantizer": {5: 1}},
        "deep lists as the widths": {"hidden_dims": deep},
        "deep lists in the quantizer": {"quantizer": {"kind": deep}},
        "deep lists as a number": {"latent_dim": deep},
        "huge number": {"latent_dim": 10**400},
        "huge number among the widths": {"hidden_dims": [10**400]},
    }


@pytest.mark.parametrize("attack", names(model_arguments))
def test_the_arguments_of_a_model_are_data(scene, good_checkpoint, attack):
    """Whether or not the checkpoint asks for Lightning's parser to read them."""
    problems = {}
    for instantiator in ({}, {"_instantiator": INSTANTIATOR}):
        forged = copied(good_checkpoint)
        forged["hyper_parameters"] |= model_arguments(scene)[attack] | instantiator
        path = write_checkpoint(scene, forged)
        try:
            scene.run(lambda p=path: FeatureVQVAE.load_from_checkpoint(p))
        except Exception as error:
            problems[str(instantiator)] = f"{type(error).__name__}: {error}"[:300]
        scene.assert_nothing_happened()
    assert not problems


@pytest.mark.parametrize("model", [FeatureVQVAE, SequenceVQVAE])
@pytest.mark.parametrize("argument", ["quantizer", "independence", "schedule"])
def test_no_argument_of_a_model_is_imported(scene, model, argument):
    """Lightning's parser imports what text names, where a class is expected."""
    arguments = {
        argument: f"{scene.module}.Other",
        "_instantiator": INSTANTIATOR,
        "_class_path": f"spinlock.models.{model.__name__}",
    }
    checkpoint = {
        "pytorch-lightning_version": lightning_version,
        "hyper_parameters": arguments,
        "state_dict": {},
    }
    path = write_checkpoint(scene, checkpoint)
    with contextlib.suppress(Exception):
        # That the error is clear is tested above.
        model.load_from_checkpoint(path)
    scene.assert_nothing_happened()


@pytest.mark.parametrize("attack", [*names(model_arguments)[1:12:2], *names(model_arguments)[12:]])
def test_the_command_line_takes_arguments_as_data(scene, good_checkpoint, attack):
    forged, changes = copied(good_checkpoint), model_arguments(scene)[attack]
    forged["hyper_parameters"] |= changes | {"_instantiator": INSTANTIATOR}
    outcome = predict_command(scene, write_checkpoint(scene, forged))
    assert str(next(iter(changes))) in outcome.error


def classes(s):
    """Classes that a checkpoint names for its model."""
    return {
        "command": "subprocess.Popen",
        "module": f"{s.module}.Other",
        "module like the package": f"spinlock_{s.module}.Other",
        "relative": f"spinlock..{s.module}.Other",
        "file": f"spinlock.{s.folder}/modules/{s.module}.Other",
        "no model": "spinlock.callbacks.TokenWriter",
        "function": "spinlock.commands.command_line.main",
        "nothing": "spinlock.models.Nothing",
        "number": 5,
    }


@pytest.mark.parametrize("attack", names(classes))
def test_the_class_of_a_checkpoint_is_not_imported(scene, good_checkpoint, attack):
    forged = copied(good_checkpoint)
    forged["hyper_parameters"] |= {
        "_class_path": classes(scene)[attack],
        "_instantiator": INSTANTIATOR,
        "path": str(scene.mark),
        "evil": scene.command,
    }
    path = write_checkpoint(scene, forged)
    # A model or one clear error; the yaml file, or the caller, names the class.
    predict_command(scene, path)
    scene.run(lambda: FeatureVQVAE.load_from_checkpoint(path))


@pytest.mark.parametrize(
    "path",
    [
        "spinlock.commands.trainer_cli.LightningModule",
        "spinlock.models.resumable.LightningModule",
        "spinlock.callbacks.TokenWriter",
        "spinlock.commands.command_line.main",
    ],
)
def test_a_checkpoint_names_models_of_this_package_only(scene, good_checkpoint, path):
    """What its modules import is not theirs."""
    forged = copied(good_checkpoint)
    forged["hyper_parameters"] |= {"_class_path": path, "_instantiator": INSTANTIATOR}
    outcome = predict_command(scene, write_checkpoint(scene, forged))
    assert f"{path} is not a model of this package" in outcome.error


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("where", ["state_dict", "SpinlockDataModule", "hyper_parameters", "new"])
def test_a_checkpoint_is_not_unpickled(scene, good_checkpoint, where):
    forged = copied(good_checkpoint)
    forged.setdefault(where, {})["evil"] = Payload(scene.mark)
    path = scene.folder / "forged.ckpt"
    torch.save(forged, path)
    for load in (
        trainer_entry("fit"),
        trainer_entry("test"),
        lambda s, p: FeatureVQVAE.load_from_checkpoint(p),
        lambda s, p: SpinlockDataModule.load_from_checkpoint(p),
    ):
        # Of torch: nothing of this package comes before.
        with pytest.raises((pickle.UnpicklingError, SpinlockError)):
            load(scene, path)
        scene.assert_nothing_happened()
    outcome = predict_command(scene, path)
    assert "safe to load" in outcome.error
    assert outcome.error.isprintable()
    assert "--weights_only false" in outcome.error


def test_unpickling_is_the_users_decision(scene, good_checkpoint):
    forged = copied(good_checkpoint) | {"new": Payload(scene.mark)}
    path = scene.folder / "forged.ckpt"
    torch.save(forged, path)
    scene.trusting = True
    assert predict_command(scene, path, "--weights_only", "false").error == ""
    assert scene.mark.exists()


@pytest.mark.parametrize("entry", ["spinlock predict", "spinlock fit"])
def test_a_checkpoint_from_elsewhere_is_not_unpickled(scene, good_checkpoint, entry, monkeypatch):
    """Lightning unpickles downloaded files unless `weights_only` forbids it."""
    asked = []

    def download(url, *, weights_only=False, **options):
        asked.append(weights_only)
        return copied(good_checkpoint)

    class Elsewhere:
        """A file system in which everything is there."""

        def exists(self, path):
            return True

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    files = "lightning.fabric.plugins.io.torch_io.get_filesystem"
    monkeypatch.setattr(files, lambda path: Elsewhere())
    outcome = RESUMING[entry](scene, "http://localhost/model.ckpt")
    assert outcome.error or asked
    assert all(asked)


@pytest.mark.parametrize("entry", RESUMING)
def test_a_good_checkpoint_is_accepted(scene, good_checkpoint, entry):
    outcome = RESUMING[entry](scene, write_checkpoint(scene, good_checkpoint))
    assert outcome.error == ""
    assert (scene.folder / "tokens.h5").exists() == (entry == "spinlock predict")


def test_a_good_checkpoint_loads(scene, good_checkpoint):
    path = write_checkpoint(scene, good_checkpoint)
    module = SpinlockDataModule.load_from_checkpoint(path, path=str(scene.data))
    module.setup()
    assert module.generation == CONFIG
    model = FeatureVQVAE.load_from_checkpoint(path)
    assert model.hparams["latent_dim"] == 2
