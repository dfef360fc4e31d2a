"""Training that can be interrupted: what a run has beside weights and optimizer, in checkpoints."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Self, TypeGuard

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, distributed

from spinlock.errors import DatasetError

# Where a checkpoint keeps the states of all processes.
_KEY = "training"


class ResumableModule(LightningModule):
    """Keeps in checkpoints what Lightning does not, so that a resumed run repeats the whole one.

    - States of torch's random generators. Training steps draw from states of their own, which begin
      as those of the global generators when a fit starts: whatever else draws numbers, such as a
      data loader, does not change the training.
    - Latents of the warm-up, for k-means.
    - Gradients, where a checkpoint falls between the batches of one step of the optimizer.

    Each process has its own; a checkpoint holds those of all. A fit without a checkpoint starts
    anew.

    Args:
        latent_dim: Columns of the latents.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self._recent: list[Tensor] = []
        self._generators: dict[str, Tensor] = {}
        # Of a checkpoint, until training starts.
        self._gradients: dict[str, Tensor] = {}

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 (Lightning's)
        """Make the model whose arguments a checkpoint holds; see Lightning's method.

        The arguments are data: a class that the checkpoint names is not imported.
        """
        kwargs.setdefault("weights_only", True)
        # Lightning would have its command line parser instantiate what the checkpoint names.
        return super().load_from_checkpoint(*args, **kwargs, _instantiator=None)

    def setup(self, stage: str) -> None:
        """Start anew; Lightning loads a checkpoint after this."""
        if stage == "fit":
            self._recent, self._gradients = [], {}
            self._generators = _generator_states(self.trainer.strategy.root_device)

    def on_train_start(self) -> None:
        """Bring what a checkpoint gave to its place; before this, Lightning clears gradients."""
        self._recent = [latent.to(self.device) for latent in self._recent]
        for name, gradient in self._gradients.items():
            parameter = self.get_parameter(name)
            parameter.grad = gradient.to(parameter)
        self._gradients = {}

    @contextmanager
    def own_randomness(self) -> Iterator[None]:
        """Draw random numbers from this model's states, and leave the global generators alone."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cuda, device_type="cuda"):
            if "cpu" in self._generators:
                torch.set_rng_state(self._generators["cpu"])
            if cuda and "cuda" in self._generators:
                torch.cuda.set_rng_state(self._generators["cuda"], self.device)
            yield
            self._generators = _generator_states(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the states of all processes."""
        trainer = self._trainer
        accumulating = trainer is not None and trainer.accumulate_grad_batches > 1
        own: dict[str, Any] = {
            "generators": self._generators,
            "latents": [latent.cpu().contiguous() for latent in self._recent],
            "gradients": self._gradients
            or {
                name: parameter.grad.cpu().contiguous()
                for name, parameter in self.named_parameters()
                if accumulating and parameter.grad is not None
            },
        }
        states = [own]
        if distributed.is_available() and distributed.is_initialized():
            states = [{} for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(states, own)
        checkpoint[_KEY] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the state of this process.

        Raises:
            DatasetError: If it is no state of this model.
        """
        # Checkpoints of earlier versions have none.
        if _KEY not in checkpoint:
            return
        states = checkpoint[_KEY]
        if not isinstance(states, list) or not states:
            _refuse("a list of the states of the processes", states)
        state = states[self.global_rank % len(states)]
        if not isinstance(state, dict):
            _refuse("a dictionary for each process", state)
        self._generators = _checked_generators(state.get("generators"))
        self._recent = _checked_latents(state.get("latents"), self.latent_dim)
        parameters = dict(self.named_parameters())
        self._gradients = _checked_gradients(state.get("gradients"), parameters)


def _generator_states(device: torch.device) -> dict[str, Tensor]:
    """States of the global generators of the CPU and of a CUDA device, by their type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _checked_generators(states: object) -> dict[str, Tensor]:
    if not isinstance(states, dict) or not set(states) <= {"cpu", "cuda"}:
        _refuse("states of the random generators of cpu and cuda", states)
    for device, state in states.items():
        if not (_is_plain(state, ndim=1) and state.dtype == torch.uint8):
            _refuse("states of random generators as uint8 [S]", state)
        if device == "cpu" or torch.cuda.is_available():
            try:
                torch.Generator(device).set_state(state.cpu())
            except RuntimeError:
                _refuse(f"a state of the random generator of {device}", state)
    return {device: state.cpu() for device, state in states.items()}


def _checked_latents(latents: object, columns: int) -> list[Tensor]:
    if not isinstance(latents, list):
        _refuse("a list of latents", latents)
    for each in latents:
        fits = _is_plain(each, ndim=2) and len(each) > 0 and each.shape[1] == columns
        if not (fits and each.is_floating_point()):
            _refuse(f"latents as floating-point numbers [B, {columns}]", each)
    return [latent.detach() for latent in latents]


def _checked_gradients(gradients: object, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(gradients, dict) or not set(gradients) <= set(parameters):
        _refuse("gradients of the model's parameters", gradients)
    for name, gradient in gradients.items():
        like = parameters[name]
        fits = _is_plain(gradient, like.ndim) and gradient.shape == like.shape
        if not (fits and gradient.is_floating_point()):
            _refuse(f"the gradient of {name} as numbers {list(like.shape)}", gradient)
    return {name: gradient.detach() for name, gradient in gradients.items()}


def _is_plain(value: object, ndim: int) -> TypeGuard[Tensor]:
    """Whether this is a tensor with that many dimensions that has all its values in memory."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    return value.ndim == ndim and value.is_contiguous()


def _refuse(expected: str, given: object) -> NoReturn:
    what = type(given).__name__
    if isinstance(given, Tensor):
        what = f"{given.dtype} {list(given.shape)}"
    raise DatasetError(f"the checkpoint's training state must have {expected}, got {what}")
