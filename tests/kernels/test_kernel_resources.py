"""Kernels are compiled for GPUs that this machine need not have, and spill no registers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("triton", "3.3", reason="older versions of Triton compile by other functions")

ROOT = Path(__file__).parents[2]
SPILLING = """
from dataclasses import replace
from benchmarks.kernel_resources import compiled, kernels
kernel = next(kernel for kernel in kernels() if kernel.name == "weight_kernel fp16")
narrow = replace(kernel, options={**kernel.options, "maxnreg": 24})
print(compiled(narrow, 90).spill_stores)
"""


def run(*arguments):
    """Output of a new process, in which no module has defined kernels for the interpreter."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "0"},
        check=True,
        capture_output=True,
        text=True,
        timeout=250,
    ).stdout


def table(capabilities, kernel=""):
    """Columns of the rows that are printed, by name of the kernel and of the GPU."""
    options = "--capability", *capabilities, "--kernel", kernel
    lines = run("-m", "benchmarks.kernel_resources", *options).splitlines()
    rows = [line[32:].split(maxsplit=4) for line in lines[2:]]
    return {(line[:32].strip(), row[0]): row[1:] for line, row in zip(lines[2:], rows, strict=True)}


@pytest.mark.parametrize(
    ("capabilities", "kernel"),
    [
        (["90"], ""),
        # Only kernels that use tensor cores differ much between generations of GPUs.
        (["80", "100"], "convolution"),
        pytest.param(["80", "100"], "", marks=pytest.mark.repeated),
    ],
)
def test_no_kernel_spills_registers(capabilities, kernel):
    rows = table(capabilities, kernel)
    names = {name for name, _ in rows}
    assert "convolution_kernel fp16" in names
    assert kernel or {"draw_kernel normal", "weight_kernel fp16"} <= names
    assert {gpu for _, gpu in rows} == {f"sm_{capability}" for capability in capabilities}
    for key, (registers, spills, *_) in rows.items():
        assert 16 <= int(registers) <= 255, key
        assert spills == "0/0", key
    for (name, gpu), (*_, instruction) in rows.items():
        if name.startswith("convolution_kernel"):
            assert instruction != "none", (name, gpu)


def test_spills_are_seen():
    assert int(run("-c", SPILLING)) > 0
