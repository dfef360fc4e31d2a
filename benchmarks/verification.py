"""Speed of verification: of the samples of a file, and in `setup` of the data module.

    python -m benchmarks.verification

Rates are bytes of field values per second of processor time, that is, per core.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.synthetic import write_synthetic
from spinlock import GenerationConfig, SpinlockDataModule
from spinlock.configuration.file_content import StorageConfig
from spinlock.storage import read_info, schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import column_digest, require_seal
from spinlock.storage.verify import damaged_samples


def best(task: Callable[[], object], clock: Callable[[], float], runs: int) -> float:
    """Return the smallest time of some runs."""
    times = []
    for _ in range(runs):
        start = clock()
        task()
        times.append(clock() - start)
    return min(times)


def measure_reading(folder: Path, samples: int, runs: int) -> None:
    """Print the rate at which the samples of a baseline file are compared with their digests."""
    path = folder / "fields.h5"
    write_synthetic(path, GenerationConfig(samples))
    with DatasetFile.open(path) as dataset:
        size = sum(dataset.file[spec.name].nbytes for spec in dataset.fields)
        busy = best(lambda: damaged_samples(dataset), time.process_time, runs)
        wall = best(lambda: damaged_samples(dataset), time.perf_counter, runs)
    print(f"verifying {samples} baseline samples ({size / 1e6:.0f} MB of fields):")
    print(f"  {size / busy / 1e6:.0f} MB/s a core, {size / wall / 1e6:.0f} MB/s elapsed")


def measure_setup(folder: Path, samples: int, runs: int) -> None:
    """Print the time of `setup`, and of its verification."""
    path = folder / "features.h5"
    write_synthetic(path, GenerationConfig(samples, storage=StorageConfig(fields="none")))
    config = read_info(path).config

    def setup() -> None:
        SpinlockDataModule(path, config, progress=False).setup()

    columns = (
        schema.IC_TYPES,
        schema.IC_FAMILIES,
        schema.PARAMS,
        *schema.value_names(config),
        schema.OPERATOR_INDEX,
        schema.PER_TIMESTEP,
        schema.INITIAL_FEATURES,
    )

    def verify() -> None:
        with DatasetFile.open(path) as dataset:
            require_seal(dataset)
            for name in columns:
                column_digest(dataset, name)

    whole, part = (best(task, time.perf_counter, runs) for task in (setup, verify))
    print(f"setup of {samples} samples: {whole * 1e3:.0f} ms, of which reading and verifying")
    print(f"  columns and attributes: {part * 1e3:.0f} ms")


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=200, help="samples with fields")
    parser.add_argument("--setup-samples", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(args)
    print(describe(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        measure_reading(Path(folder), options.samples, options.runs)
        measure_setup(Path(folder), options.setup_samples, options.runs)


if __name__ == "__main__":
    main()
