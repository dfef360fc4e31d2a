"""Rounding of a GPU, emulated: `python -m benchmarks.replay_tolerances [--samples 40] [--grid 64]`.

Generates baseline samples on a CPU with convolutions that round as those of a GPU may, in TF32 and
bfloat16, and recomputes them without that rounding, as `spinlock check` does. Prints the largest
relative deviation of each part of a sample, and the smallest one between samples of two operators.
The tolerances in `spinlock.checks.replay_tolerances` lie between them.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.generation import CONFIGS
from spinlock.checks import check_dataset
from spinlock.checks.replay_tolerances import Tolerance, deviation
from spinlock.configuration.generation_config import GenerationConfig, Precision
from spinlock.generation import generate
from spinlock.simulation import convolutional_operator
from spinlock.simulation.convolution import periodic_convolution

PRECISIONS: tuple[Precision, ...] = ("tf32", "bfloat16")
Compared = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any] | None]


def truncated(x: Tensor) -> Tensor:
    """Drop all but 10 bits of the mantissa, as a GPU may do to operands in TF32."""
    return (x.view(torch.int32) & -(1 << 13)).view(torch.float32)


def _tf32(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, tf32: bool = False) -> Tensor:
    if tf32:
        x, weight = truncated(x), truncated(weight)
    return periodic_convolution(x, weight, bias)


def _bfloat16(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, tf32: bool = False
) -> Tensor:
    """Round on another scale: a GPU multiplies by 1 / (1 - rate) where a CPU prunes."""
    if weight.dtype != torch.bfloat16:
        return periodic_convolution(x, weight, bias)
    return periodic_convolution(x * 1.37, weight, None if bias is None else bias * 1.37) / 1.37


@contextmanager
def rounding_of_a_gpu(precision: Precision) -> Iterator[None]:
    """Round convolutions on the CPU as a GPU may, in a ``with`` block."""
    emulated = {"tf32": _tf32, "bfloat16": _bfloat16}[precision]
    with patch.object(convolutional_operator, "periodic_convolution", emulated):
        yield


def mark_as_computed_on_a_gpu(path: Path) -> None:
    """Let a file name another device, so that `check` compares within tolerances."""
    with h5py.File(path, "r+") as file:
        file.attrs["device"] = json.dumps([{"type": "cuda", "name": "emulated"}])


def compared(config: GenerationConfig) -> list[list[Compared]]:
    """Return what `check` compares of each sample: part, stored, recomputed, unchanged values."""
    found: list[Compared] = []

    def keep(tolerance: Tolerance, *values: Any) -> bool:  # noqa: ANN401 (arrays)
        found.append((tolerance.part, *values))
        return True

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "emulated.h5"
        with rounding_of_a_gpu(config.precision):
            generate(config, path, device="cpu", progress=False)
        mark_as_computed_on_a_gpu(path)
        with patch.object(Tolerance, "holds", keep):
            check_dataset(path, replay=config.num_samples, device="cpu", progress=False)
    size = len(found) // config.num_samples
    return [found[first : first + size] for first in range(0, len(found), size)]


def deviations(one: list[Compared], two: list[Compared]) -> dict[str, float]:
    """Return the largest deviation of each part of a stored sample from a recomputed one."""
    largest: dict[str, float] = {}
    for (part, stored, _, _), (_, _, expected, unchanged) in zip(one, two, strict=True):
        # The noise of a sample may be too weak to be compared.
        if stored.shape == expected.shape:
            value = deviation(stored, expected, unchanged)
            largest[part] = max(largest.get(part, 0.0), value)
    return largest


def main(args: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--grid", type=int, default=64)
    options = parser.parse_args(args)
    data = yaml.safe_load((CONFIGS / "baseline_10k.yaml").read_text())["data"]
    config = GenerationConfig.from_dict(data["generation"])
    space = dataclasses.replace(config.parameter_space, grid_size=(options.grid,))
    config = dataclasses.replace(config, num_samples=options.samples, parameter_space=space)
    print(f"{options.samples} samples on {options.grid} x {options.grid}")
    print(f"{'precision':12} {'part':12} {'largest':>9} {'two samples':>12}")
    for precision in PRECISIONS:
        samples = compared(dataclasses.replace(config, precision=precision))
        probes = config.probes_per_operator
        same = [deviations(sample, sample) for sample in samples]
        other = [
            deviations(one, two)
            for i, one in enumerate(samples)
            for j, two in enumerate(samples)
            if i // probes != j // probes
        ]
        for part in ("fields", "features", "dynamics"):
            largest = max(values[part] for values in same)
            smallest = min((values[part] for values in other), default=float("nan"))
            print(f"{precision:12} {part:12} {largest:9.4f} {smallest:12.4f}")


if __name__ == "__main__":
    main()
