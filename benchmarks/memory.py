"""Memory of generation: `python -m benchmarks.memory`.

Builds datasets of different sizes, each in its own process, and prints the peak resident memory of
each, and that of importing the package.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.generation import generate


def peak_bytes(num_samples: int, grid_size: int, base_channels: tuple[int, int]) -> int:
    """Return the peak memory of a process that builds a dataset; without samples, of imports."""
    arguments = [str(num_samples), str(grid_size), *map(str, base_channels)]
    command = [sys.executable, "-m", "benchmarks.memory", "--build", *arguments]
    root = Path(__file__).parent.parent
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return int(result.stdout.split()[-1])


def build(num_samples: int, grid_size: int, low: int, high: int) -> None:
    """Build a dataset and print the peak resident memory in bytes."""
    if num_samples:
        space = {"grid_size": [grid_size], "base_channels": {"low": low, "high": high}}
        config = GenerationConfig.from_dict({"num_samples": num_samples, "parameter_space": space})
        with tempfile.TemporaryDirectory() as folder:
            generate(config, Path(folder) / "dataset.h5", device="cpu", progress=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--build", nargs=4, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.build:
        build(*options.build)
        return
    imported = peak_bytes(0, 0, (0, 0))
    print(f"importing: {imported / 1e6:.0f} MB")
    small = {n: peak_bytes(n, 64, (8, 16)) for n in (200, 2000)}
    for num_samples, peak in small.items():
        print(f"{num_samples} samples at 64x64 (8..16 base channels): {peak / 1e6:.0f} MB")
    print(f"growth: {small[2000] / small[200] - 1:+.1%}")
    large = peak_bytes(64, 128, (16, 64))
    print(f"64 baseline samples at 128x128: {(large - imported) / 1e6:.0f} MB above importing")


if __name__ == "__main__":
    main()
