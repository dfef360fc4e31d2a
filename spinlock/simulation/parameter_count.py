"""How large an operator is."""

import numpy as np
from numpy.typing import NDArray

from spinlock.simulation.convolutional_operator import direct_flops
from spinlock.simulation.parameter_space import ParameterValues, typed_row

# What the number of weights depends on; few of a dataset's operators differ in all three.
_SHAPE = ("num_layers", "base_channels", "kernel_size")


def parameter_count(values: ParameterValues, channels: int) -> int:
    """Number of weights of an operator, those of silenced channels included.

    Args:
        values: The operator's parameter values.
        channels: Channels C of a field.
    """
    # Each weight is multiplied and added once per pixel.
    return direct_flops(values, channels) // (2 * values.grid_size**2)


def parameter_counts(values: NDArray[np.void], channels: int) -> NDArray[np.int64]:
    """`parameter_count` of each row of a structured array of values (`ParameterSpace.values`).

    Args:
        values: (N,) one field per axis.
        channels: Channels C of a field.

    Returns:
        (N,) int64.
    """
    shapes = np.stack([values[name] for name in _SHAPE], axis=-1)
    _, first, which = np.unique(shapes, axis=0, return_index=True, return_inverse=True)
    counts = [parameter_count(typed_row(values[row]), channels) for row in first]
    return np.array(counts, dtype=np.int64)[which.reshape(-1)]
