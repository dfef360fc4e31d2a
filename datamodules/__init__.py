"""Lightning data modules: batches of dataset files, or of samples simulated on the fly."""

from spinlock.datamodules.base_datamodule import BaseDataModule
from spinlock.datamodules.column_groups import ViewOptions
from spinlock.datamodules.datasets import FeatureDataset
from spinlock.datamodules.invariant_columns import InvariantColumns
from spinlock.datamodules.loading import LoaderOptions
from spinlock.datamodules.sample_batch import collate_samples
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.selection import VariantSelection
from spinlock.datamodules.spinlock_datamodule import SpinlockDataModule
from spinlock.datamodules.stream import SpinlockStream
from spinlock.datamodules.stream_datamodule import SpinlockStreamModule
from spinlock.splits import split_operators

__all__ = [
    "BaseDataModule",
    "FeatureDataset",
    "FeatureScaler",
    "InvariantColumns",
    "LoaderOptions",
    "SpinlockDataModule",
    "SpinlockStream",
    "SpinlockStreamModule",
    "VariantSelection",
    "ViewOptions",
    "collate_samples",
    "split_operators",
]
