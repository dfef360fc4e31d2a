"""Writes the tokens of a whole dataset to a file, with the operators that they stand for."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray
from torch import Tensor

from spinlock import contract
from spinlock.configuration.validation import require_at_least
from spinlock.errors import ConfigurationError
from spinlock.prototypes import OperatorLatents, token_means
from spinlock.runtime.local_paths import local_path
from spinlock.runtime.output_files import check_output, new_file
from spinlock.runtime.processes import gather_objects
from spinlock.storage.token_file import MOST_CODES, write_tokens

_NEEDED = ("index", "tokens")
_ENTRIES = (*_NEEDED, "operator", "latent", "token_sequence")

Columns = dict[str, NDArray[Any]]


class TokenWriter(BasePredictionWriter):
    """Writes the tokens predicted by ``trainer.predict`` to one HDF5 file, sorted by sample index.

    ::

        index                [N] or [N, P]  int64    sample in the dataset, ascending; the samples
                                                     of an operator if latents are pooled
        tokens               [N] or [N, Q]  int64    codebook index, or one for each codebook
        operator             [N]            int64    operator of the samples
        latent               [N, D]         float32  latent vector before quantization
        token_sequence       [N, T]         int64    codebook index at each timestep
        training             [N]            bool     whether the samples are in the training split
        codes                [K, D]         float32  vector of each code
        prototypes           [K, n]         int64    operators that each code stands for
        prototype_distances  [K, n]         float32  their distances

    What ``predict_step`` does not return is left out. ``training`` needs ``training_samples`` of
    the data module. The last three are written for one codebook: the prototypes of a code are the n
    training operators whose mean latents are nearest to it, -1 where there are fewer. If the model
    has no method ``codes``, the mean latent of the training samples with a token takes the place of
    the code, and tokens without training samples have no prototypes.

    Root attributes: ``codebook_size``, ``model`` (its class name), and ``dataset`` (the file name)
    and ``fingerprint`` of the dataset if the data module has them. With several processes, rank
    zero writes the predictions of all. The file appears when it is complete; an existing file is
    never overwritten. `spinlock.storage.read_tokens` reads it.

    Needs ``index`` and ``tokens`` in the return value of ``predict_step``, and the model's
    ``codebook_size``.

    Args:
        path: Path of the file to write.
        num_prototypes: Number n of prototypes of a code; default: 8.

    Raises:
        ConfigurationError: The file exists or belongs to the dataset, or its folder does not exist;
            before predicting. Or ``num_prototypes`` is not positive.
        ContractError: The model or the return value of ``predict_step`` lacks what is needed.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import TokenWriter
        >>> trainer = Trainer(callbacks=[TokenWriter("tokens.h5")], logger=False)
    """

    def __init__(self, path: str | os.PathLike[str], num_prototypes: int = 8) -> None:
        super().__init__(write_interval="batch")
        require_at_least({"num_prototypes": num_prototypes}, 1)
        self.path = local_path(path)
        self.num_prototypes = num_prototypes
        self._batches: list[Columns] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the path and the model."""
        if stage == "predict":
            size = contract.model_attribute(pl_module, "codebook_size", reader="TokenWriter")
            if size > MOST_CODES:
                raise ConfigurationError(
                    f"a token file holds at most {MOST_CODES} codes, and the model has {size}"
                )
            check_output(self.path, source=contract.known_property(trainer, "path"))
            if not self.path.parent.is_dir():
                raise ConfigurationError(f"the folder of {self.path} does not exist; create it")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new file."""
        self._batches = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,  # noqa: ANN401 (whatever the step returned)
        batch_indices: Sequence[int] | None,
        batch: Any,  # noqa: ANN401 (whatever the loader gave)
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the tokens of a batch."""
        found = prediction if isinstance(prediction, dict) else {}
        missing = [name for name in _NEEDED if name not in found]
        if missing:
            raise contract.ContractError(
                f"TokenWriter needs {' and '.join(missing)} in the return value of "
                f"{type(pl_module).__name__}.predict_step"
            )
        self._batches.append({name: _values(found[name]) for name in _ENTRIES if name in found})

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the tokens of all processes and write them."""
        parts = [batch for batches in gather_objects(self._batches) for batch in batches]
        if trainer.is_global_zero:
            if not parts:
                raise ConfigurationError(f"{self.path}: there was nothing to predict")
            columns = _sorted_columns(parts)
            training = contract.known_property(trainer, "training_samples")
            if training is not None:
                known = np.isin(columns["index"], training.cpu().numpy())
                columns["training"] = np.all(known.reshape(len(known), -1), axis=1)
                columns |= _prototypes(columns, pl_module, self.num_prototypes)
            with new_file(self.path) as temporary:
                write_tokens(temporary, columns, _attributes(trainer, pl_module))
        trainer.strategy.barrier("TokenWriter")


def _values(entry: Tensor) -> NDArray[Any]:
    """Return an entry as NumPy has it: without bfloat16, and as the file stores it."""
    entry = entry.detach().cpu()
    return (entry.float() if entry.is_floating_point() else entry).numpy()


def _sorted_columns(parts: list[Columns]) -> Columns:
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    first = columns["index"].reshape(len(columns["index"]), -1)[:, 0]
    # Distributed samplers repeat samples to give all processes equally many.
    _, rows = np.unique(first, return_index=True)
    return {name: values[rows] for name, values in columns.items()}


def _prototypes(columns: Columns, model: LightningModule, count: int) -> Columns:
    """Return the prototypes of each code; nothing with several codebooks or without latents."""
    if columns["tokens"].ndim != 1 or not {"operator", "latent"} <= columns.keys():
        return {}
    size = int(contract.model_attribute(model, "codebook_size", reader="TokenWriter"))
    tokens, operator, latent, training = (
        torch.from_numpy(columns[name]) for name in ("tokens", "operator", "latent", "training")
    )
    found: Columns = {}
    if callable(codes := getattr(model, "codes", None)):
        with torch.inference_mode():
            points = codes(torch.arange(size, device=model.device)).detach().float().cpu()
        found["codes"] = points.numpy()
    else:
        points = token_means(tokens[training], latent[training], size)
    latents = OperatorLatents.of(operator[training], latent[training])
    operators, distances = latents.nearest(points, count)
    return found | {"prototypes": operators.numpy(), "prototype_distances": distances.numpy()}


def _attributes(trainer: Trainer, pl_module: LightningModule) -> dict[str, object]:
    size = contract.model_attribute(pl_module, "codebook_size", reader="TokenWriter")
    attributes: dict[str, object] = {"model": type(pl_module).__name__, "codebook_size": int(size)}
    if (path := contract.known_property(trainer, "path")) is not None:
        attributes["dataset"] = Path(path).name
    if (generation := contract.known_property(trainer, "generation")) is not None:
        attributes["fingerprint"] = generation.fingerprint
    return attributes
