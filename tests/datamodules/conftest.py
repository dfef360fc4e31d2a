"""Small synthetic datasets, written once for all tests of the data module."""

import pytest

from benchmarks.synthetic import write_synthetic
from tests.helpers import small_config

CONFIGS = {
    # One timestep; enough samples for every variant to occur.
    "single": small_config(120, num_realizations=2),
    # Three probes of each operator.
    "probed": small_config(90, probes_per_operator=3, num_realizations=1),
    # Three probes and two realizations, with dynamics.
    "responding": small_config(150, probes_per_operator=3, num_realizations=2, dynamics=True),
    # Trajectories of three steps, three realizations.
    "steps": small_config(30, num_timesteps=3, num_realizations=3),
}


@pytest.fixture(scope="session")
def datasets(made_once):
    """Map each name in `CONFIGS` to (path, configuration)."""

    def write(folder):
        for name, config in CONFIGS.items():
            write_synthetic(folder / f"{name}.h5", config)

    folder = made_once("datasets of data modules", write)
    return {name: (folder / f"{name}.h5", config) for name, config in CONFIGS.items()}


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    """`seed_everything` stores its seed in the environment, which would affect other tests."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
