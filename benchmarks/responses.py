"""Speed of response features: `python -m benchmarks.responses [--device cuda] [--timesteps 100]`.

A sample is 5 realizations of 3 channels of smooth synthetic fields. Prints samples per second in
one batch and, on a CPU, sample by sample, as the generator computes them.
"""

import argparse
from collections.abc import Sequence

from benchmarks.features import CHANNELS, REALIZATIONS, seconds, synthetic
from spinlock.features.response import extract_responses


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--timesteps", type=int, default=1)
    options = parser.parse_args(args)
    fields = synthetic(options.samples, options.timesteps, options.grid, options.device)
    initial = synthetic(options.samples, 1, options.grid, options.device)[:, 0, 0].contiguous()

    shape = f"{REALIZATIONS}×{options.timesteps}×{CHANNELS}×{options.grid}×{options.grid}"
    total = seconds(lambda: extract_responses(initial, fields), options.device)
    print(f"{options.samples / total:.1f} samples/s of {shape} on {options.device} in one batch")
    if options.device == "cpu":

        def one_by_one() -> None:
            for u, trajectory in zip(initial.split(1), fields.split(1), strict=True):
                extract_responses(u, trajectory)

        total = seconds(one_by_one, options.device)
        print(f"{options.samples / total:.1f} samples/s one by one")


if __name__ == "__main__":
    main()
