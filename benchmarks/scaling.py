"""Scaling over processes: `python -m benchmarks.scaling [--samples 32]`.

Builds the same samples with one and with two worker processes of one thread each. Workers start and
compute a few samples before the measurement begins.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.generation import generate
from spinlock.generation.executors import LocalProcesses


def rate(config: GenerationConfig, workers: int) -> float:
    """Return the samples per second of a number of single-thread workers."""
    executor = LocalProcesses(num_workers=workers, threads_per_worker=1)
    with tempfile.TemporaryDirectory() as folder:
        warm = dataclasses.replace(config, num_samples=4 * workers, seed=config.seed + 1)
        generate(warm, Path(folder) / "warm.h5", executor=executor, progress=False)
        start = time.perf_counter()
        generate(config, Path(folder) / "dataset.h5", executor=executor, progress=False)
        seconds = time.perf_counter() - start
    executor.shutdown()
    return config.num_samples / seconds


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=128)
    options = parser.parse_args(args)
    # Small shards, so that two workers end at about the same time.
    config = GenerationConfig(options.samples, block_size=2, storage=StorageConfig(shard_size=2))
    rates = {workers: rate(config, workers) for workers in (1, 2)}
    for workers, value in rates.items():
        print(f"{workers} single-thread worker(s): {value:.2f} samples/s")
    print(f"two do {rates[2] / rates[1]:.2f} times the work of one")


if __name__ == "__main__":
    main()
