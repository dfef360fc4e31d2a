"""Defines operations that have a kernel on CUDA devices."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_LIBRARY = torch.library.Library("spinlock", "FRAGMENT")


def device_operation(
    plain: Callable[P, R],
    *,
    launch: Callable[P, R],
    meta: Callable[P, R],
    mutates: tuple[str, ...] = (),
) -> Callable[P, R]:
    """Define the operation ``torch.ops.spinlock.NAME``.

    NAME is that of the plain version, without leading underscores.

    `torch.library.custom_op` would do the same, but its first call imports torch's compiler, which
    takes seconds, and each further call takes five times as long. Derivatives are not supported.

    Args:
        plain: Version in torch and NumPy for tensors on a CPU, which defines the results. Its
            first argument is a tensor. Its annotations are the types of the operation.
        launch: Version for CUDA devices. The device of the first argument is current when it runs.
        meta: Version for the meta device, which returns tensors of the right shapes and types.
        mutates: Names of the arguments that the operation writes to.

    Returns:
        The operation.

    Example:
        >>> import torch
        >>> from torch import Tensor
        >>> def doubled_example(x: Tensor) -> Tensor:
        ...     return 2 * x
        >>> def empty(x: Tensor) -> Tensor:
        ...     return torch.empty_like(x)
        >>> doubled = device_operation(doubled_example, launch=doubled_example, meta=empty)
        >>> doubled(torch.ones(2)), torch.ops.spinlock.doubled_example(torch.ones(2)).sum()
        (tensor([2., 2.]), tensor(4.))
        >>> doubled(torch.ones(2, device="meta")).device
        device(type='meta')
    """
    name = plain.__name__.lstrip("_")

    def on_its_device(*args: P.args, **kwargs: P.kwargs) -> R:
        # Triton launches on the current device.
        assert isinstance(args[0], Tensor)
        with torch.cuda.device(args[0].device):
            return launch(*args, **kwargs)

    schema = torch.library.infer_schema(plain, mutates_args=mutates)
    _LIBRARY.define(name + schema)
    for key, version in {"CPU": plain, "CUDA": on_its_device, "Meta": meta}.items():
        _LIBRARY.impl(name, version, key)
    operation: Callable[P, R] = getattr(torch.ops.spinlock, name).default
    return operation
