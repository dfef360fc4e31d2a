"""The training state of a checkpoint: what it holds, and what is refused."""

import pytest
import torch

from spinlock.errors import DatasetError
from spinlock.models import FeatureVQVAE
from tests.models.training_runs import data, fit, warming_up
from tests.resuming import Saver


@pytest.fixture(scope="module")
def checkpoint(datasets, tmp_path_factory):
    """A file of a checkpoint in the warm-up, between two batches of a step of the optimizer."""
    folder, datamodule = tmp_path_factory.mktemp("checkpoint"), data(datasets)
    settings = {"accumulate_grad_batches": 3, "max_epochs": 3}
    fit(warming_up(datamodule), datamodule, Saver(folder), **settings)
    return folder / "batch.2"


def test_checkpoints_hold_tensors(datasets, checkpoint):
    (state,) = torch.load(checkpoint, weights_only=True)["training"]
    assert set(state["generators"]) == {"cpu"}
    assert [len(latents) for latents in state["latents"]] == [26, 26]
    assert state["gradients"]
    model = FeatureVQVAE.load_from_checkpoint(checkpoint, weights_only=True)
    assert [tuple(latent.shape) for latent in model._recent] == [(26, 4)] * 2
    # Outside of a fit nobody would clear gradients.
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_checkpoint_without_a_state_is_refused(checkpoint):
    stored = torch.load(checkpoint, weights_only=True)
    del stored["training"]
    model = FeatureVQVAE(**{k: v for k, v in stored["hyper_parameters"].items() if k[0] != "_"})
    with pytest.raises(DatasetError, match="a list of the states of the processes, got NoneType"):
        model.on_load_checkpoint(stored)


def changed(path, value):
    """Put a value, or what a function makes of the one there, into a nested state."""

    def change(states):
        *before, last = path
        for key in before:
            states = states[key]
        states[last] = value(states[last]) if callable(value) else value

    return change


WEIGHT = "autoencoder.encoder.0.weight"
CPU, LATENT, GRADIENT = (0, "generators", "cpu"), (0, "latents", 1), (0, "gradients", WEIGHT)
HOSTILE = [
    (lambda states: states.clear(), "a list of the states of the processes, got list"),
    (changed([0], 1), "a dictionary for each process, got int"),
    (changed([0, "generators"], None), "states of the random generators of cpu and cuda, got None"),
    (changed([0, "generators", "tpu"], 1), "generators of cpu and cuda, got dict"),
    (changed(CPU, "state"), r"random generators as uint8 \[S\], got str"),
    (changed(CPU, lambda state: state.float()), r"uint8 \[S\], got torch.float32 \[5056\]"),
    (changed(CPU, lambda state: state[None]), r"uint8 \[S\], got torch.uint8 \[1, 5056\]"),
    (changed(CPU, lambda state: state[:-1]), r"generator of cpu, got torch.uint8 \[5055\]"),
    (changed(CPU, torch.zeros_like), r"generator of cpu, got torch.uint8 \[5056\]"),
    (changed([0, "latents"], None), "a list of latents, got NoneType"),
    (changed([0, "latents"], torch.zeros(3, 4)), "a list of latents, got torch.float32"),
    (changed(LATENT, 1.5), r"floating-point numbers \[B, 4\], got float"),
    (changed(LATENT, lambda latent: latent[0]), r"\[B, 4\], got torch.float32 \[4\]"),
    (changed(LATENT, lambda latent: latent[:0]), r"\[B, 4\], got torch.float32 \[0, 4\]"),
    (changed(LATENT, lambda latent: latent[:, :3]), r"\[B, 4\], got torch.float32 \[26, 3\]"),
    (
        changed(LATENT, lambda latent: latent[:1].expand(10**9, 4)),
        r"got torch.float32 \[10{9}, 4\]",
    ),
    (changed(LATENT, lambda latent: latent.long()), r"\[B, 4\], got torch.int64 \[26, 4\]"),
    (changed(LATENT, lambda latent: latent.to_sparse()), r"numbers \[B, 4\], got"),
    (changed(LATENT, torch.zeros(26, 4, device="meta")), r"numbers \[B, 4\], got"),
    (changed([0, "gradients"], None), "gradients of the model's parameters, got NoneType"),
    (changed([0, "gradients", "x"], torch.zeros(1)), "gradients of the model's parameters, got"),
    (changed(GRADIENT, "x"), rf"the gradient of {WEIGHT} as numbers \[16, \d+\], got str"),
    (changed(GRADIENT, lambda gradient: gradient.T), r"numbers \[16, .*, got torch.float32 \["),
    (changed(GRADIENT, lambda gradient: gradient != 0), r"numbers \[16, .*, got torch.bool \["),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_what_is_no_state_is_refused(checkpoint, change, message):
    stored = torch.load(checkpoint, weights_only=True)
    model = FeatureVQVAE(**{k: v for k, v in stored["hyper_parameters"].items() if k[0] != "_"})
    model.on_load_checkpoint(stored)
    change(stored["training"])
    expected = f"checkpoint's training state must have .*{message}"
    with pytest.raises(DatasetError, match=expected) as caught:
        model.on_load_checkpoint(stored)
    assert len(str(caught.value)) < 300
