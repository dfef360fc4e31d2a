"""Lightning data modules."""

from spinlock.datamodules.feature_dataset import FeatureDataset
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.spinlock_datamodule import SpinlockDataModule
from spinlock.datamodules.splits import split_operators

__all__ = ["FeatureDataset", "FeatureScaler", "SpinlockDataModule", "split_operators"]
