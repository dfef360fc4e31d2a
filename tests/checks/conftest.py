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
def baseline(made_once):
    """200 samples of the baseline's design and mixture, with small operators on a small grid."""
    config = small_config(
        200, block_size=50, num_realizations=2, channels=2, storage=StorageConfig(shard_size=200)
    )
    folder = made_once(
        "baseline", lambda folder: generate(config, folder / "baseline.h5", progress=False)
    )
    return folder / "baseline.h5"


@pytest.fixture(scope="session")
def pristine(made_once):
    """Enough samples for every row to be measurable. Tests damage copies of it."""
    config = small_config(
        160,
        block_size=16,
        num_realizations=3,
        num_timesteps=4,
        channels=2,
        storage=StorageConfig(shard_size=160),
    )
    folder = made_once(
        "pristine", lambda folder: generate(config, folder / "pristine.h5", progress=False)
    )
    return folder / "pristine.h5"


@pytest.fixture(scope="session")
def transport(made_once):
    """Transport operators whose networks contribute little, with two probes each."""
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
    folder = made_once(
        "transport", lambda folder: generate(config, folder / "transport.h5", progress=False)
    )
    return folder / "transport.h5"
