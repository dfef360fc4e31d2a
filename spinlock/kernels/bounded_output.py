"""The output of operators, b tanh(x / b), and its calibration."""

from torch import Tensor

from spinlock.kernels.kernel_operation import kernel_operation
from spinlock.kernels.layer_table import Column, rows_of


def _calibrate_output(
    sums: Tensor, factor: Tensor, problems: Tensor, pixels: int, bound: float, iterations: int
) -> None:
    """Calibrate the factor of the output, such that b tanh(factor x / b) has unit RMS.

    Args:
        sums: Results x of the last convolution on the calibration fields, float32.
        factor: Tensor that receives the factor of each channel, float32.
        problems: Table of problems, (n, columns) int64.
        pixels: Number of pixels of all calibration fields.
        bound: Bound b of the absolute value.
        iterations: Number of fixed-point iterations after the factor of unit RMS of x itself.
    """
    for row in problems.tolist():
        fan_out, width = row[Column.FAN_OUT], row[Column.WIDTH]
        x = sums[row[Column.SUMS] :][: pixels * fan_out].view(-1, fan_out)[:, :width]
        scale = x.square().mean().rsqrt()
        for _ in range(iterations):
            scale = scale * (bound * (x * (scale / bound)).tanh()).square().mean().rsqrt()
        factor[row[Column.CHANNELS] :][:fan_out] = scale


def _bound_output(
    sums: Tensor,
    factor: Tensor,
    fields: Tensor,
    problems: Tensor,
    tile_list: Tensor,
    bound: float,
) -> None:
    """Write the output of operators, b tanh(factor x / b).

    Args:
        sums: Results x of the last convolution, float32.
        factor: Factor of each channel, float32.
        fields: Fields that receive the output, (n, C, H, W) float32. The offset ``RESULT`` of a
            problem counts fields.
        problems: Table of problems, (n, columns) int64.
        tile_list: Tiles of `FINISH_TILE` elements, (2, number of tiles) int32.
        bound: Bound b of the absolute value.
    """
    _, channels, height, width = fields.shape
    for row in rows_of(problems, tile_list):
        size, fan_out = row[Column.PIXELS] * row[Column.FAN_OUT], row[Column.FAN_OUT]
        x = sums[row[Column.SUMS] :][:size].view(-1, height, width, fan_out)[..., :channels]
        scale = factor[row[Column.CHANNELS]] / bound
        given = fields[row[Column.RESULT] :][: len(x)]
        given.copy_((x * scale).tanh().mul(bound).permute(0, 3, 1, 2))


calibrate_output = kernel_operation(
    _calibrate_output, "finish_kernel.launch_calibrate_output", mutates=("factor",)
)
bound_output = kernel_operation(
    _bound_output, "finish_kernel.launch_bound_output", mutates=("fields",)
)
