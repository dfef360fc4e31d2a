"""Threads that outlive a task, and what has to happen before the first of them computes.

The allocator keeps memory for each thread that ever ran, and convolutions keep a workspace in each:
with new threads for every shard the memory of a run would grow with the number of shards.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from threading import Event, Lock
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch

from spinlock.runtime.arithmetic import fixed_arithmetic

# The functions that torch leaves to a vector library, on the CPU.
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
# Of a cached function that two threads call at once, both would run.
_SETTLING = Lock()
_ENDING = Event()


def shared_pool(
    name: str, threads: int, initializer: Callable[[], None] | None = None
) -> ThreadPoolExecutor:
    """The process's pool of this name and size, made on first use.

    Args:
        name: Prefix of the threads' names.
        threads: Number of threads.
        initializer: Called once in each thread.
    """
    # A forked child has its parent's pools without their threads: it needs its own.
    return _pool(os.getpid(), name, threads, initializer)


@cache
def _pool(
    process: int, name: str, threads: int, initializer: Callable[[], None] | None
) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=initializer)


def use_one_thread() -> None:
    """Operations of this thread never use two, so that bytes do not depend on the cores."""
    torch.set_num_threads(1)


def settle_vector_math() -> None:
    """Use the CPU's mathematical libraries once, in one thread alone; later calls do nothing.

    They choose their kernels on first use. Two threads that first use them at the same moment may
    get kernels of low accuracy instead (seen with MKL: about once in 3,000 process starts one of
    the threads had normal numbers that were off by 1e-3), and bytes would not repeat. Call this
    before threads that compute are started. Callers in several threads wait for the first of them.
    """
    with _SETTLING, fixed_arithmetic("float32"):
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
    """Cancel what has not begun and wait for the rest: nothing goes on behind the caller."""
    running = [future for future in futures if not future.cancel()]
    if not _ENDING.is_set():
        wait(running)


def end_by(error: BaseException) -> NoReturn:
    """Raise an exception that ends the process, in a signal's handler.

    From now on `abandon` does not wait: what goes on ends with the process. Where the signal has
    interrupted what drops exceptions, such as a destructor or a callback of a weak reference, the
    exception is raised again a moment later. It must not be a `SystemExit`, by which compiled code
    of that kind would end the process at once.
    """
    _ENDING.set()
    report, show = sys.unraisablehook, sys.excepthook

    def raise_again(signum: int, frame: FrameType | None) -> None:
        raise error

    def dropped(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_value is error:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            report(unraisable)

    def show_others(
        kind: type[BaseException], value: BaseException, traceback: TracebackType | None
    ) -> None:
        # Compiled code shows what it drops.
        if value is not error:
            show(kind, value, traceback)

    signal.signal(signal.SIGALRM, raise_again)
    sys.unraisablehook, sys.excepthook = dropped, show_others
    raise error
