"""Speed of generation: `python -m benchmarks.generation [--samples 64] [--device cuda]`.

Builds the first samples of a shipped configuration into a temporary folder, end to end. Prints
samples per second, time by stage, peak memory, and the achieved FLOP/s, which count the
convolutions of each operator as direct sums, whatever algorithm ran. A large float32 matrix product
is measured before and after for comparison.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from benchmarks.machine import describe, matrix_product_rate
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import typed_row
from spinlock.generation import generate
from spinlock.runtime.device_choice import choose_device
from spinlock.simulation.parameter_count import parameter_count
from spinlock.simulation.sobol_design import make_design
from spinlock.storage import read_info

CONFIGS = Path(__file__).parent.parent / "configs"
# Stages that consist of convolutions: applying and calibrating operators.
CONVOLUTIONS = ("convolutions", "calibration")


def application_flops(config: GenerationConfig) -> float:
    """Count the operations of direct sums: per operator F(u_0), then M fields per timestep."""
    fields = 1 + (config.num_timesteps - 1) * config.num_realizations
    rows = make_design(config).values
    weights = sum(parameter_count(typed_row(row), config.channels) for row in rows)
    return 2 * weights * config.grid_size**2 * fields


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="baseline_10k", help="name under configs/")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--timesteps", type=int)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device")
    options = parser.parse_args(args)
    device = choose_device(options.device)
    data = yaml.safe_load((CONFIGS / f"{options.config}.yaml").read_text())["data"]
    config = dataclasses.replace(
        GenerationConfig.from_dict(data["generation"]),
        num_samples=options.samples,
        precision=options.precision,
    )
    if options.timesteps:
        config = dataclasses.replace(config, num_timesteps=options.timesteps)

    rates = [matrix_product_rate(device)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.h5"
        # The first sample fills caches and loads libraries and kernels, so it is not timed.
        warm = dataclasses.replace(config, num_samples=1)
        generate(warm, Path(folder) / "warm.h5", device=device, progress=False)
        start = time.perf_counter()
        generate(config, path, device=device, progress=False)
        seconds = time.perf_counter() - start
        summary = read_info(path).run_summary
    rates.append(matrix_product_rate(device))

    flops = application_flops(config)
    stages = summary["stage_seconds"]
    total = sum(stages.values())
    convolutions = sum(stages.get(name, 0.0) for name in CONVOLUTIONS)
    print(f"{options.config}, {options.samples} samples on {describe(device)}, {config.precision}")
    print(f"{options.samples / seconds:.2f} samples/s end to end ({seconds:.1f} s)")
    for name, spent in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"  {name:<20} {spent:7.2f} s {spent / total:6.1%}")
    print(f"everything but convolutions: {1 - convolutions / total:.1%} of that time")
    print(f"achieved {flops / seconds / 1e9:.0f} GFLOP/s (direct count of one application each)")
    print(f"matrix product {rates[0] / 1e9:.0f} and {rates[1] / 1e9:.0f} GFLOP/s; ratio", end=" ")
    print(f"{flops / seconds / max(rates):.2f}")
    print(f"compression ratio {summary['compression_ratio']:.3f}")
    print(f"peak memory: host {summary['peak_host_bytes'] / 1e9:.2f} GB", end=", ")
    print(
        f"device {torch.cuda.max_memory_allocated() / 1e9 if device.type == 'cuda' else 0:.2f} GB"
    )


if __name__ == "__main__":
    main()
