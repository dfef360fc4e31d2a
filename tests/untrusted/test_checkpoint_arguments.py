"""The arguments of models and data modules in a checkpoint are data."""

import contextlib
import json

import pytest
from lightning import __version__ as lightning_version

from spinlock import SpinlockDataModule
from spinlock.models import FeatureVQVAE, SequenceVQVAE
from tests.untrusted.forged_checkpoints import (
    INSTANTIATOR,
    copied,
    predict_command,
    write_checkpoint,
)
from tests.untrusted.forged_configurations import huge, names, opens, settings

pytestmark = pytest.mark.slow


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
        "command in the loss": {"loss": {"alignment": s.shell_command}},
        "huge number of features": {"num_features": 10**400},
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
@pytest.mark.parametrize("argument", ["quantizer", "independence", "loss", "schedule"])
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
