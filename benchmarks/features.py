"""Speed of feature extraction: `python -m benchmarks.features [--device cuda] [--timesteps 100]`.

A sample is 5 realizations of 3 channels of smooth synthetic fields. Prints samples per second and
the share of each group of features in the time, including standardization.
"""

import argparse
import time
from collections.abc import Callable, Sequence

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


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--timesteps", type=int, default=1)
    options = parser.parse_args(args)
    fields = synthetic(options.samples, options.timesteps, options.grid, options.device)

    total = seconds(lambda: extract(fields), options.device)
    shape = f"{REALIZATIONS}×{options.timesteps}×{CHANNELS}×{options.grid}×{options.grid}"
    print(f"{options.samples / total:.1f} samples/s of {shape} on {options.device}")
    groups = {
        "spatial": seconds(lambda: spatial_features(fields), options.device),
        "spectral": seconds(lambda: spectral_features(fields), options.device),
        "temporal": seconds(lambda: temporal_features(fields.transpose(2, 3)), options.device),
    }
    for name, spent in groups.items():
        print(f"{name:>9} {spent / sum(groups.values()):5.0%}")


if __name__ == "__main__":
    main()
