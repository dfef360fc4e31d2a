"""The dataset file: layout, compression, shards, assembly and reading."""

from spinlock.storage.reader import DatasetInfo, read_columns, read_info, require_dataset

__all__ = ["DatasetInfo", "read_columns", "read_info", "require_dataset"]
