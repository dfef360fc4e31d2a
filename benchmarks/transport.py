"""Accuracy of measured transport: `python -m benchmarks.transport [--seed 1618]`.

Generates transport operators with the parameter space of configs/transport_10k.yaml and four probes
each. Prints, for each family of initial conditions, the correlation of the transport columns with
the true values, and the errors of the measured dynamics.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from spinlock import GenerationConfig, StorageConfig, generate
from spinlock.simulation.dynamics_rows import dynamics_names
from spinlock.storage import read_columns, schema
from spinlock.storage.columns import parameter_values

CONFIG = Path(__file__).parent.parent / "configs" / "transport_10k.yaml"
# Column of the responses, and of the dynamics -> axis of the operator.
RESPONSES = {
    "transport_x": "velocity_x",
    "transport_y": "velocity_y",
    "transport_diffusion": "diffusion",
}
DYNAMICS = {"shift_x": "velocity_x", "shift_y": "velocity_y", "diffusion": "diffusion"}


def main(args: Sequence[str] | None = None) -> None:
    """Generate the dataset and print the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operators", type=int, default=1000)
    parser.add_argument("--grid", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1618)
    options = parser.parse_args(args)
    base = GenerationConfig.from_dict(yaml.safe_load(CONFIG.read_text())["data"]["generation"])
    config = dataclasses.replace(
        base,
        num_samples=4 * options.operators,
        probes_per_operator=4,
        seed=options.seed,
        parameter_space=dataclasses.replace(base.parameter_space, grid_size=(options.grid,)),
        storage=StorageConfig(fields="none"),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transport.h5"
        generate(config, path)
        names = (schema.TRANSPORT_RESPONSES, schema.DYNAMICS, schema.IC_FAMILIES)
        names += schema.value_names(config)
        columns = read_columns(path, names, config.num_samples)
    values, families = parameter_values(columns, config), columns[schema.IC_FAMILIES]
    found = schema.feature_specs(config)[schema.TRANSPORT_RESPONSES].names
    print(f"{options.operators} operators, {options.grid} x {options.grid}, seed {options.seed}")
    for family in dict.fromkeys(config.mixture.families):
        rows = families == family
        scores = []
        for column, axis in RESPONSES.items():
            measured = columns[schema.TRANSPORT_RESPONSES][rows, -1, found.index(column)]
            r = np.corrcoef(measured, values[axis][rows])[0, 1]
            scores.append(f"{column} r = {r:.3f}")
        print(f"{family:16} {rows.sum():5d} samples: {', '.join(scores)}")
    own = values[:: config.probes_per_operator]
    for column, axis in DYNAMICS.items():
        measured = columns[schema.DYNAMICS][:, dynamics_names(config).index(column)]
        error = np.abs(measured - own[axis])
        size = np.ptp(own[axis])
        median, most = (np.quantile(error, level) / size for level in (0.5, 0.95))
        print(
            f"dynamics {column:10} r = {np.corrcoef(measured, own[axis])[0, 1]:.4f}; |error| / "
            f"range: median {median:.3%}, 95 % quantile {most:.3%}, at most 5 % for "
            f"{(error <= 0.05 * size).mean():.1%} of the operators"
        )


if __name__ == "__main__":
    main()
