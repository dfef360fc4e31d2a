"""Counts the weights of convolutional operators."""

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.parameter_space import ParameterValues, typed_row
from spinlock.simulation.network_layers import network

# The number of weights depends on these axes; few operators of a dataset differ in all three.
_SHAPE = ("num_layers", "base_channels", "kernel_size")


def parameter_count(values: ParameterValues, channels: int) -> int:
    """Return the number of weights of an operator, including those of silenced channels.

    Each weight takes one multiplication and one addition per pixel, so direct convolutions take
    ``2 * parameter_count(values, channels) * grid_size**2`` operations per field.

    Args:
        values: Parameter values of the operator.
        channels: Number of channels C of a field.
    """
    return sum(layer.weights for layer in network(values, channels).layers())


def parameter_counts(values: NDArray[np.void], channels: int) -> NDArray[np.int64]:
    """Return the number of weights of many operators.

    Args:
        values: Parameter values, a structured array (N,) from `ParameterSpace.values`.
        channels: Number of channels C of a field.

    Returns:
        Numbers of weights, (N,) int64.

    Example:
        >>> import numpy as np
        >>> from spinlock import ParameterSpaceConfig
        >>> from spinlock.configuration.parameter_space import ParameterSpace
        >>> rows = ParameterSpace(ParameterSpaceConfig().base_axes).values(np.zeros((2, 15)))
        >>> parameter_counts(rows, channels=3)
        array([7440, 7440])
    """
    shapes = np.stack([values[name] for name in _SHAPE], axis=-1)
    _, first, which = np.unique(shapes, axis=0, return_index=True, return_inverse=True)
    counts = [parameter_count(typed_row(values[row]), channels) for row in first]
    return np.array(counts, dtype=np.int64)[which.reshape(-1)]
