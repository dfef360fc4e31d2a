"""Writes the tokens of a whole dataset to a file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray

from spinlock import contract
from spinlock.errors import ConfigurationError
from spinlock.runtime.output_files import check_output, new_file
from spinlock.runtime.processes import gather_objects

_ENTRIES = ("index", "tokens", "token_sequence")


class TokenWriter(BasePredictionWriter):
    """Writes the tokens predicted by ``trainer.predict`` to one HDF5 file, sorted by sample index.

    ::

        index            [N]            int64   index of the sample in the dataset, ascending
        tokens           [N] or [N, Q]  int64   its codebook index, or one for each level
        token_sequence   [N, T]         int64   its codebook index at each timestep, if there is one

    Root attributes: ``codebook_size``, ``model`` (its class name), and ``dataset`` (the file name)
    and ``fingerprint`` of the dataset if the data module has them. With several processes, rank
    zero writes the predictions of all. The file appears when it is complete; an existing file is
    never overwritten.

    Needs ``index`` and ``tokens`` in the return value of ``predict_step``, and the model's
    ``codebook_size``.

    Args:
        path: Path of the file to write.

    Raises:
        ConfigurationError: The file exists or belongs to the dataset, or its folder does not exist;
            before predicting.
        ContractError: The model or the return value of ``predict_step`` lacks what is needed.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import TokenWriter
        >>> trainer = Trainer(callbacks=[TokenWriter("tokens.h5")], logger=False)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(write_interval="batch")
        self.path = Path(path)
        self._batches: list[dict[str, NDArray[np.int64]]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the path and the model."""
        if stage == "predict":
            contract.model_attribute(pl_module, "codebook_size", reader="TokenWriter")
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
        missing = [name for name in _ENTRIES[:2] if name not in found]
        if missing:
            raise contract.ContractError(
                f"TokenWriter needs {' and '.join(missing)} in the return value of "
                f"{type(pl_module).__name__}.predict_step"
            )
        self._batches.append(
            {name: found[name].cpu().numpy() for name in _ENTRIES if name in found}
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the tokens of all processes and write them."""
        parts = [batch for batches in gather_objects(self._batches) for batch in batches]
        if trainer.is_global_zero:
            self._write(parts, _attributes(trainer, pl_module))
        trainer.strategy.barrier("TokenWriter")

    def _write(
        self, parts: list[dict[str, NDArray[np.int64]]], attributes: dict[str, object]
    ) -> None:
        if not parts:
            raise ConfigurationError(f"{self.path}: there was nothing to predict")
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        # Distributed samplers repeat samples to give all processes equally many.
        _, rows = np.unique(columns["index"], return_index=True)
        with new_file(self.path) as temporary, h5py.File(temporary, "w") as file:
            for name, values in columns.items():
                file[name] = values[rows].astype(np.int64)
            file.attrs.update(attributes)


def _attributes(trainer: Trainer, pl_module: LightningModule) -> dict[str, object]:
    size = contract.model_attribute(pl_module, "codebook_size", reader="TokenWriter")
    attributes: dict[str, object] = {"model": type(pl_module).__name__, "codebook_size": int(size)}
    if (path := contract.known_property(trainer, "path")) is not None:
        attributes["dataset"] = Path(path).name
    if (generation := contract.known_property(trainer, "generation")) is not None:
        attributes["fingerprint"] = generation.fingerprint
    return attributes
