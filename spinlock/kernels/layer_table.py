"""Columns of the tables that tell a kernel which convolutions to compute in one launch."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

#: Numbers of channels in memory are multiples of this; the channels that are added are zero.
CHANNEL_TILE = 16
#: Added to variances before division, as in torch.nn.
VARIANCE_FLOOR = 1e-5


class Column(IntEnum):
    """Columns of a table of problems; a problem is one convolution of one operator, int64.

    Offsets count elements from the start of the tensor that holds the data of all operators.
    """

    #: Offset of the input among the operands, (pixels, FAN_IN).
    INPUT = 0
    #: Offset of the weights, (KERNEL^2, FAN_IN, FAN_OUT).
    WEIGHTS = 1
    #: Offset of the convolution's result among the sums, (pixels, FAN_OUT).
    SUMS = 2
    #: Offset of the finished layer among the operands, (pixels, FAN_OUT).
    RESULT = 3
    #: What is added to the finished layer, a `Shortcut`.
    SHORTCUT = 4
    #: Offset of the shortcut: among the operands (identity) or among the sums (projection).
    SHORTCUT_DATA = 5
    #: Offset of the projection's channels in the tensors of channels.
    SHORTCUT_CHANNELS = 6
    #: Numbers of channels in memory, multiples of `CHANNEL_TILE`.
    FAN_IN = 7
    FAN_OUT = 8
    #: Number of output channels without the added ones.
    WIDTH = 9
    #: Side of the kernel in pixels.
    KERNEL = 10
    #: Number of pixels of all fields of the operator.
    PIXELS = 11
    #: Offset of the output channels in the tensors of channels.
    CHANNELS = 12
    #: Offset of the moments, counted in pairs.
    MOMENTS = 13
    #: An `Activation`, and a `Normalization`.
    ACTIVATION = 14
    NORMALIZATION = 15
    #: Side of the fields, H = W, in pixels.
    SIDE = 16


class Shortcut(IntEnum):
    """What is added to a finished layer."""

    NONE = 0
    IDENTITY = 1
    PROJECTION = 2


class Activation(IntEnum):
    """Activation of a layer."""

    NONE = 0
    RELU = 1
    GELU = 2
    SILU = 3


class Normalization(IntEnum):
    """Normalization of a layer."""

    NONE = 0
    INSTANCE = 1
    BATCH = 2


def tiles(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """List the tiles of problems.

    Args:
        counts: Number of tiles of each problem, (n,).

    Returns:
        Problem of each tile, and number of the tile within the problem, (2, number of tiles).

    Example:
        >>> tiles(np.array([2, 1]))
        array([[0, 0, 1],
               [0, 1, 0]], dtype=int32)
    """
    problem = np.repeat(np.arange(len(counts)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack((problem, np.arange(len(problem)) - first)).astype(np.int32)


def padded_width(channels: int) -> int:
    """Return the number of channels in memory."""
    return -(-channels // CHANNEL_TILE) * CHANNEL_TILE


def rows_of(problems: Tensor, tile_list: Tensor) -> list[list[int]]:
    """Return the rows of the problems that have tiles, for plain versions of operations.

    Args:
        problems: Table of problems, (n, columns) int64.
        tile_list: Tiles from `tiles`, (2, number of tiles) int32.
    """
    rows: list[list[int]] = problems[tile_list[0].long().unique()].tolist()
    return rows
