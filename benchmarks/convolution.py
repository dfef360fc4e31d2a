"""Speed of convolutions on one CPU thread: `python -m benchmarks.convolution [--fit]`.

Prints the GFLOP/s of torch's convolution and of the method that the package chooses for layers of
the baseline's operators. Both count direct sums. A large matrix product is measured in the same
run. Times are CPU times of the thread, so other programs on the machine have little effect.

``--fit`` measures every method on a grid of shapes and prints the constants of the cost model in
`spinlock.simulation.convolution`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor

from spinlock.simulation import convolution
from spinlock.simulation.convolution import (
    direct_convolution,
    periodic_convolution,
    prepared,
)
from spinlock.simulation.fourier_tiles import tiled_convolution

CHANNELS = ((3, 64), (32, 32), (64, 64), (128, 128), (256, 256))
FIT_CHANNELS = (
    *((3, 20), (3, 64), (16, 16), (16, 32), (32, 32), (32, 64), (48, 96), (64, 64), (64, 128)),
    *((128, 128), (128, 256), (200, 200), (256, 256)),
)
FIT_FIELDS = ((1, 128), (5, 128), (1, 64), (5, 64), (1, 32), (8, 16), (8, 8), (2, 50))


def seconds(task: Callable[[], object], repetitions: int = 3) -> float:
    """Return the smallest CPU time of the thread, after a run that fills the caches."""
    task()
    times = []
    for _ in range(repetitions):
        start = time.thread_time()
        task()
        times.append(time.thread_time() - start)
    return min(times)


def layer(kernel: int, fan_in: int, fan_out: int, num: int, size: int) -> tuple[Tensor, Tensor]:
    """Return fields and weights in the memory layout of an operator."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, fan_in, size, size, generator=generator)
    weight = torch.randn(fan_out, fan_in, kernel, kernel, generator=generator)
    return x.to(memory_format=torch.channels_last), prepared(weight)


def library_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Compute a periodic convolution with torch alone."""
    margin = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, (margin,) * 4, mode="circular"), weight)


def table(num: int, size: int) -> None:
    """Print the speed of torch's convolution and of the chosen method."""
    a = torch.ones(2048, 2048)
    print(f"matrix product 2048^3: {2 * 2048**3 / seconds(lambda: a @ a) / 1e9:.0f} GFLOP/s")
    print(f"{num} x {size} x {size}    library    chosen  tile  ratio")
    for (fan_in, fan_out), kernel in product(CHANNELS, (3, 5, 7)):
        x, weight = layer(kernel, fan_in, fan_out, num, size)
        plain_x, plain_weight = x.contiguous(), weight.contiguous()
        library = seconds(lambda a=plain_x, b=plain_weight: library_convolution(a, b), 1)
        chosen = seconds(lambda a=x, b=weight: periodic_convolution(a, b))
        tile = convolution.choose_tile(kernel, fan_in, fan_out, (num, size, size))
        flops = 2 * kernel**2 * fan_in * fan_out * num * size**2 / 1e9
        print(
            f"{fan_in:3} -> {fan_out:3}  {kernel}x{kernel} {flops / library:8.0f} "
            f"{flops / chosen:9.0f}  {tile or '-':>4} {library / chosen:6.1f}"
        )


def fit() -> None:
    """Print nonnegative least-squares constants of the cost model, for relative errors."""
    shapes = [
        (kernel, *channels, (num, size, size))
        for channels, kernel, (num, size) in product(FIT_CHANNELS, (3, 5, 7), FIT_FIELDS)
    ]
    # Row 0: direct sums; rows 1 and 2: the two tiles.
    times, terms = np.empty((3, len(shapes))), [[], [], []]
    for column, (kernel, fan_in, fan_out, fields) in enumerate(shapes):
        x, weight = layer(kernel, fan_in, fan_out, *fields[:2])
        for row, tile in enumerate((None, *convolution.candidate_tiles(kernel))):
            if tile is None:
                times[row, column] = seconds(lambda a=x, b=weight: direct_convolution(a, b))
            else:
                run = partial(tiled_convolution, x, weight, tile=tile)
                times[row, column] = seconds(run)
            terms[row].append(convolution.cost_terms(kernel, fan_in, fan_out, fields, tile))
    predicted = np.empty_like(times)
    for name, rows in {"direct": slice(0, 1), "tiled": slice(1, 3)}.items():
        matrix, measured = np.concatenate(terms[rows]), times[rows].ravel()
        constants, _ = nnls(matrix / measured[:, None], np.ones(len(measured)))
        predicted[rows] = (matrix @ constants).reshape(-1, len(shapes))
        spread = np.percentile(predicted[rows] / times[rows], [5, 50, 95]).round(2)
        picoseconds = [f"{constant * 1e12:.4g}" for constant in constants]
        print(name, *picoseconds, "ps; predicted / measured at 5, 50, 95 %:", *spread)
    chosen = np.take_along_axis(times, predicted.argmin(axis=0)[None], axis=0)
    ratios = [total / times.min(axis=0).sum() for total in (chosen.sum(), times[0].sum())]
    print(f"{len(shapes)} layers; total time over that of the best choice for each:")
    print(f"by prediction {ratios[0]:.3f}, always direct {ratios[1]:.2f}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fields", type=int, default=1)
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--fit", action="store_true", help="fit the cost model (minutes)")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    with torch.inference_mode():
        if options.fit:
            fit()
        else:
            table(options.fields, options.grid)


if __name__ == "__main__":
    main()
