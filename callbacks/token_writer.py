"""Tokens of a whole dataset, in a file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray
from torch import distributed

from spinlock import contract
from spinlock.errors import ConfigurationError
from spinlock.runtime.output_files import check_output, new_file

_ENTRIES = ("index", "tokens", "token_sequence")


class TokenWriter(BasePredictionWriter):
    """Writes the tokens that ``trainer.predict`` gives to one HDF5 file, in order of sample index.

    ::

        index            [N]            int64   the sample's index in the dataset, ascending
        tokens           [N] or [N, Q]  int64   its codebook index, or one of each codebook
        token_sequence   [N, T]         int64   of sequence models

    Root attributes: ``codebook_size`` and ``model`` (its class), ``dataset`` (the file's name) and
    ``fingerprint`` of the dataset, where the data module tells them. With several processes, rank
    zero writes what all of them predicted. The file appears when it is complete, and is not written
    over.

    Needs ``index`` and ``tokens`` of what ``predict_step`` returns.

    Args:
        path: The file.

    Raises:
        ConfigurationError: The file is there already or belongs to the dataset, or its folder is
            not there; before predicting.
        ContractError: ``predict_step`` returned something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(write_interval="batch")
        self.path = Path(path)
        self._batches: list[dict[str, NDArray[np.int64]]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the path."""
        if stage != "predict":
            return
        check_output(self.path, source=contract.known_property(trainer, "path"))
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"the folder of {self.path} does not exist; make it")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew."""
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
        """Keep a batch's tokens."""
        there = prediction if isinstance(prediction, dict) else {}
        missing = [name for name in _ENTRIES[:2] if name not in there]
        if missing:
            raise contract.ContractError(
                f"TokenWriter needs {' and '.join(missing)} of what "
                f"{type(pl_module).__name__}.predict_step returns"
            )
        entries = {name: there[name].cpu().numpy() for name in _ENTRIES if name in there}
        self._batches.append(entries)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the tokens of all processes and write them."""
        columns = {
            name: np.concatenate([batch[name] for batch in self._batches])
            for name in (self._batches[0] if self._batches else ())
        }
        gathered = [columns]
        if trainer.world_size > 1:
            gathered = [{} for _ in range(trainer.world_size)]
            distributed.all_gather_object(gathered, columns)
        if trainer.is_global_zero:
            self._write([each for each in gathered if each], _attributes(trainer, pl_module))
        trainer.strategy.barrier("TokenWriter")

    def _write(
        self, parts: list[dict[str, NDArray[np.int64]]], attributes: dict[str, object]
    ) -> None:
        columns = {
            name: np.concatenate([part[name] for part in parts])
            for name in (parts[0] if parts else ())
        }
        if not columns:
            raise ConfigurationError(f"{self.path}: there was nothing to predict")
        # Distributed samplers repeat samples to give all processes equally many.
        _, rows = np.unique(columns["index"], return_index=True)
        with new_file(self.path) as temporary, h5py.File(temporary, "w") as file:
            for name, values in columns.items():
                file[name] = values[rows].astype(np.int64)
            file.attrs.update(attributes)


def _attributes(trainer: Trainer, pl_module: LightningModule) -> dict[str, object]:
    attributes: dict[str, object] = {"model": type(pl_module).__name__}
    size = getattr(pl_module, "codebook_size", None)
    if size is not None:
        attributes["codebook_size"] = int(torch.as_tensor(size))
    path = contract.known_property(trainer, "path")
    if path is not None:
        attributes["dataset"] = Path(path).name
    generation = contract.known_property(trainer, "generation")
    if generation is not None:
        attributes["fingerprint"] = generation.fingerprint
    return attributes
