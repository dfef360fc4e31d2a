"""The arithmetic that samples are computed in, whatever the calling program has set.

PyTorch has switches that decide how products and sums are rounded: some belong to the whole
process, others to a thread. `fixed_arithmetic` sets those that matter around a unit of work and
gives the caller's settings back. The switches are set to PyTorch's defaults, except where those
allow less precision or an order of summation that varies.
"""

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.backends import cuda, cudnn, mha, mkldnn, opt_einsum

# torch >= 2.9: a precision for each backend and kind of operation; none of the older switches has
# to be read, which fails where a program has used both.
_GET: Any = getattr(torch._C, "_get_fp32_precision_getter", None)
_SET: Any = getattr(torch._C, "_set_fp32_precision_setter", None)
_GENERIC = "generic", "all"


@dataclass(frozen=True, eq=False)
class _Switch:
    """A setting of the whole process.

    Args:
        read: Function that returns the value in force.
        write: Function that sets a value.
        own: Function that returns what `write` has to be given to restore the setting; by default
            `read`. They differ where a setting that was never made is inherited from another.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    own: Callable[[], Any] | None = None


_Positions = tuple[tuple[_Switch, Any], ...]


class _Held:
    """Switches that the threads of the process hold in the same positions for a while.

    The first thread to come sets them, the last to leave restores what it found; threads that want
    other positions wait until then. A switch that somebody else turns in the meantime is turned
    back when the next thread comes, and in the end is left as that somebody wanted it.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._holders: Counter[int] = Counter()
        self._positions: _Positions = ()
        self._found: dict[_Switch, Any] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_other_threads)

    @contextmanager
    def held(self, positions: _Positions) -> Iterator[None]:
        """Hold the switches in positions, which are set in the order given."""
        thread = threading.get_ident()
        with self._free:
            if thread in self._holders and positions != self._positions:
                raise RuntimeError("this thread is computing already, in another precision")
            self._free.wait_for(lambda: not self._holders or positions == self._positions)
            self._positions = positions
            self._holders[thread] += 1
        try:
            with self._free:
                self._set()
            yield
        finally:
            with self._free:
                self._holders[thread] -= 1
                if not self._holders[thread]:
                    del self._holders[thread]
                if not self._holders:
                    self._restore()
                    self._free.notify_all()

    def _set(self) -> None:
        for switch, wanted in self._positions:
            if switch.read() != wanted:
                self._found[switch] = (switch.own or switch.read)()
                switch.write(wanted)

    def _restore(self) -> None:
        for switch, wanted in reversed(self._positions):
            if switch in self._found and switch.read() == wanted:
                switch.write(self._found[switch])
        self._found.clear()

    def _forget_other_threads(self) -> None:
        """In a forked child: only the thread that forked is there, and nobody has the lock."""
        thread = threading.get_ident()
        self._free = threading.Condition()
        self._holders = Counter({thread: self._holders[thread]} if self._holders[thread] else {})
        if not self._holders:
            self._restore()


_everywhere, _on_cuda = _Held(), _Held()


