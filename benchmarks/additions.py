"""Cost of responses and dynamics: `python -m benchmarks.additions [--samples 48] [--repeats 3]`.

Generates the same samples of the baseline without responses and dynamics, with responses, and with
both, in alternating order. Prints processor time, elapsed time and size of the file, and how much
the additions increase them (medians over the repeats).
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.dynamics import CONFIG
from benchmarks.machine import describe
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.generation import generate

ADDITIONS = {
    "nothing added": {"responses": False, "dynamics": False},
    "responses": {"responses": True, "dynamics": False},
    "responses and dynamics": {"responses": True, "dynamics": True},
}


def cost(config: GenerationConfig) -> tuple[float, float, int]:
    """Return processor time and elapsed time in seconds, and bytes, of generating a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.h5"
        elapsed, processor = time.perf_counter(), time.process_time()
        generate(config, path, progress=False)
        elapsed, processor = time.perf_counter() - elapsed, time.process_time() - processor
        return processor, elapsed, path.stat().st_size


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(args)
    data = yaml.safe_load(CONFIG.read_text())["data"]
    config = dataclasses.replace(
        GenerationConfig.from_dict(data["generation"]), num_samples=options.samples
    )
    cost(dataclasses.replace(config, num_samples=4))  # fills the caches
    costs = np.empty((options.repeats, len(ADDITIONS), 3))
    for repeat in range(options.repeats):
        for column in list(range(len(ADDITIONS)))[:: (-1) ** repeat]:
            added = dataclasses.replace(config, **list(ADDITIONS.values())[column])
            costs[repeat, column] = cost(added)
    typical, growth = np.median(costs, axis=0), np.median(costs / costs[:, :1] - 1, axis=0)
    print(describe(torch.device("cpu")))
    for name, (processor, elapsed, size), more in zip(ADDITIONS, typical, growth, strict=True):
        print(
            f"{name:>22}: processor time {processor:6.1f} s ({more[0]:+.1%}), "
            f"elapsed {elapsed:6.1f} s ({more[1]:+.1%}), file {size / 1e6:.2f} MB ({more[2]:+.2%})"
        )


if __name__ == "__main__":
    main()
