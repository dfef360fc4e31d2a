"""What follows the convolutions of a layer: moments, calibration, activation, shortcut, output.

Operations work on the tables of `spinlock.kernels.layer_table`. ``sums`` are the results of
convolutions with the drawn weights; ``factor`` and ``shift`` turn them into calibrated ones.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spinlock.kernels.kernel_operation import kernel_operation
from spinlock.kernels.layer_table import (
    VARIANCE_FLOOR,
    Activation,
    Column,
    Normalization,
    Shortcut,
    rows_of,
)
from spinlock.kernels.operands import read_operands, write_operands

#: Pixels and channels of a tile of `finish_layers` and `bound_output`.
FINISH_TILE = 128, 16


def _moments(sums: Tensor, out: Tensor, problems: Tensor, tile_list: Tensor) -> None:
    """Compute the mean and the variance of each channel of each field.

    Args:
        sums: Results of convolutions, float32.
        out: Tensor that receives means and variances, (pairs, 2) float32.
        problems: Table of problems, (n, columns) int64.
        tile_list: Tiles of one field and 16 channels, fields first, (2, number of tiles) int32.
    """
    for row in rows_of(problems, tile_list):
        values = _sums(sums, row).view(-1, row[Column.SIDE] ** 2, row[Column.FAN_OUT]).double()
        mean = values.mean(dim=1)
        variance = (values - mean[:, None]).square().mean(dim=1)
        pairs = torch.stack((mean, variance), dim=-1).flatten(0, 1).float()
        out[row[Column.MOMENTS] :][: len(pairs)] = pairs


def _calibrate_scales(
    pairs: Tensor, factor: Tensor, shift: Tensor, problems: Tensor, fields: int
) -> None:
    """Calibrate layers, such that the results on the calibration fields have unit RMS.

    Batch normalization, which is frozen, then gives each channel zero mean and unit variance.

    Args:
        pairs: Means and variances from `moments`, (pairs, 2) float32.
        factor: Tensor that receives the factor of each channel, float32.
        shift: Tensor that receives what is added afterwards, float32.
        problems: Table of problems, (n, columns) int64.
        fields: Number of calibration fields.
    """
    for row in problems.tolist():
        width = row[Column.FAN_OUT]
        part = pairs[row[Column.MOMENTS] :][: fields * width].view(fields, width, 2).double()
        mean, variance = part.unbind(dim=-1)
        power = (variance + mean.square()).sum() / (fields * row[Column.WIDTH])
        scale = power.rsqrt().expand(width)
        added = torch.zeros_like(scale)
        if row[Column.NORMALIZATION] == Normalization.BATCH:
            center = mean.mean(dim=0)
            spread = (variance + (mean - center).square()).mean(dim=0)
            normalized = scale * (scale.square() * spread + VARIANCE_FLOOR).rsqrt()
            scale, added = normalized, -center * normalized
        channels = slice(row[Column.CHANNELS], row[Column.CHANNELS] + width)
        factor[channels], shift[channels] = scale.float(), added.float()


def _finish_layers(
    sums: Tensor,
    pairs: Tensor,
    factor: Tensor,
    shift: Tensor,
    mask: Tensor,
    high: Tensor,
    low: Tensor,
    problems: Tensor,
    tile_list: Tensor,
) -> None:
    """Normalize and activate the results of convolutions, and store them as operands.

    Args:
        sums: Results of convolutions, float32.
        pairs: Means and variances from `moments`, for problems with instance normalization.
        factor: Factor of each channel, float32.
        shift: Addend of each channel, float32.
        mask: Factor of each channel after the activation, float32.
        high: High parts of the operands, see `spinlock.kernels.operands`.
        low: Low parts of the operands.
        problems: Table of problems, (n, columns) int64.
        tile_list: Tiles of `FINISH_TILE` elements, (2, number of tiles) int32.
    """
    for row in rows_of(problems, tile_list):
        width, start = row[Column.FAN_OUT], row[Column.CHANNELS]
        channels = slice(start, start + width)
        y = _sums(sums, row)
        if row[Column.NORMALIZATION] == Normalization.INSTANCE:
            fields = row[Column.PIXELS] // row[Column.SIDE] ** 2
            part = pairs[row[Column.MOMENTS] :][: fields * width].view(fields, 1, width, 2)
            scale = factor[channels]
            deviation = (scale.square() * part[..., 1] + VARIANCE_FLOOR).rsqrt()
            y = (y.view(fields, -1, width) - part[..., 0]) * (scale * deviation)
            y = y.view(-1, width)
        else:
            y = y * factor[channels] + shift[channels]
        match row[Column.ACTIVATION]:
            case Activation.RELU:
                y = F.relu(y)
            case Activation.GELU:
                y = F.gelu(y)
            case Activation.SILU:
                y = F.silu(y)
        y = y * mask[channels]
        given = slice(row[Column.SHORTCUT_DATA], row[Column.SHORTCUT_DATA] + y.numel())
        match row[Column.SHORTCUT]:
            case Shortcut.IDENTITY:
                y = y + read_operands(high[given], low[given]).view_as(y)
            case Shortcut.PROJECTION:
                scale = factor[row[Column.SHORTCUT_CHANNELS] :][:width]
                y = y + sums[given].view_as(y) * scale
        result = slice(row[Column.RESULT], row[Column.RESULT] + y.numel())
        write_operands(y.flatten(), high[result], low[result])


def _sums(sums: Tensor, row: list[int]) -> Tensor:
    """Return the result of a problem's convolution, (pixels, FAN_OUT)."""
    size = row[Column.PIXELS] * row[Column.FAN_OUT]
    return sums[row[Column.SUMS] :][:size].view(-1, row[Column.FAN_OUT])


moments = kernel_operation(_moments, "moments_kernel.launch_moments", mutates=("out",))
calibrate_scales = kernel_operation(
    _calibrate_scales, "moments_kernel.launch_calibrate_scales", mutates=("factor", "shift")
)
finish_layers = kernel_operation(
    _finish_layers, "finish_kernel.launch_finish_layers", mutates=("high", "low")
)
