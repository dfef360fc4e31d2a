"""Makes rounding independent of the settings of torch and NumPy that a caller has changed.

PyTorch has switches that decide how products and sums are rounded. Some apply to the process,
others to a thread. `fixed_arithmetic` sets, during a unit of work, those that matter, and then
restores the caller's settings. The switches are set to PyTorch's defaults, except where a default
allows less precision or a varying order of summation.

The positions are the same in all units of work, so threads that compute at the same time agree.
Convolutions of lower precision are asked for at each call (`spinlock.simulation.convolution`).
"""

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.backends import cuda, cudnn, mkldnn, opt_einsum

# torch >= 2.9 has a precision for each backend and kind of operation. The older switches are then
# never read, because torch raises an error if a program has used both.
_GET: Any = getattr(torch._C, "_get_fp32_precision_getter", None)
_SET: Any = getattr(torch._C, "_set_fp32_precision_setter", None)
_GENERIC = "generic", "all"


@dataclass(frozen=True, eq=False)
class _Switch:
    """A setting of the process.

    Args:
        read: Function that returns the value in force.
        write: Function that sets a value.
        own: Function that returns the value that restores the setting; default: ``read``. The two
            differ if the setting was never set and inherits its value from another one.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    own: Callable[[], Any] | None = None


_Positions = tuple[tuple[_Switch, Any], ...]


class _Held:
    """Switches that several threads hold at the same time.

    The first thread sets them, and the last one restores the values that the first one found. If
    other code changes a switch in the meantime, the next thread that enters sets it back. A change
    that no thread has set back is left as it is.

    Args:
        find: Function that returns the switches with their positions. It is called once, by the
            first thread, because the found values are kept by switch.
    """

    def __init__(self, find: Callable[[], _Positions]) -> None:
        self._lock = threading.Lock()
        self._holders: Counter[int] = Counter()
        self._find = find
        self._positions: _Positions | None = None
        self._found: dict[_Switch, Any] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_other_threads)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the switches in their positions, which are set in the given order."""
        thread = threading.get_ident()
        with self._lock:
            if self._positions is None:
                self._positions = self._find()
            self._holders[thread] += 1
        try:
            with self._lock:
                self._set()
            yield
        finally:
            with self._lock:
                self._holders[thread] -= 1
                if not self._holders[thread]:
                    del self._holders[thread]
                if not self._holders:
                    self._restore()

    def _set(self) -> None:
        for switch, wanted in self._positions or ():
            if switch.read() != wanted:
                self._found[switch] = (switch.own or switch.read)()
                switch.write(wanted)

    def _restore(self) -> None:
        for switch, wanted in reversed(self._positions or ()):
            if switch in self._found and switch.read() == wanted:
                switch.write(self._found[switch])
        self._found.clear()

    def _forget_other_threads(self) -> None:
        """Reset a forked child, in which only the thread that forked exists."""
        thread = threading.get_ident()
        self._lock = threading.Lock()
        self._holders = Counter({thread: self._holders[thread]} if self._holders[thread] else {})
        if not self._holders:
            self._restore()


@contextmanager
def fixed_arithmetic(device: torch.device | str = "cpu") -> Iterator[None]:
    """Compute with fixed arithmetic in a ``with`` block, and restore every setting afterwards.

    Operations on float32 tensors use float32, not TF32, unless a call asks for it. Any number of
    threads may compute at the same time. Entering takes tens of microseconds. Use it for a short
    unit of work, because the switches apply to all threads of the process.

    While a CUDA device computes, torch refuses to answer those of its older questions whose answer
    differs from its newer settings, such as ``torch.backends.cudnn.allow_tf32``. Ask for
    ``torch.backends.cudnn.conv.fp32_precision`` instead.

    Args:
        device: Device that computes; default: the CPU, for which the switches of CUDA libraries
            are not set.

    Example:
        >>> torch.set_default_dtype(torch.float64)
        >>> with fixed_arithmetic():
        ...     print(torch.get_default_dtype())
        torch.float32
        >>> torch.get_default_dtype()
        torch.float64
        >>> torch.set_default_dtype(torch.float32)
    """
    with ExitStack() as stack:
        stack.enter_context(_this_thread())
        stack.enter_context(_on_any_device.held())
        if torch.device(device).type == "cuda":
            stack.enter_context(_on_cuda.held())
        yield


# A thread that flushes subnormal numbers computes with zero instead of this number.
_SUBNORMAL = math.nextafter(0.0, 1.0)


