"""Helpers for tests of the data module."""

import torch

from spinlock import SpinlockDataModule


def ready(path, config, **options):
    """Return a data module after `prepare_data` and `setup`."""
    options.setdefault("batch_size", 8)
    datamodule = SpinlockDataModule(path, config, progress=False, **options)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def collect(loader):
    """Concatenate all batches of an epoch."""
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def loaders(datamodule):
    """Return the loader of each split."""
    return {
        "train": datamodule.train_dataloader(),
        "val": datamodule.val_dataloader(),
        "test": datamodule.test_dataloader(),
    }
