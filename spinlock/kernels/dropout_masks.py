"""Makes the dropout masks of all layers of a group of operators from uniform random numbers."""

import torch
from torch import Tensor

from spinlock.kernels.kernel_operation import kernel_operation


def _silence_channels(numbers: Tensor, mask: Tensor, layers: Tensor, limits: Tensor) -> None:
    """Make the masks of layers; `spinlock.simulation.operator_weights.dropout_mask` says how.

    Args:
        numbers: Uniform random numbers of each layer, (L, n) float32 with n > width.
        mask: Tensor that receives the factor of each channel, float32. Channels that were added
            for the sake of memory receive 0.
        layers: Number of channels of each layer, that in memory, and the offset of the layer's
            channels in the mask, (L, 3) int64.
        limits: Smallest shifted rank that is kept, and the factor of the channels kept, (L, 2)
            float32.
    """
    for row, (width, padded, offset), (limit, factor) in zip(
        numbers, layers.tolist(), limits, strict=True
    ):
        rank = row[:width].argsort(stable=True).argsort(stable=True)
        part = mask[offset : offset + padded].zero_()
        part[:width] = torch.where(rank + row[width] >= limit, factor, 0.0)


silence_channels = kernel_operation(
    _silence_channels, "dropout_kernel.launch_silence_channels", mutates=("mask",)
)
