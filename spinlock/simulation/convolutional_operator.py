"""Random convolutional operators: parameter values and an address -> a map from field to field.

F is a periodic convolutional network: an input convolution to B channels, hidden blocks of width
B * min(2^i, 4), and a 1x1 convolution back to the field's channels, ending in b * tanh(x / b).
A block is one convolution or, in networks of more than three, a residual pair. Each hidden
convolution is followed by normalization, activation and a frozen channel dropout.

Weights are drawn variance-preserving [1]_ and then calibrated layer by layer, so that on a small
fixed batch of fields every pre-activation and the output have unit root mean square (LSUV [2]_).

.. [1] K. He et al., "Delving deep into rectifiers", ICCV 2015.
.. [2] D. Mishkin, J. Matas, "All you need is a good init", ICLR 2016.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from spinlock.configuration.generation_config import Precision
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.calibration import calibration_fields
from spinlock.simulation.convolution import periodic_convolution, select_channels, select_outputs
from spinlock.simulation.operator_weights import OperatorDrawing
from spinlock.simulation.parameter_space import ParameterValues

#: Bound b of the operator's output: |F(u)| <= b.
OUTPUT_BOUND = 10.0
# Blocks become residual above this number of layers, where plain stacks lose their input.
_MAX_PLAIN_LAYERS = 3
_MAX_WIDTH_FACTOR = 4
# Instance and batch normalization, as in torch.nn.
_VARIANCE_FLOOR = 1e-5
# Fixed-point iterations that calibrate through tanh: each gains nearly two digits.
_OUTPUT_ITERATIONS = 4

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu_,
    "gelu": F.gelu,
    "silu": lambda x: F.silu(x, inplace=True),
}


@cache
def variance_preserving_gain(activation: str) -> float:
    """1 / sqrt(E f(z)^2) for standard normal z and the activation f, by quadrature."""
    nodes = torch.linspace(-12, 12, 200_001, dtype=torch.float64, device="cpu")
    density = (-0.5 * nodes.square()).exp() / math.sqrt(2 * math.pi)
    second_moment = torch.trapezoid(
        _ACTIVATIONS[activation](nodes.clone()).square() * density, nodes
    )
    return 1 / math.sqrt(second_moment)


def hidden_widths(values: ParameterValues) -> list[int]:
    """Channels of each hidden block: B * min(2^i, 4)."""
    factors = (min(2**i, _MAX_WIDTH_FACTOR) for i in range(values.num_layers))
    return [values.base_channels * factor for factor in factors]


def direct_flops(values: ParameterValues, channels: int = 3) -> int:
    """Floating-point operations of one application to one field, all convolutions done directly.

    A multiplication and an addition for each weight and pixel; channels that dropout silences
    count, and nothing but convolutions does.
    """
    widths, taps = hidden_widths(values), values.kernel_size**2
    weights = channels * widths[0] * taps + widths[-1] * channels
    for width_in, width in zip([widths[0], *widths[:-1]], widths, strict=True):
        weights += width_in * width * taps
        if values.num_layers > _MAX_PLAIN_LAYERS:
            weights += width * width * taps + (width_in * width if width_in != width else 0)
    return 2 * weights * values.grid_size**2


def _root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _calibrated(x: Tensor, weight: Tensor) -> Tensor:
    """Scale weights in place so that the convolution of x has unit RMS; return that result."""
    y = periodic_convolution(x, weight)
    scale = 1 / _root_mean_square(y)
    weight *= scale
    return y.mul_(scale)


def _instance_norm(x: Tensor) -> Tensor:
    """Give each channel of each field zero mean and unit variance."""
    if x.device.type != "cpu":
        return F.instance_norm(x, eps=_VARIANCE_FLOOR)
    # The library's way with the channels_last layout is four times slower.
    y = x - x.mean(dim=(2, 3), keepdim=True)
    variance = y.square().mean(dim=(2, 3), keepdim=True)
    return y.mul_((variance + _VARIANCE_FLOOR).rsqrt_())


class _HiddenConvolution:
    """Convolution, normalization, activation, frozen channel dropout.

    With ``prune``, silenced channels are left out of the result, and the next convolution must not
    expect them. The others are then not rescaled: its calibration undoes any common factor.
    """

    def __init__(
        self, weight: Tensor, mask: Tensor, normalization: str, activation: str, *, prune: bool
    ) -> None:
        self._weight = weight
        self._bias: Tensor | None = None
        self._mask = mask[:, None, None]
        self._normalization = normalization
        self._activation = _ACTIVATIONS[activation]
        #: Channels of the result, or None for all O.
        self.kept = mask.nonzero()[:, 0] if prune else None

    def calibrate(self, x: Tensor) -> Tensor:
        y = _calibrated(x, self._weight)
        if self._normalization == "batch":
            # As a trained BatchNorm at inference: an affine map, folded into the convolution.
            mean = y.mean(dim=(0, 2, 3), keepdim=True)
            y -= mean
            scale = (y.square().mean(dim=(0, 2, 3)) + _VARIANCE_FLOOR).rsqrt()
            y *= scale[:, None, None]
            self._weight *= scale[:, None, None, None]
            self._bias = -mean.flatten() * scale
        if self.kept is not None:
            # Silenced channels count in the calibration; from here on they are zeros.
            self._weight = select_outputs(self._weight, self.kept)
            self._bias = None if self._bias is None else self._bias[self.kept]
            y = select_channels(y, self.kept)
        return self._finish(y)

    def round_weights(self, dtype: torch.dtype) -> None:
        self._weight = self._weight.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return self._finish(periodic_convolution(x, self._weight, self._bias))

    def _finish(self, y: Tensor) -> Tensor:
        if self._normalization == "instance":
            y = _instance_norm(y)
        y = self._activation(y)
        return y if self.kept is not None else y.mul_(self._mask)


class _Block:
    """Hidden convolutions in sequence; with a shortcut around them where residual."""

    def __init__(
        self, convolutions: list[_HiddenConvolution], residual: bool, projection: Tensor | None
    ) -> None:
        self._convolutions = convolutions
        self._residual = residual
        self._projection = projection

    def calibrate(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self._convolutions:
            y = convolution.calibrate(y)
        if not self._residual:
            return y
        return y + (x if self._projection is None else _calibrated(x, self._projection))

    def round_weights(self, dtype: torch.dtype) -> None:
        for convolution in self._convolutions:
            convolution.round_weights(dtype)
        if self._projection is not None:
            self._projection = self._projection.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self._convolutions:
            y = convolution(y)
        if not self._residual:
            return y
        return y.add_(x if self._projection is None else periodic_convolution(x, self._projection))


def _draw_hidden(
    draw: OperatorDrawing,
    values: ParameterValues,
    width_in: int,
    width: int,
    inputs: Tensor | None,
    *,
    prune: bool,
) -> _HiddenConvolution:
    gain = variance_preserving_gain(values.activation)
    weight = draw.weight(width, width_in, values.kernel_size, gain, inputs)
    # Silenced channels are up to a third of the work, but a GPU likes multiples of 4 channels.
    prune = prune and values.dropout_rate > 0 and weight.device.type == "cpu"
    mask = draw.mask(width)
    return _HiddenConvolution(weight, mask, values.normalization, values.activation, prune=prune)


class ConvOperator:
    """One random operator F, drawn and calibrated.

    Args:
        values: The operator's parameter values.
        seed: The dataset's seed.
        index: The operator's index, which with the seed addresses its randomness.
        channels: Channels C of a field.
        precision: As in `spinlock.configuration.GenerationConfig`; calibration is in float32.
        device: Where its weights live and its fields must be.
        clock: Counts the time of drawing the ``weights`` and of ``calibration``.
    """

    def __init__(
        self,
        values: ParameterValues,
        *,
        seed: int,
        index: int,
        channels: int = 3,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
        clock: StageClock | None = None,
    ) -> None:
        device, clock = torch.device(device), clock or StageClock()
        with clock.stage("weights"):
            self._draw(values, OperatorDrawing(seed, index, values, device), channels)
        with clock.stage("calibration"):
            size = values.grid_size, values.kernel_size
            self._calibrate(calibration_fields(seed, channels, *size, device))
        if precision == "bfloat16":
            self._round_weights(torch.bfloat16)

    def _draw(self, values: ParameterValues, draw: OperatorDrawing, channels: int) -> None:
        widths = hidden_widths(values)
        residual = values.num_layers > _MAX_PLAIN_LAYERS
        self._input = draw.weight(widths[0], channels, values.kernel_size, gain=1.0)
        self._blocks: list[_Block] = []
        kept: Tensor | None = None
        for width_in, width in zip([widths[0], *widths[:-1]], widths, strict=True):
            # A residual block ends in a sum with its shortcut, which has all channels.
            convolutions = [_draw_hidden(draw, values, width_in, width, kept, prune=True)]
            projection = None
            if residual:
                inner = convolutions[0].kept
                convolutions.append(_draw_hidden(draw, values, width, width, inner, prune=False))
                if width_in != width:
                    projection = draw.weight(width, width_in, 1, gain=1.0)
            kept = convolutions[-1].kept
            self._blocks.append(_Block(convolutions, residual, projection))
        self._output = draw.weight(channels, widths[-1], 1, gain=1.0, inputs=kept)

    def _calibrate(self, fields: Tensor) -> None:
        x = _calibrated(fields, self._input)
        for block in self._blocks:
            x = block.calibrate(x)
        y = _calibrated(x, self._output)
        for _ in range(_OUTPUT_ITERATIONS):
            scale = 1 / _root_mean_square(_bounded(y.clone()))
            y *= scale
            self._output *= scale

    def _round_weights(self, dtype: torch.dtype) -> None:
        self._input, self._output = self._input.to(dtype), self._output.to(dtype)
        for block in self._blocks:
            block.round_weights(dtype)

    def __call__(self, fields: Tensor) -> Tensor:
        """Apply the operator.

        Args:
            fields: (n, C, H, W) float32.

        Returns:
            (n, C, H, W) float32, every value of modulus at most `OUTPUT_BOUND`.
        """
        x = periodic_convolution(fields, self._input)
        for block in self._blocks:
            x = block(x)
        return _bounded(periodic_convolution(x, self._output).contiguous())


def _bounded(x: Tensor) -> Tensor:
    return x.div_(OUTPUT_BOUND).tanh_().mul_(OUTPUT_BOUND)
