"""A callback that records batches, and a small model, importable by runs in other processes."""

import json
import os
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule


class BatchRecorder(Callback):
    """Writes one line for each training batch to ``<path>.<rank>``, which begins with the epoch.

    Args:
        path: Path of the files, without the rank.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open(f"{self.path}.{trainer.global_rank}", "a") as file:
            print(describe(trainer.current_epoch, batch), file=file)


def describe(epoch, batch):
    """Return a line of text that differs if batches differ."""
    content = {key: value.double().sum().item() for key, value in batch.items()}
    return json.dumps([epoch, batch["index"].tolist(), content])


class MeanModel(LightningModule):
    """Learns the mean of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.ones(46))

    def training_step(self, batch, batch_idx):
        return (batch["features"] - self.mean).square().mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log(f"val/{dataloader_idx}", self.training_step(batch, 0), add_dataloader_idx=False)

    test_step = predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
