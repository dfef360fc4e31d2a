"""Shares of the variance of feature columns: `python -m benchmarks.operator_shares [--seed 2718]`.

Generates operators with four probes each, so that every operator meets every family of initial
conditions, or reads an existing dataset (``--data FILE``). Prints which share of each column the
variant and the operator explain, with 95 % confidence intervals. Fields are not stored.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from spinlock import GenerationConfig, ParameterSpaceConfig, StorageConfig, generate
from spinlock.metrics.variance_shares import variance_shares
from spinlock.storage import read_columns, read_info, schema

GROUPS = (
    schema.PER_TIMESTEP,
    schema.RESPONSES,
    schema.TRANSPORT_RESPONSES,
    schema.NOISE_RESPONSES,
)


def main(args: Sequence[str] | None = None) -> None:
    """Print the table of a new or of an existing dataset."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operators", type=int, default=2000)
    parser.add_argument("--grid", type=int, default=64)
    parser.add_argument("--seed", type=int, default=2718)
    parser.add_argument("--data", type=Path, help="existing dataset to read instead")
    options = parser.parse_args(args)
    if options.data is not None:
        print_shares(options.data)
        return
    config = GenerationConfig(
        4 * options.operators,
        probes_per_operator=4,
        seed=options.seed,
        parameter_space=ParameterSpaceConfig(grid_size=(options.grid,)),
        dynamics=False,
        storage=StorageConfig(fields="none"),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shares.h5"
        generate(config, path)
        print_shares(path)


def print_shares(path: Path) -> None:
    """Print the shares of the variance of each feature column of a dataset."""
    config = read_info(path).config
    names = (*GROUPS, schema.IC_TYPES, schema.OPERATOR_INDEX)
    columns = read_columns(path, names, config.num_samples)
    variant = torch.tensor([config.mixture.names.index(v) for v in columns[schema.IC_TYPES]])
    operator = torch.from_numpy(columns[schema.OPERATOR_INDEX])
    specs = schema.feature_specs(config)
    probes, grids = config.probes_per_operator, config.parameter_space.grid_size
    print(
        f"{config.num_samples // probes} operators x {probes} probes, grids of "
        f"{', '.join(map(str, grids))}, seed {config.seed}"
    )
    print(f"{'column':28} {'variant':>8} {'95 %':>13} {'operator':>9} {'95 %':>13}")
    for group in GROUPS:
        values = torch.from_numpy(columns[group]).reshape(config.num_samples, -1)
        shares = variance_shares(values, variant, operator)
        print(
            f"{group}: mean variant {shares.variant.mean():.2f}, operator "
            f"{shares.operator.mean():.2f}"
        )
        for column, name in enumerate(specs[group].names):
            texts = []
            for share, interval in (
                (shares.variant, shares.variant_interval),
                (shares.operator, shares.operator_interval),
            ):
                low, high = interval[column].tolist()
                texts.append(f"{share[column]:8.3f} [{low:5.3f}, {high:5.3f}]")
            print(f"{name:28} {' '.join(texts)}")


if __name__ == "__main__":
    main()
