"""Compiles the Triton kernels for several GPUs, none of which is needed, and shows what they use.

Run it with `python -m benchmarks.kernel_resources`; it needs Triton 3.3 or newer. Spills are the
bytes of registers that a thread stores in memory for lack of registers. Tensor cores are named by
their instruction in PTX.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Kernels are defined for the interpreter if this is set when they are imported.
os.environ.pop("TRITON_INTERPRET", None)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spinlock.kernels import (
    convolution_kernel,
    dropout_kernel,
    finish_kernel,
    moments_kernel,
    packing_kernel,
    philox_kernel,
)
from spinlock.kernels.layer_finish import FINISH_TILE
from spinlock.kernels.random_draws import DISTRIBUTIONS
from spinlock.kernels.weight_draws import WEIGHT_STREAM, WEIGHT_TILE

#: A100, H100 and B200.
CAPABILITIES = (80, 90, 100)
TENSOR_CORES = re.compile(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync")
USED = re.compile(
    r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", re.DOTALL
)


@dataclass(frozen=True)
class Kernel:
    """A kernel with one choice of its constants.

    Attributes:
        name: Name in the table.
        function: Function with the decorator `triton.jit`.
        arguments: Types of the arguments that are no constants, such as ``*fp32`` and ``i64``.
            Pointers are multiples of 16 bytes.
        constants: Values of the other arguments.
        options: Options of the launch, such as ``num_warps``.
    """

    name: str
    function: Any
    arguments: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel uses: bytes, and registers of a thread."""

    registers: int
    spill_stores: int
    spill_loads: int
    shared_memory: int
    tensor_cores: str


def kernels() -> Iterator[Kernel]:
    """Yield the kernels in each of their modes."""
    for distribution in DISTRIBUTIONS:
        yield Kernel(
            f"draw_kernel {distribution}",
            philox_kernel.draw_kernel,
            {
                "out": "*fp32",
                "addresses": "*i64",
                "seed": "i64",
                "stream": "i64",
                "count": "i64",
                "tiles": "i32",
                "scale": "fp32",
            },
            {"DISTRIBUTION": distribution, "BLOCKS": philox_kernel.DRAW_BLOCKS},
        )
    for dtype in ("fp16", "fp32", "bf16"):
        yield Kernel(
            f"weight_kernel {dtype}",
            philox_kernel.weight_kernel,
            {
                "high": f"*{dtype}",
                "low": "*fp16",
                "layers": "*i64",
                "tile_layer": "*i32",
                "tile_index": "*i32",
                "seed": "i64",
            },
            {"STREAM": WEIGHT_STREAM, "BLOCKS": WEIGHT_TILE},
            {"num_warps": philox_kernel.WEIGHT_WARPS},
        )

    yield from layer_kernels()


def layer_kernels() -> Iterator[Kernel]:
    """Yield the kernels that apply groups of operators."""
    tiles = {"problems": "*i64", "tile_problem": "*i32", "tile_index": "*i32"}
    sums = {"sums": "*fp32", **tiles}
    pixels, channels = FINISH_TILE
    tile = {"PIXEL_TILE": pixels, "CHANNEL_TILE": channels}
    for dtype in ("fp16", "fp32", "bf16"):
        operands = {"high": f"*{dtype}", "low": "*fp16"}
        weights = {"w_high": f"*{dtype}", "w_low": "*fp16"}
        fields = {"x_high": f"*{dtype}", "x_low": "*fp16"}
        yield Kernel(
            f"convolution_kernel {dtype}",
            convolution_kernel.convolution_kernel,
            {**fields, **weights, **sums},
            {"SPLIT": dtype == "fp16", **convolution_kernel.CONSTANTS},
            convolution_kernel.OPTIONS,
        )
        channelwise = dict.fromkeys(("pairs", "factor", "shift", "mask"), "*fp32")
        yield Kernel(
            f"finish_kernel {dtype}",
            finish_kernel.finish_kernel,
            {**sums, **channelwise, **operands},
            tile,
            finish_kernel.OPTIONS,
        )
        yield Kernel(
            f"packing_kernel {dtype}",
            packing_kernel.packing_kernel,
            {"fields": "*fp32", **operands, "offsets": "*i64"},
            {"SIZE": 128**2, "WIDTH": 3, "PADDED": 16, "PIXELS": packing_kernel.PACKED_PIXELS},
        )
    yield Kernel(
        "moments_kernel",
        moments_kernel.moments_kernel,
        {**sums, "out": "*fp32"},
        {"PIXELS": moments_kernel.MOMENTS_PIXELS},
    )
    yield Kernel(
        "calibration_kernel",
        moments_kernel.calibration_kernel,
        {
            "pairs": "*fp32",
            "factor": "*fp32",
            "shift": "*fp32",
            "problems": "*i64",
            "fields": "i32",
        },
        {"BLOCK": moments_kernel.CALIBRATION_BLOCK},
    )
    yield Kernel(
        "output_kernel",
        finish_kernel.output_kernel,
        {**sums, "factor": "*fp32", "fields": "*fp32", "bound": "fp32"},
        {"SIZE": 128**2, **tile},
    )
    yield Kernel(
        "output_calibration_kernel",
        finish_kernel.output_calibration_kernel,
        {"sums": "*fp32", "factor": "*fp32", "problems": "*i64", "pixels": "i32", "bound": "fp32"},
        {"ITERATIONS": 4, "CHANNEL_TILE": channels, "BLOCK": finish_kernel.OUTPUT_BLOCK},
    )
    yield Kernel(
        "dropout_kernel",
        dropout_kernel.dropout_kernel,
        {"numbers": "*fp32", "mask": "*fp32", "layers": "*i64", "limits": "*fp32", "stride": "i32"},
        {"BLOCK": dropout_kernel.DROPOUT_BLOCK},
    )


