"""Dataset files: their layout, compression, shards, assembly, verification and reading."""

from spinlock.storage.reader import DatasetInfo, read_columns, read_info, require_dataset
from spinlock.storage.token_file import TokenFile, read_tokens

__all__ = [
    "DatasetInfo",
    "TokenFile",
    "read_columns",
    "read_info",
    "read_tokens",
    "require_dataset",
]
