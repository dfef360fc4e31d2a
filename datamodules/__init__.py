"""Lightning data modules."""

from spinlock.datamodules.feature_dataset import FeatureDataset
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.selection import VariantSelection
from spinlock.datamodules.spinlock_datamodule import SpinlockDataModule
from spinlock.datamodules.splits import split_operators
from spinlock.datamodules.stream import SpinlockStream

__all__ = [
    "FeatureDataset",
    "FeatureScaler",
    "SpinlockDataModule",
    "SpinlockStream",
    "VariantSelection",
    "split_operators",
]