@contextmanager
def fixed_arithmetic(precision: str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Compute in the arithmetic of a precision; afterwards every setting is as it was before.

    Cheap enough for every unit of work (tens of microseconds), and meant for one: while a thread is
    inside, the switches of the process are in force for all threads. Threads of the same precision
    run side by side, others wait for each other.

    Args:
        precision: Arithmetic, as in `spinlock.GenerationConfig`. ``tf32`` matters on CUDA devices
            only.
        device: Where the unit is computed. The switches of CUDA libraries are left alone on a CPU.
    """
    cuda = torch.device(device).type == "cuda"
    tf32 = cuda and precision == "tf32"
    with ExitStack() as stack:
        stack.enter_context(_this_thread())
        stack.enter_context(_everywhere.held(_positions(tf32 and _GET is None)))
        if cuda:
            stack.enter_context(_on_cuda.held(_cuda_positions(tf32)))
        yield


# Zero in the arithmetic of a thread that flushes subnormal numbers.
_SUBNORMAL = math.nextafter(0.0, 1.0)


@contextmanager
def _this_thread() -> Iterator[None]:
    """Undo what the calling thread, or the one that started it, has set for itself."""
    flushes = _SUBNORMAL * 1.0 == 0.0
    if flushes:
        torch.set_flush_denormal(False)
    try:
        with (
            # A default device is a mode that sees every call of torch.
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
    """A switch that is an attribute, if this version of torch has it."""
    if not hasattr(owner, name):
        return ()
    return ((_Switch(partial(getattr, owner, name), partial(setattr, owner, name)), wanted),)


@cache
def _positions(tf32: bool) -> _Positions:
    """The switches that matter on any device."""
    return (
        (_Switch(torch.get_default_dtype, torch.set_default_dtype), torch.float32),
        (_Switch(_deterministic, _set_deterministic), (False, False)),
        *(_precisions("mkldnn", "ieee") if _GET else _older_matmul_precision(tf32)),
        *_attribute(mkldnn, "enabled", True),
        *_attribute(mkldnn, "deterministic", True),
        (_Switch(torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled), True),
        # A package that may be there or not must not decide the order of products.
        *_attribute(opt_einsum, "enabled", False),
        (_Switch(mha.get_fastpath_enabled, mha.set_fastpath_enabled), True),
        (_Switch(cuda.flash_sdp_enabled, cuda.enable_flash_sdp), True),
        (_Switch(cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp), True),
        (_Switch(cuda.math_sdp_enabled, cuda.enable_math_sdp), True),
        (_Switch(cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp), True),
    )


@cache
def _cuda_positions(tf32: bool) -> _Positions:
    """The switches of CUDA libraries."""
    return (
        *(_precisions("cuda", "tf32" if tf32 else "ieee") if _GET else ()),
        *(() if _GET else _attribute(cudnn, "allow_tf32", tf32)),
        *_attribute(cudnn, "enabled", True),
        # Timing candidates, or ones that add in any order, would not give the same bytes twice.
        *_attribute(cudnn, "benchmark", False),
        *_attribute(cudnn, "deterministic", True),
        *_attribute(cudnn, "depthwise_kernel", "auto"),
        *_attribute(cuda.matmul, "allow_fp16_accumulation", False),
        *_full_precision_sums("fp16"),
        *_full_precision_sums("bf16"),
        (_Switch(cuda.preferred_blas_library, cuda.preferred_blas_library), _default_blas()),
    )


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_deterministic(value: tuple[bool, bool]) -> None:
    # Not torch.use_deterministic_algorithms, which sets the compiler too.
    torch._C._set_deterministic_algorithms(value[0], warn_only=value[1])


def _precisions(backend: str, precision: str) -> Iterator[tuple[_Switch, str]]:
    """The precision of a backend, then that of each kind of operation where it has one of its own.

    What is inherited is left alone: it could be read, but not be told from what is set.
    """
    for operation in ("all", "matmul", "conv", "rnn"):
        read, write = partial(_GET, backend, operation), partial(_SET, backend, operation)
        own = partial(_own_precision, backend) if operation == "all" else None
        yield _Switch(read, write, own), precision


def _own_precision(backend: str) -> str:
    """What is set for a backend; reading it alone may give what is set for all backends."""
    generic = _GET(*_GENERIC)
    _SET(*_GENERIC, "none")
    try:
        own: str = _GET(backend, "all")
    finally:
        _SET(*_GENERIC, generic)
    return own


def _older_matmul_precision(tf32: bool) -> _Positions:
    switch = _Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    return ((switch, "high" if tf32 else "highest"),)


def _full_precision_sums(kind: str) -> _Positions:
    """Sums of products of 16-bit numbers are float32 in cuBLAS."""
    name = f"cublas_allow_{kind}_reduced_precision_reduction"
    read, write = getattr(torch._C, f"_get_{name}"), getattr(torch._C, f"_set_{name}")
    if isinstance(read(), bool):
        return ((_Switch(read, write), False),)
    # torch >= 2.10: whether sums may be rounded, and whether they may be split.
    return ((_Switch(read, lambda value: write(*value)), (False, True)),)


def _default_blas() -> object:
    return torch._C._BlasBackend.Cublas
