"""Base class of models whose training can be interrupted and resumed exactly."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Self, TypeGuard

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from spinlock.configuration.plain_hyperparameters import PlainHyperparameters
from spinlock.errors import DatasetError
from spinlock.models.loop_states import check_loop_states
from spinlock.runtime.checkpoint_file import check_checksums
from spinlock.runtime.processes import gather_objects

# Key of a checkpoint under which the states of all processes are stored.
_KEY = "training"
# Number of latents that k-means uses: 64 for each of 256 codes.
_MOST_LATENTS = 16384
# Keys of the state of a data module, whatever its class is.
_DATA_KEYS = {"fingerprint", "settings", "scalers"}
# Entries of a callback's state that are paths of files, which Lightning may delete.
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class ResumableModule(PlainHyperparameters, LightningModule):
    """A module whose resumed training ends with the same weights as uninterrupted training.

    Besides what Lightning stores, its checkpoints contain, for each process:

    - States of torch's random generators. Training steps have generators of their own, which are
      copies of the global ones at the start of a fit, so that other random draws, such as those of
      a data loader, do not change the training.
    - Latents of the warm-up, which k-means will use.
    - Gradients, if the checkpoint is between two batches of one optimizer step.

    A fit without a checkpoint starts with none of these. Lightning's tuner leaves the random
    generators as they were, so that a fit after it is the fit without it.

    ``data_state`` is the state of the data module in the checkpoint that the model was loaded from,
    or None. A data module of this package adopts its scaling and its columns when a trainer sets it
    up for the model.

    Args:
        latent_dim: Number of columns of the latents.

    Example:
        >>> module = ResumableModule(latent_dim=2)
        >>> checkpoint = {}
        >>> module.on_save_checkpoint(checkpoint)
        >>> sorted(checkpoint["training"][0])
        ['generators', 'gradients', 'latents']
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self._recent: list[Tensor] = []
        self._generators: dict[str, Tensor] = {}
        # Gradients of a checkpoint, until training starts.
        self._gradients: dict[str, Tensor] = {}
        # States of a checkpoint from before the first step, until training starts.
        self._initial_generators: dict[str, Tensor] = {}
        self.data_state: dict[str, Any] | None = None

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 (Lightning's)
        """Build the model from the arguments in a checkpoint; see Lightning's method.

        The arguments are data: classes that the checkpoint names are not imported.
        """
        kwargs.setdefault("weights_only", True)
        check_checksums(args[0] if args else kwargs.get("checkpoint_path"))
        # An instantiator in the checkpoint would build the classes that the checkpoint names.
        return super().load_from_checkpoint(*args, **kwargs, _instantiator=None)

    def setup(self, stage: str) -> None:
        """Reset the state; Lightning loads a checkpoint after this."""
        if stage == "fit":
            self._recent, self._gradients, self._initial_generators = [], {}, {}
            self._generators = _generator_states(self.trainer.strategy.root_device)

    def on_train_start(self) -> None:
        """Restore latents and gradients, after Lightning has cleared the gradients."""
        self._recent = [latent.to(self.device) for latent in self._recent]
        for name, gradient in self._gradients.items():
            parameter = self.get_parameter(name)
            parameter.grad = gradient.to(parameter)
        self._gradients, self._initial_generators = {}, {}

    def teardown(self, stage: str) -> None:
        """Restore the global generators after Lightning's tuner.

        The tuner ends with the state from before its trials, and does not train from there.
        """
        if stage == "fit":
            _set_generator_states(self._initial_generators, self.device)
            self._initial_generators = {}

    def remember(self, latent: Tensor) -> None:
        """Keep the latest latents ``[B, D]`` of the warm-up for k-means."""
        self._recent.append(latent.detach())
        while sum(map(len, self._recent)) - len(self._recent[0]) > _MOST_LATENTS:
            del self._recent[0]

    @contextmanager
    def own_randomness(self) -> Iterator[None]:
        """Draw random numbers from this model's states, and leave the global generators alone."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cuda, device_type="cuda"):
            _set_generator_states(self._generators, self.device)
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
        checkpoint[_KEY] = gather_objects(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the state of this process, after checking the file and the states of loops.

        Unsafe paths are dropped from the states of callbacks.

        Raises:
            DatasetError: If the file is damaged, or the checkpoint contains no state, or one of
                another form.
        """
        held = (value for value in checkpoint.values() if isinstance(value, dict))
        self.data_state = next((state for state in held if state.keys() >= _DATA_KEYS), None)
        if self._trainer is not None:
            # Lightning restores callbacks and loops after this.
            prepare_to_restore(checkpoint, self._trainer)
        states = checkpoint.get(_KEY)
        if not isinstance(states, list) or not states:
            _refuse("a list of the states of the processes", states)
        state = states[self.global_rank % len(states)]
        if not isinstance(state, dict):
            _refuse("a dictionary for each process", state)
        self._generators = _checked_generators(state.get("generators"))
        if checkpoint.get("global_step") == 0:
            self._initial_generators = self._generators
        self._recent = _checked_latents(state.get("latents"), self.latent_dim)
        parameters = dict(self.named_parameters())
        self._gradients = _checked_gradients(state.get("gradients"), parameters)


def prepare_to_restore(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Check what Lightning will restore, and drop unsafe paths; see the functions called.

    Args:
        checkpoint: Loaded checkpoint, which is changed in place.
        trainer: Trainer that restores it.

    Raises:
        DatasetError: If the file is damaged, or a state has another form.

    Example:
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> prepare_to_restore({}, trainer)
    """
    check_checksums(trainer.ckpt_path)
    check_loop_states(checkpoint, trainer)
    drop_foreign_paths(checkpoint, trainer.ckpt_path)


def drop_foreign_paths(checkpoint: dict[str, Any], source: str | os.PathLike[str] | None) -> None:
    """Remove paths from the states of callbacks unless they are checkpoints beside this one.

    `ModelCheckpoint` restores the paths of earlier checkpoints from its state and deletes them when
    it saves better ones, and it deletes folders and remote files, too. Whoever made the checkpoint
    has chosen these paths. Paths that remain are those of regular files in the folder of the
    checkpoint that have the same suffix.

    Args:
        checkpoint: Loaded checkpoint, which is changed in place.
        source: Path of the checkpoint file.

    Example:
        >>> state = {"best_model_path": "local:///home"}
        >>> drop_foreign_paths({"callbacks": {"ModelCheckpoint": state}}, "model.ckpt")
        >>> state
        {'best_model_path': ''}
    """
    states = checkpoint.get("callbacks")
    if states is None:
        return
    if not isinstance(states, dict):
        _refuse("a dictionary of the states of callbacks", states)
    for state in states.values():
        if not isinstance(state, dict):
            continue
        for name in _PATHS:
            if name in state and not _is_beside(state[name], source):
                state[name] = ""
        if "best_k_models" in state:
            scores = state["best_k_models"] if isinstance(state["best_k_models"], dict) else {}
            kept = {path: score for path, score in scores.items() if _is_beside(path, source)}
            state["best_k_models"] = kept


def _is_beside(path: object, source: str | os.PathLike[str] | None) -> bool:
    """Whether a path names a file with the suffix, and in the folder, of a local checkpoint."""
    if source is None or not isinstance(path, str):
        return False
    # fsspec interprets "protocol://" and "::" as other file systems, and "~" as a home folder.
    if path.startswith("~") or "://" in path or "::" in path:
        return False
    try:
        file, checkpoint = Path(os.path.realpath(path)), Path(os.path.realpath(source))
    except ValueError:
        # The text cannot be a path.
        return False
    beside = file.parent == checkpoint.parent and file.suffix == checkpoint.suffix
    return beside and os.path.isfile(checkpoint) and os.path.isfile(file)


def _generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the global generators of the CPU and of a CUDA device, by type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generator_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the global generators to states as `_generator_states` returns them."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


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
    """Whether a value is a dense, contiguous tensor with ``ndim`` dimensions."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    return value.ndim == ndim and value.is_contiguous()


def _refuse(expected: str, given: object) -> NoReturn:
    what = type(given).__name__
    if isinstance(given, Tensor):
        what = f"{given.dtype} {list(given.shape)}"
    raise DatasetError(f"the checkpoint's training state must have {expected}, got {what}")
