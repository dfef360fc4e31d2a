"""Copies several arrays of the host to a device at once."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# CUDA kernels load up to 16 bytes at a time.
_ALIGNMENT = 16


def copy_to_device(
    arrays: Mapping[str, NDArray[np.generic]], device: torch.device
) -> dict[str, Tensor]:
    """Copy arrays to a device without waiting for it.

    Args:
        arrays: Arrays by name; the types are those that torch knows.
        device: Device of the result.

    Returns:
        Tensors by name, with the shapes and types of the arrays. They share one storage.

    Example:
        >>> import numpy as np
        >>> tables = {"mask": np.array([True]), "rows": np.array([[4, 2]], dtype=np.int32)}
        >>> copy_to_device(tables, torch.device("cpu"))["rows"]
        tensor([[4, 2]], dtype=torch.int32)
    """
    starts, size = {}, 0
    for name, array in arrays.items():
        starts[name] = size
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    # Only a copy from pinned memory runs while the host goes on.
    pinned = device.type == "cuda"
    host = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned)
    # A NumPy view, because a tensor of inference mode has restrictions.
    view = host.numpy()
    for name, array in arrays.items():
        place = view[starts[name] : starts[name] + array.nbytes]
        place.view(array.dtype).reshape(array.shape)[...] = array
    copied = host.to(device, non_blocking=True)
    return {
        name: copied[starts[name] : starts[name] + array.nbytes]
        .view(torch.from_numpy(np.empty(0, array.dtype)).dtype)
        .view(array.shape)
        for name, array in arrays.items()
    }