def compiled(kernel: Kernel, capability: int) -> Resources:
    """Compile a kernel for a compute capability, such as 90."""
    names = kernel.function.arg_names
    source = ASTSource(
        kernel.function,
        signature={name: kernel.arguments.get(name, "constexpr") for name in names},
        constexprs=kernel.constants,
        attrs={
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if kernel.arguments.get(name, "").startswith("*")
        },
    )
    target = GPUTarget("cuda", capability, 32)
    result = triton.compile(source, target=target, options=kernel.options)
    ptx = result.asm["ptx"]
    stores, loads, registers = map(int, _assembler_report(ptx))
    used = sorted(set(TENSOR_CORES.findall(ptx)))
    return Resources(registers, stores, loads, result.metadata.shared, ", ".join(used) or "none")


def _assembler_report(ptx: str) -> tuple[str, str, str]:
    """Return the bytes of spill stores and loads, and the registers, as ptxas counts them."""
    match = re.search(r"\.target (sm_\w+)", ptx)
    assert match is not None
    folder = Path(triton.__file__).parent / "backends/nvidia/bin"
    # Triton has another assembler for Blackwell.
    blackwell = folder / "ptxas-blackwell"
    newest = match[1].startswith("sm_1") and blackwell.exists()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "kernel.ptx"
        path.write_text(ptx)
        report = subprocess.run(
            [
                str(blackwell if newest else folder / "ptxas"),
                "-v",
                f"--gpu-name={match[1]}",
                str(path),
                "-o",
                str(path.with_suffix(".cubin")),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stderr
    used = USED.search(report)
    assert used is not None, report
    return used[1], used[2], used[3]


def main() -> None:
    """Print a table, and fail if a kernel spills registers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--capability", type=int, nargs="+", default=CAPABILITIES, help="for example 90"
    )
    parser.add_argument("--kernel", default="", help="only kernels whose names contain this")
    arguments = parser.parse_args()
    print(f"triton {triton.__version__}")
    print(
        f"{'kernel':32} {'GPU':>7} {'registers':>9} {'spill st/ld':>11} {'shared':>7}  tensor cores"
    )
    spilling = []
    for kernel in kernels():
        if arguments.kernel not in kernel.name:
            continue
        for capability in arguments.capability:
            used = compiled(kernel, capability)
            spills = f"{used.spill_stores}/{used.spill_loads}"
            print(
                f"{kernel.name:32} {f'sm_{capability}':>7} {used.registers:9} {spills:>11} "
                f"{used.shared_memory:7}  {used.tensor_cores}",
                flush=True,
            )
            if used.spill_stores or used.spill_loads:
                spilling.append(f"{kernel.name} (sm_{capability})")
    if spilling:
        sys.exit(f"registers are spilled by {', '.join(spilling)}")


if __name__ == "__main__":
    main()
