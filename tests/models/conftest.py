"""Small synthetic datasets for training."""

import pytest

from benchmarks.synthetic import write_synthetic
from tests.helpers import small_config


@pytest.fixture(scope="session")
def datasets(made_once):
    """Name -> (path, configuration)."""
    configs = {
        "probes": small_config(90, grid_size=16, probes_per_operator=3, num_realizations=1),
        "responses": small_config(
            90, grid_size=16, probes_per_operator=3, num_realizations=2, dynamics=True
        ),
        "no dynamics": small_config(90, grid_size=16, probes_per_operator=3, num_realizations=2),
        "transport": small_config(
            90,
            grid_size=16,
            probes_per_operator=3,
            num_realizations=2,
            dynamics=True,
            operator="transport",
        ),
        "one probe": small_config(60, grid_size=16, num_realizations=2, dynamics=True),
        "steps": small_config(60, grid_size=16, num_timesteps=2, num_realizations=1),
    }

    def write(folder):
        for name, config in configs.items():
            write_synthetic(folder / f"{name}.h5", config)

    folder = made_once("datasets of models", write)
    return {name: (folder / f"{name}.h5", config) for name, config in configs.items()}
