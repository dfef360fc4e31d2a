"""Runs kernels in Triton's interpreter, on tensors of the CPU."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

triton = pytest.importorskip("triton", reason="Triton is not installed")

# Launcher of each operation that writes into given tensors.
LAUNCHERS = {
    "pack_fields": "packing_kernel.launch_pack_fields",
    "convolve": "convolution_kernel.launch_convolve",
    "moments": "moments_kernel.launch_moments",
    "calibrate_scales": "moments_kernel.launch_calibrate_scales",
    "finish_layers": "finish_kernel.launch_finish_layers",
    "calibrate_output": "finish_kernel.launch_calibrate_output",
    "bound_output": "finish_kernel.launch_bound_output",
    "silence_channels": "dropout_kernel.launch_silence_channels",
    "draw_weights": "philox_kernel.launch_draw_weights",
}


def launcher(name: str) -> Callable[..., None]:
    """The launcher of an operation."""
    module, function = LAUNCHERS[name].split(".")
    return getattr(importlib.import_module(f"spinlock.kernels.{module}"), function)


@contextmanager
def loops_of_any_length(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let loops in the interpreter end at numbers that were loaded, also with NumPy 2.4.

    The interpreter converts arrays of one element to integers, which NumPy refuses since then.
    """
    interpreter = importlib.import_module("triton.runtime.interpreter")
    original = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        original(tensor, *scope)
        # Older versions of Triton have no scope.
        set_attribute = scope[0].set_attr if scope else setattr
        set_attribute(tensor, "__index__", lambda self: int(self.handle.data.item()))

    with monkeypatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang_tensor", patched)
        yield


class RecordedOperations(TorchDispatchMode):
    """Records the operations of this package with copies of their arguments before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[Any], list[Any]]] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore
        """Call the operation."""
        if operation.namespace != "spinlock":
            return operation(*args, **(kwargs or {}))
        before = [_copy(value) for value in args]
        result = operation(*args, **(kwargs or {}))
        name = operation._schema.name.removeprefix("spinlock::")
        self.calls.append((name, before, [_copy(value) for value in args]))
        return result


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, torch.Tensor) else value
