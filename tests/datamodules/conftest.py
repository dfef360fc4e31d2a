"""Small synthetic datasets, written once for all tests of the data module."""

import pytest

from benchmarks.synthetic import write_synthetic
from tests.helpers import small_config

CONFIGS = {
    # One timestep; enough samples for every variant to occur.
    "single": small_config(120, num_realizations=2),
    # Three probes of each operator.
    "probed": small_config(90, probes_per_operator=3, num_realizations=1),
    # Trajectories of three steps, three realizations.
    "steps": small_config(30, num_timesteps=3, num_realizations=3),
}


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """Map each name in `CONFIGS` to (path, configuration)."""
    folder = tmp_path_factory.mktemp("datasets")
    for name, config in CONFIGS.items():
        write_synthetic(folder / f"{name}.h5", config)
    return {name: (folder / f"{name}.h5", config) for name, config in CONFIGS.items()}


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    """`seed_everything` stores its seed in the environment, which would affect other tests."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
