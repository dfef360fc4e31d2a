"""What the tests of the data module share."""

import torch

from spinlock import SpinlockDataModule


def ready(path, config, **options):
    """A data module whose file is built, set up."""
    options.setdefault("batch_size", 8)
    datamodule = SpinlockDataModule(path, config, progress=False, **options)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def collect(loader):
    """All batches of an epoch in one."""
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def loaders(datamodule):
    """Split -> loader."""
    return {
        "train": datamodule.train_dataloader(),
        "val": datamodule.val_dataloader(),
        "test": datamodule.test_dataloader(),
    }
