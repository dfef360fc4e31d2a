"""Functions shared by the tests of checks."""

from spinlock.configuration.file_content import StorageConfig
from spinlock.generation import generate
from tests.helpers import small_config


def names(rows):
    """Groups and names of rows."""
    return {(row.group, row.name) for row in rows}


def make(tmp_path, num_samples=40, **options):
    """Generate a small dataset and return its path."""
    path = tmp_path / "data.h5"
    options.setdefault("storage", StorageConfig(shard_size=160))
    config = small_config(num_samples, channels=1, block_size=20, **options)
    generate(config, path, progress=False)
    return path
