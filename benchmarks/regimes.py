"""Regimes of long trajectories: `python -m benchmarks.regimes [--space default] [--samples 400]`.

Generates samples with the settings of configs/temporal_t100.yaml, or with the default axes on small
networks, and prints what `spinlock check` says about their trajectories, regimes by update policy
and normalization, and the time and size of the file.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from spinlock import GenerationConfig, ParameterSpaceConfig, StorageConfig, generate
from spinlock.checks import check_dataset
from spinlock.checks.trajectory_histories import read_trajectories
from spinlock.checks.trajectory_regimes import REGIMES
from spinlock.configuration.parameter_axes import IntegerRange
from spinlock.storage.dataset_file import DatasetFile

CONFIG = Path(__file__).parent.parent / "configs" / "temporal_t100.yaml"
# The default axes, except those that decide the cost.
SMALL = ParameterSpaceConfig(grid_size=(32,), kernel_size=(3,), base_channels=IntegerRange(4, 6))
DEFAULT = GenerationConfig(
    96,
    num_realizations=2,
    num_timesteps=100,
    parameter_space=SMALL,
    storage=StorageConfig(fields="last"),
    dynamics=False,
)


def main(args: Sequence[str] | None = None) -> None:
    """Generate the dataset and print the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", choices=("temporal_t100", "default"), default="temporal_t100")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1618)
    options = parser.parse_args(args)
    shipped = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["data"]["generation"]
    base = DEFAULT if options.space == "default" else GenerationConfig.from_dict(shipped)
    config = dataclasses.replace(base, num_samples=options.samples, seed=options.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectories.h5"
        start, processor = time.perf_counter(), time.process_time()
        generate(config, path)
        elapsed, processor = time.perf_counter() - start, time.process_time() - processor
        size = path.stat().st_size / 1e6
        rows = check_dataset(path, replay=0, progress=False).rows
        with DatasetFile.open(path) as source:
            found = read_trajectories(source, options.samples)
            values = source.parameter_values()
    print(f"{options.space}, {options.samples} samples, seed {options.seed}")
    print(f"{elapsed:.0f} s, {processor:.0f} s of processor time, {size:.1f} MB")
    for row in rows:
        if row.group == "trajectories":
            print(f"{row.name}: {row.measured}")
    # Networks of more than three layers have shortcuts that skip the normalization.
    kinds = [
        f"{row['update_policy'].decode()}, {row['normalization'].decode()}"
        f"{', over 3 layers' if row['num_layers'] > 3 else ''}"
        for row in values
    ]
    groups = np.array(kinds)
    for group in np.unique(groups):
        rows = groups == group
        counts = np.bincount(found.regimes[rows], minlength=len(REGIMES))
        parts = zip(REGIMES, 100 * counts / counts.sum(), strict=True)
        shares = ", ".join(f"{name} {part:.0f} %" for name, part in parts if part)
        print(f"{group} ({counts.sum()}): {shares}; {found.saturated[rows].sum()} saturated")


if __name__ == "__main__":
    main()
