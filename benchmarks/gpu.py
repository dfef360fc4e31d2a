"""Checks and measures the simulation on a GPU: agreement, speed, and costly operations.

It prints, in this order: the device and versions; whether kernels agree with the plain computation,
by precision; how far baseline samples of the GPU are from those of the CPU, and from themselves
when they are computed again or in another range; calls that wait for the device within a block; the
samples per second of the simulation by precision, without and with dynamics, and with 50 timesteps;
and the operations of the device that take most of the time. `python -m benchmarks.generation
--device cuda` measures whole datasets, files included.
"""

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.machine import describe
from spinlock.configuration.generation_config import GenerationConfig, Precision
from spinlock.configuration.parameter_axes import ParameterSpaceConfig
from spinlock.kernels.grouped_convolution import CONVOLUTION_TILE, convolve
from spinlock.kernels.layer_table import Column, tiles
from spinlock.kernels.operands import make_operands, write_operands
from spinlock.runtime.device_choice import choose_device
from spinlock.runtime.device_record import device_record
from spinlock.simulation.kernel_check import computes_together, fields_difference
from spinlock.simulation.samples import Samples
from spinlock.simulation.simulator import Simulator

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
# Tolerances that `spinlock check` allows between devices in float32.
RELATIVE, ABSOLUTE = 1e-3, 1e-4


def fields_of(simulator: Simulator, start: int, stop: int) -> torch.Tensor:
    """Return the fields of a range of samples."""
    return torch.cat([part.fields for part in simulator.samples(start, stop)])


def convolution_error(
    device: torch.device, precision: Precision, channels: int = 256, kernel: int = 7
) -> float:
    """Return the error of the sums of a wide layer, relative to exact sums of the same operands."""
    side, size = 16, 16**2 * channels
    row = [0] * len(Column)
    row[Column.FAN_IN] = row[Column.FAN_OUT] = row[Column.WIDTH] = channels
    row[Column.KERNEL], row[Column.SIDE], row[Column.PIXELS] = kernel, side, side**2
    pixels, outputs = CONVOLUTION_TILE
    problems = torch.tensor([row])
    tile_list = torch.from_numpy(tiles(np.array([side**2 // pixels * -(-channels // outputs)])))
    generator = torch.Generator().manual_seed(0)
    operands = []
    for count in (size, kernel**2 * channels**2):
        parts = make_operands(count, precision, torch.device("cpu"))
        write_operands(torch.rand(count, generator=generator) - 0.25, *parts)
        operands += parts
    sums = []
    for where in (torch.device("cpu"), device):
        given = [part.to(where) for part in operands]
        out = torch.zeros(size, device=where)
        convolve(*given, out, problems.to(where), tile_list.to(where))
        sums.append(out.cpu().double())
    exact, found = sums
    return float((found - exact).norm() / exact.norm())


def show_agreement(device: torch.device) -> None:
    """Compare kernels with the plain computation."""
    for precision in PRECISIONS:
        error = convolution_error(device, precision)
        print(f"{precision}: error of the sums of 7 x 7 x 256 products {error:.2g}")
        start = time.perf_counter()
        with torch.inference_mode():
            difference = fields_difference(device, precision)
        seconds = time.perf_counter() - start
        print(f"{precision}: kernels differ by {difference:.2g} from torch ({seconds:.1f} s)")


def show_replay(config: GenerationConfig, device: torch.device, samples: int) -> None:
    """Compare samples with those of the CPU, and with themselves."""
    simulator = Simulator(config, device)
    here = fields_of(simulator, 0, samples)
    there = fields_of(Simulator(config, "cpu"), 0, samples)
    excess = ((here - there).abs() - RELATIVE * there.abs() - ABSOLUTE).flatten(1)
    outside = int((excess > 0).any(dim=1).sum())
    print(f"{outside} of {samples} samples are outside rtol {RELATIVE:g}, atol {ABSOLUTE:g}")
    print(f"largest difference from the CPU: {float((here - there).abs().max()):.2g}")
    again = torch.equal(here, fields_of(simulator, 0, samples))
    part = torch.equal(here[1:], fields_of(simulator, 1, samples))
    print(f"equal bytes when computed again: {again}; in another range: {part}")


def show_waits(config: GenerationConfig, device: torch.device) -> None:
    """Count the calls that wait for the device while a block is computed, by line."""
    simulator, size = Simulator(config, device), config.block_size
    list(simulator.samples(0, size))
    seen: Counter[str] = Counter()

    def count(message: object, category: object, filename: str, line: int, *rest: object) -> None:
        seen[f"{filename.rpartition('spinlock/')[2]}:{line}"] += 1

    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        torch.cuda.set_sync_debug_mode("warn")
        try:
            list(simulator.samples(size, 2 * size))
        finally:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = shown
    print(f"calls that wait in a block of {size}: {seen.total()} {seen.most_common(12)}")


def show_speed(config: GenerationConfig, device: torch.device, samples: int, text: str) -> None:
    """Measure the simulation of samples, after the first block has compiled everything."""
    simulator, size = Simulator(config, device), config.block_size
    cold = seconds_of(lambda: list(simulator.samples(0, size)), device)
    processor = time.process_time()

    def compute() -> list[Samples]:
        return list(simulator.samples(size, size + samples))

    warm = seconds_of(compute, device)
    processor = (time.process_time() - processor) / samples * 1e3
    together = "together" if computes_together(config, device) else "one by one"
    print(
        f"{text}, operators {together}: {samples / warm:.1f} samples/s, {processor:.2f} ms of the "
        f"host's processors a sample; first block {cold:.1f} s"
    )


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Return the wall-clock time of a function, until the device is done."""
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def show_operations(config: GenerationConfig, device: torch.device, rows: int = 25) -> None:
    """Print the operations that take most of the device's time in a block."""
    simulator, size = Simulator(config, device), config.block_size
    list(simulator.samples(0, size))
    kind = torch.profiler.ProfilerActivity
    activities = [kind.CPU] if device.type == "cpu" else [kind.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        list(simulator.samples(size, 2 * size))
    key = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    print(profile.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=60))


def main(args: Sequence[str] | None = None) -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--samples", type=int, default=200, help="samples to compare with the CPU")
    parser.add_argument("--timed", type=int, default=1024, help="samples to measure the speed of")
    parser.add_argument("--grid", type=int, default=128, help="side of the grid in pixels")
    parser.add_argument("--block", type=int, default=64, help="samples of a block")
    options = parser.parse_args(args)
    device = choose_device(options.device)
    space = ParameterSpaceConfig(grid_size=(options.grid,))
    config = GenerationConfig(
        2**20, parameter_space=space, block_size=options.block, dynamics=False
    )
    print(describe(device), device_record(device), f"torch {torch.__version__}")
    show_agreement(device)
    show_replay(config, device, options.samples)
    if device.type == "cuda":
        show_waits(config, device)
    for precision in PRECISIONS:
        show_speed(replace(config, precision=precision), device, options.timed, precision)
    show_speed(replace(config, dynamics=True), device, options.timed, "float32 with dynamics")
    # As in configs/temporal_t50.yaml: 50 timesteps of a block of 64 samples would need 10 GB.
    long = replace(
        config,
        num_timesteps=50,
        block_size=min(4, options.block),
        storage=replace(config.storage, fields="none"),
    )
    show_speed(long, device, max(options.timed // 16, 1), "float32, 50 timesteps")
    show_operations(config, device)
    if device.type == "cuda":
        print(f"peak device memory {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
