"""Generation of a dataset file in shards, on one machine or on several."""

from spinlock.generation.build import generate
from spinlock.generation.executors import DaskExecutor, LocalProcesses
from spinlock.generation.feature_extraction import extract_features

__all__ = ["DaskExecutor", "LocalProcesses", "extract_features", "generate"]
