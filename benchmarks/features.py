"""Speed of feature extraction: `python -m benchmarks.features [--device cuda] [--processes 2]`.

A sample is 5 realizations of 3 channels of smooth synthetic fields. Prints samples per second and
the share of each group of features in the time, including standardization.
"""

import argparse
import multiprocessing
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from threading import Barrier

import torch
from torch import Tensor

from spinlock.features import extract, spatial_features, spectral_features, temporal_features

REALIZATIONS, CHANNELS = 5, 3


def synthetic(samples: int, timesteps: int, grid: int, device: str) -> Tensor:
    """Return sine waves of random orientation and phase plus noise, [N, M, T, C, H, W]."""
    generator = torch.Generator().manual_seed(0)
    shape = (samples, REALIZATIONS, timesteps, CHANNELS, grid, grid)
    noise = torch.randn(shape, generator=generator)
    kx, ky, phase = 6.28 * torch.rand(3, *shape[:4], 1, 1, generator=generator)
    x = torch.linspace(0, 1, grid)
    return (torch.sin(kx * x + ky * x[:, None] + phase) + 0.1 * noise).to(device)


def seconds(task: Callable[[], object], device: str) -> float:
    """Return the best time of three runs, after one that fills the caches."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        task()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def parsed(description: str, args: Sequence[str] | None) -> Namespace:
    """Return the options of a benchmark of features."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--timesteps", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="with one thread each, at once")
    return parser.parse_args(args)


def shape(options: Namespace) -> str:
    """Describe the samples of a benchmark."""
    size = (REALIZATIONS, options.timesteps, CHANNELS, options.grid, options.grid)
    return f"{'×'.join(map(str, size))} on {options.device}"


def rate(task: Callable[[Namespace], Callable[[], object]], options: Namespace) -> float:
    """Return the samples per second of a task.

    Several processes do it at once and measure their processor time; their rates are added.

    Args:
        task: Function of a module, which prepares the samples and returns what is measured.
        options: Options of the benchmark.
    """
    if options.processes == 1:
        return options.samples / seconds(task(options), options.device)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(options.processes)
    with ProcessPoolExecutor(options.processes, context, _start, (barrier,)) as processes:
        rates = [
            processes.submit(_rate_beside_others, task, options) for _ in range(options.processes)
        ]
        return sum(each.result() for each in rates)


def _start(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)


def _rate_beside_others(
    task: Callable[[Namespace], Callable[[], object]], options: Namespace
) -> float:
    run = task(options)
    run()
    _barrier.wait()
    # Processor time: what other programs take of a core is not counted.
    start = time.process_time()
    for _ in range(3):
        run()
    return 3 * options.samples / (time.process_time() - start)


def all_features(options: Namespace) -> Callable[[], object]:
    """Return a task that extracts the features of all samples."""
    fields = synthetic(options.samples, options.timesteps, options.grid, options.device)
    return lambda: extract(fields)


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    options = parsed(__doc__ or "", args)
    print(f"{rate(all_features, options):.1f} samples/s of {shape(options)}")
    fields = synthetic(options.samples, options.timesteps, options.grid, options.device)
    groups = {
        "spatial": seconds(lambda: spatial_features(fields), options.device),
        "spectral": seconds(lambda: spectral_features(fields), options.device),
        "temporal": seconds(lambda: temporal_features(fields.transpose(2, 3)), options.device),
    }
    for name, spent in groups.items():
        print(f"{name:>9} {spent / sum(groups.values()):5.0%}")


if __name__ == "__main__":
    main()
