"""Lightning data modules: batches of dataset files, or of samples simulated on the fly."""

from spinlock.datamodules.base_datamodule import BaseDataModule
from spinlock.datamodules.datasets import FeatureDataset
from spinlock.datamodules.loading import LoaderOptions
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.selection import VariantSelection
from spinlock.datamodules.spinlock_datamodule import SpinlockDataModule
from spinlock.datamodules.stream import SpinlockStream, SpinlockStreamModule
from spinlock.splits import split_operators

__all__ = [
    "BaseDataModule",
    "FeatureDataset",
    "FeatureScaler",
    "LoaderOptions",
    "SpinlockDataModule",
    "SpinlockStream",
    "SpinlockStreamModule",
    "VariantSelection",
    "split_operators",
]
