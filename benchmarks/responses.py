"""Speed of response features: `python -m benchmarks.responses [--device cuda] [--processes 2]`.

A sample is 5 realizations of 3 channels of smooth synthetic fields. Prints samples per second in
one batch and, on a CPU, sample by sample, as the generator computes them.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence

from torch import Tensor

from benchmarks.features import parsed, rate, shape, synthetic
from spinlock.features.response import extract_responses


def _samples(options: Namespace) -> tuple[Tensor, Tensor]:
    fields = synthetic(options.samples, options.timesteps, options.grid, options.device)
    initial = synthetic(options.samples, 1, options.grid, options.device)[:, 0, 0].contiguous()
    return initial, fields


def in_one_batch(options: Namespace) -> Callable[[], object]:
    """Return a task that extracts the responses of all samples at once."""
    initial, fields = _samples(options)
    return lambda: extract_responses(initial, fields)


def one_by_one(options: Namespace) -> Callable[[], object]:
    """Return a task that extracts the responses of one sample after the other."""
    pairs = [*zip(*(tensor.split(1) for tensor in _samples(options)), strict=True)]
    return lambda: [extract_responses(*pair) for pair in pairs]


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    options = parsed(__doc__ or "", args)
    print(f"{rate(in_one_batch, options):.1f} samples/s of {shape(options)} in one batch")
    if options.device == "cpu":
        print(f"{rate(one_by_one, options):.1f} samples/s one by one")


if __name__ == "__main__":
    main()
