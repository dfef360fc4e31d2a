"""Ways to write a forged checkpoint and to resume from it."""

import sys

import torch

from spinlock import SpinlockDataModule
from tests.callbacks import quiet_trainer
from tests.untrusted.entry_points import OPTIONS, run_file, small_model
from tests.untrusted.scene import CONFIG


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
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
