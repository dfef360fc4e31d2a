"""Turns the ways in which a device runs out of memory into one error that says what to do.

PyTorch raises `torch.OutOfMemoryError`, and libraries that allocate memory themselves report it in
words of their own. For cuDNN, PyTorch may report nothing: it takes an algorithm that needs less
memory and rounds differently, and uses it for these shapes until the process ends. PyTorch counts
failed allocations, which reveals this.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import torch

from spinlock.errors import SimulationError

_T = TypeVar("_T")

# Errors of CUDA, of cuBLAS, cuFFT and others, of cuDNN, and of torch's older interface to it.
_REPORTS = re.compile(
    r"out of memory|ALLOC(ATION)?_FAILED|GET was unable to find an engine to execute"
    r"|Unable to find a valid cuDNN algorithm"
)
# Devices on which a library may have kept another algorithm.
_OTHER_ALGORITHMS: set[torch.device] = set()


def computed_in_memory(
    compute: Callable[[], _T], device: torch.device, work: str, remedy: str
) -> _T:
    """Return the result of a function that needs the memory of a device.

    If memory does not suffice, the function is called once more, after PyTorch has returned the
    memory that it kept for later. The shapes are the same in both calls, and so are the results.
    If an allocation failed that no error reports, this process does not use the device any more.

    Args:
        compute: Function without side effects.
        device: Device on which it computes.
        work: Name of the work, for the message.
        remedy: Sentence that says what needs less memory.

    Raises:
        SimulationError: If memory does not suffice, or results could come from another algorithm.

    Example:
        >>> computed_in_memory(lambda: 6 * 7, torch.device("cpu"), "a product", "Use less.")
        42
    """
    for _ in range(2):
        if device in _OTHER_ALGORITHMS:
            raise SimulationError(f"{work}: {_refusal(device)}")
        failed, explained = _failed_allocations(device), 0
        results: list[_T] = []
        try:
            results.append(compute())
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or _REPORTS.search(str(error))):
                raise
            reason = str(error).partition("\n")[0].rstrip(".")
            explained = int(isinstance(error, torch.OutOfMemoryError))
        # Here the error has gone, and with its traceback the tensors of the failed call.
        if _failed_allocations(device) > failed + explained:
            _OTHER_ALGORITHMS.add(device)
            results.clear()
            raise SimulationError(f"{work}: {_refusal(device)}. {remedy}")
        if results:
            return results[0]
        if device.type == "cuda":
            torch.cuda.empty_cache()
    raise SimulationError(
        f"{work}: the memory of {device}{_free(device)} does not suffice ({reason}). Other "
        f"programs may use that memory. {remedy}"
    )


def _refusal(device: torch.device) -> str:
    """Say why a device is not used any more."""
    return (
        f"an allocation on {device}{_free(device)} failed, and a library may have taken another "
        "algorithm instead, which rounds differently and which it keeps. This process computes "
        f"nothing more on {device}; start a new one, while other programs use less of that memory"
    )


def _failed_allocations(device: torch.device) -> int:
    """Return the number of allocations on a CUDA device that have failed in this process."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0))


def _free(device: torch.device) -> str:
    """Return how much of the memory is free, as part of a sentence, if the device says so."""
    if device.type != "cuda":
        return ""
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:
        return ""
    return f", of which {free / 1e9:.1f} of {total / 1e9:.1f} GB are free,"
