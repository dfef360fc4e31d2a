"""A callback and a model that tell what they were given, also to runs in other processes."""

import json
import os
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule


class BatchRecorder(Callback):
    """Writes each training batch to ``<path>.<rank>``, a line a batch, which begins with the epoch.

    Args:
        path: Where to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open(f"{self.path}.{trainer.global_rank}", "a") as file:
            print(describe(trainer.current_epoch, batch), file=file)


def describe(epoch, batch):
    """A line that differs where batches differ."""
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
