"""Measures the speed of the machine, for comparison in the same run."""

import time

import torch


def matrix_product_rate(device: torch.device, size: int = 4096, runs: int = 5) -> float:
    """Return the FLOP/s of the fastest of several large float32 matrix products on all cores."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(size, size, generator=generator).to(device)
    best = float("inf")
    for _ in range(runs + 1):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def describe(device: torch.device) -> str:
    """Describe the device and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
