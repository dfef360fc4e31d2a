"""Dataset files: their layout, compression, shards, assembly, verification and reading."""

from spinlock.storage.reader import DatasetInfo, read_columns, read_info, require_dataset

__all__ = ["DatasetInfo", "read_columns", "read_info", "require_dataset"]
