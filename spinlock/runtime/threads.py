"""Thread pools that are shared by all tasks of a process, and their preparation.

The memory allocator and the convolution library keep memory for each thread that ever ran. If every
shard started new threads, the memory of a run would grow with the number of shards.
"""

import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from threading import Event, Lock
from types import TracebackType
from typing import Any, NoReturn

import torch

from spinlock.runtime.arithmetic import fixed_arithmetic

# Functions that torch computes with a vector library on the CPU.
_VECTOR_FUNCTIONS = [
    "acos",
    "asin",
    "atan",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "expm1",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "rsqrt",
    "sigmoid",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
]
# functools.cache would run a function twice if two threads called it at the same time.
_SETTLING = Lock()
# Set when the process is about to end.
_ENDING = Event()


def shared_pool(
    name: str, threads: int, initializer: Callable[[], None] | None = None
) -> ThreadPoolExecutor:
    """Return the process's thread pool of this name and size, which is created on first use.

    Args:
        name: Prefix of the threads' names.
        threads: Number of threads.
        initializer: Function that each thread calls when it starts.
    """
    # The process is part of the key because a forked child inherits pools without their threads.
    return _pool(os.getpid(), name, threads, initializer)


@cache
def _pool(
    process: int, name: str, threads: int, initializer: Callable[[], None] | None
) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=initializer)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_one_thread() -> None:
    """Limit the calling thread to one core, so that bytes do not depend on the number of cores."""
    torch.set_num_threads(1)


def settle_vector_math() -> None:
    """Initialize the CPU's mathematical libraries in one thread; later calls do nothing.

    The libraries choose their kernels on first use. If two threads first use them at the same
    moment, one may get kernels of low accuracy (with MKL, about once in 3,000 process starts, one
    thread computed normal numbers that were off by 1e-3), and bytes would not be reproducible. Call
    this before starting threads that compute. Concurrent callers wait for the first one.
    """
    with _SETTLING, fixed_arithmetic():
        _settle()


@cache
def _settle() -> None:
    for dtype in (torch.float32, torch.float64):
        values = torch.full((64, 64), 0.5, dtype=dtype, device="cpu")
        for name in _VECTOR_FUNCTIONS:
            getattr(torch, name)(values)
        torch.fft.irfft2(torch.fft.rfft2(values))
        torch.fft.ifft2(torch.fft.fft2(values))
        torch.bmm(values[None], values[None])
        values @ values


def abandon(futures: Iterable[Future[Any]]) -> None:
    """Cancel tasks that have not started, and wait for the others unless the process is ending."""
    running = [future for future in futures if not future.cancel()]
    if not _ENDING.is_set():
        wait(running)


def end_by(error: BaseException, lost: Callable[[], None]) -> NoReturn:
    """Raise an exception that ends the process; from now on `abandon` does not wait.

    A signal handler calls this. The exception must not be a `SystemExit`, for which compiled code
    that ignores exceptions ends the process at once.

    Args:
        error: The exception.
        lost: Function that is called if the signal interrupted code that ignores exceptions, such
            as a destructor or a callback of HDF5, which then goes on.
    """
    _ENDING.set()
    print_exception = sys.excepthook

    # Such code would otherwise print a traceback. Compiled code may call both hooks.
    def on_ignored(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, type(error)):
            lost()

    def on_printed(
        kind: type[BaseException], value: BaseException, traceback: TracebackType | None
    ) -> None:
        if issubclass(kind, type(error)):
            lost()
        else:
            print_exception(kind, value, traceback)

    sys.unraisablehook, sys.excepthook = on_ignored, on_printed
    raise error