@contextmanager
def _this_thread() -> Iterator[None]:
    """Reset settings of the calling thread, some of which it inherited from its parent."""
    flushes = _SUBNORMAL * 1.0 == 0.0
    if flushes:
        torch.set_flush_denormal(False)
    try:
        with (
            # `torch.set_default_device` intercepts calls of torch; this disables the interception.
            torch._C.DisableTorchFunction(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"),
        ):
            yield
    finally:
        if flushes:
            torch.set_flush_denormal(True)


def _attribute(owner: object, name: str, wanted: object) -> _Positions:
    """Return a switch that is an attribute, if this version of torch has it."""
    if not hasattr(owner, name):
        return ()
    return ((_Switch(partial(getattr, owner, name), partial(setattr, owner, name)), wanted),)


def _positions() -> _Positions:
    """Return the switches that matter on any device, with their positions."""
    return (
        (_Switch(torch.get_default_dtype, torch.set_default_dtype), torch.float32),
        # Deterministic mode selects other algorithms on some devices; the ones used are set below.
        (_Switch(_deterministic, _set_deterministic), (False, False)),
        *(_precisions("mkldnn") if _GET else _older_matmul_precision()),
        *_attribute(mkldnn, "enabled", True),
        *_attribute(mkldnn, "deterministic", True),
        (_Switch(torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled), True),
        # The order of products must not depend on whether the package opt_einsum is installed.
        *_attribute(opt_einsum, "enabled", False),
    )


def _cuda_positions() -> _Positions:
    """Return the switches of CUDA libraries, with their positions."""
    return (
        *(_precisions("cuda") if _GET else ()),
        *(() if _GET else _attribute(cudnn, "allow_tf32", False)),
        *_attribute(cudnn, "enabled", True),
        # Algorithms that are chosen by timing, or add in any order, do not reproduce bytes.
        *_attribute(cudnn, "benchmark", False),
        *_attribute(cudnn, "deterministic", True),
        *_attribute(cudnn, "depthwise_kernel", "auto"),
        *_attribute(cuda.matmul, "allow_fp16_accumulation", False),
        *_full_precision_sums("fp16"),
        *_full_precision_sums("bf16"),
        *_library("blas", torch._C._BlasBackend.Cublas),
        *_library("linalg", torch._C._LinalgBackend.Default),
    )


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_deterministic(value: tuple[bool, bool]) -> None:
    # torch.use_deterministic_algorithms would also change settings of the compiler.
    torch._C._set_deterministic_algorithms(value[0], warn_only=value[1])


def _precisions(backend: str) -> Iterator[tuple[_Switch, str]]:
    """Return switches that keep a backend and its kinds of operations from rounding operands.

    The backend is set first. Operations that inherit its precision then already have the right one
    and stay unset, which matters because torch cannot report whether a precision is inherited.
    """
    for operation in ("all", "matmul", "conv", "rnn"):
        read, write = partial(_GET, backend, operation), partial(_SET, backend, operation)
        own = partial(_own_precision, backend) if operation == "all" else None
        yield _Switch(read, write, own), "ieee"


def _own_precision(backend: str) -> str:
    """Return the precision set for a backend itself: the generic one is cleared for a moment."""
    generic = _GET(*_GENERIC)
    _SET(*_GENERIC, "none")
    try:
        own: str = _GET(backend, "all")
    finally:
        _SET(*_GENERIC, generic)
    return own


def _older_matmul_precision() -> _Positions:
    switch = _Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    return ((switch, "highest"),)


def _full_precision_sums(kind: str) -> _Positions:
    """Return the switch that makes cuBLAS sum products of 16-bit numbers in float32."""
    name = f"cublas_allow_{kind}_reduced_precision_reduction"
    read, write = getattr(torch._C, f"_get_{name}"), getattr(torch._C, f"_set_{name}")
    if isinstance(read(), bool):
        return ((_Switch(read, write), False),)
    # torch >= 2.10 has two values: whether sums may be rounded, and whether they may be split.
    return ((_Switch(read, lambda value: write(*value)), (False, True)),)


def _library(kind: str, wanted: object) -> _Positions:
    """Return the switch that chooses among the libraries of a kind of operations."""
    prefer = getattr(cuda, f"preferred_{kind}_library")
    return ((_Switch(prefer, prefer), wanted),)


_on_any_device, _on_cuda = _Held(_positions), _Held(_cuda_positions)
