"""Datasets that several tests of checks read."""

import pytest

from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import (
    IntegerRange,
    LogUniformRange,
    ParameterSpaceConfig,
)
from spinlock.generation import generate
from tests.helpers import small_config


@pytest.fixture(scope="session")
def baseline(tmp_path_factory):
    """500 samples of the baseline's design and mixture, with small operators on a small grid."""
    path = tmp_path_factory.mktemp("baseline") / "baseline.h5"
    config = small_config(
        500, block_size=50, num_realizations=2, channels=2, storage=StorageConfig(shard_size=500)
    )
    generate(config, path, progress=False)
    return path


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """Enough samples for every row to be measurable. Tests damage copies of it."""
    path = tmp_path_factory.mktemp("pristine") / "pristine.h5"
    config = small_config(
        160,
        block_size=16,
        num_realizations=3,
        num_timesteps=4,
        channels=2,
        storage=StorageConfig(shard_size=160),
    )
    generate(config, path, progress=False)
    return path


@pytest.fixture(scope="session")
def transport(tmp_path_factory):
    """Transport operators whose networks contribute little, with two probes each."""
    path = tmp_path_factory.mktemp("transport") / "transport.h5"
    space = ParameterSpaceConfig(
        base_channels=IntegerRange(4, 8),
        grid_size=(24,),
        update_policy=("residual",),
        dt=LogUniformRange(0.01, 0.4),
    )
    config = GenerationConfig(
        64,
        parameter_space=space,
        operator="transport",
        probes_per_operator=2,
        num_realizations=2,
        channels=2,
        block_size=16,
        storage=StorageConfig(shard_size=64),
    )
    generate(config, path, progress=False)
    return path
