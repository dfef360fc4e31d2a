"""Lightning data modules."""

from spinlock.datamodules.feature_dataset import FeatureDataset
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.selection import VariantSelection
from spinlock.datamodules.spinlock_datamodule import SpinlockDataModule
from spinlock.datamodules.stream import SpinlockStream
from spinlock.splits import split_operators

__all__ = [
    "FeatureDataset",
    "FeatureScaler",
    "SpinlockDataModule",
    "SpinlockStream",
    "VariantSelection",
    "split_operators",
]
