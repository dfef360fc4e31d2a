"""Defines operations that write into given tensors, from the name of their kernel's launcher."""

from collections.abc import Callable
from importlib import import_module
from typing import ParamSpec

from spinlock.kernels.device_operation import device_operation

P = ParamSpec("P")


def kernel_operation(
    plain: Callable[P, None], launcher: str, *, mutates: tuple[str, ...]
) -> Callable[P, None]:
    """Define an operation that returns nothing; see `device_operation`.

    Args:
        plain: Version in torch for tensors on a CPU.
        launcher: Module of this package and function that launches the kernel on a CUDA device, as
            ``module.function``. The module is imported at the first call.
        mutates: Names of the arguments that the operation writes to.

    Returns:
        The operation.
    """
    module, function = launcher.split(".")

    def launch(*args: P.args, **kwargs: P.kwargs) -> None:
        getattr(import_module(f"spinlock.kernels.{module}"), function)(*args, **kwargs)

    def nothing(*args: P.args, **kwargs: P.kwargs) -> None:
        return None

    return device_operation(plain, launch=launch, meta=nothing, mutates=mutates)
