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
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spinlock.parameters import ParameterValues
from spinlock.randomness import Stream, normal, symmetric_uniform, uniform

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
    nodes = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = (-0.5 * nodes.square()).exp() / math.sqrt(2 * math.pi)
    second_moment = torch.trapezoid(
        _ACTIVATIONS[activation](nodes.clone()).square() * density, nodes
    )
    return 1 / math.sqrt(second_moment)


def hidden_widths(values: ParameterValues) -> list[int]:
    """Channels of each hidden block: B * min(2^i, 4)."""
    factors = (min(2**i, _MAX_WIDTH_FACTOR) for i in range(values.num_layers))
    return [values.base_channels * factor for factor in factors]


@lru_cache(maxsize=8)
def calibration_fields(
    seed: int, channels: int, grid_size: int, kernel_size: int, device: torch.device
) -> Tensor:
    """The fixed batch on which operators are calibrated: smooth to white, of unit variance.

    Gaussian random fields with power spectra f^0, f^-1, f^-2, f^-3 in turn. On grids of 32 and more
    pixels with kernels up to 8 they hold an eighth of the pixels of a field, so that calibration
    costs an eighth of one application.

    Returns:
        float32 tensor (n, channels, side, side), on the device.
    """
    side = max(grid_size // 8, 8, kernel_size)
    count = max(1, grid_size**2 // (8 * side**2))
    white = normal(seed, Stream.CALIBRATION, torch.arange(count), channels * side**2)
    spectrum = torch.fft.rfft2(white.double().view(count, channels, side, side))
    rows, columns = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    frequency = torch.from_numpy(np.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2))
    frequency[0, 0] = math.inf
    slope = torch.arange(count, dtype=torch.float64).remainder(4)[:, None, None, None]
    # The constant mode goes where frequency is infinite; at slope 0 it has to be taken out by hand.
    shaped = spectrum * frequency.pow(-0.5 * slope) * frequency.isfinite()
    field = torch.fft.irfft2(shaped, s=(side, side))
    power = field.square().mean(dim=(1, 2, 3), keepdim=True)
    normalized: Tensor = field / power.sqrt()
    return normalized.float().to(device)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Periodic convolution of x (n, C, H, W) that keeps its size."""
    margin = weight.shape[-1] // 2
    if margin:
        x = F.pad(x, (margin, margin, margin, margin), mode="circular")
    return F.conv2d(x, weight, bias)


def _root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _calibrated(x: Tensor, weight: Tensor) -> Tensor:
    """Scale weights in place so that the convolution of x has unit RMS; return that result."""
    y = _convolve(x, weight)
    scale = 1 / _root_mean_square(y)
    weight *= scale
    return y.mul_(scale)


class _HiddenConvolution:
    """Convolution, normalization, activation, frozen channel dropout."""

    def __init__(self, weight: Tensor, mask: Tensor, normalization: str, activation: str) -> None:
        self._weight = weight
        self._bias: Tensor | None = None
        self._mask = mask
        self._normalization = normalization
        self._activation = _ACTIVATIONS[activation]

    def calibrate(self, x: Tensor) -> Tensor:
        y = _calibrated(x, self._weight)
        if self._normalization == "batch":
            # As a trained BatchNorm at inference: an affine map, folded into the convolution.
            variance, mean = torch.var_mean(y, dim=(0, 2, 3), correction=0)
            scale = (variance + _VARIANCE_FLOOR).rsqrt()
            self._weight *= scale[:, None, None, None]
            self._bias = -mean * scale
            y = (y - mean[:, None, None]) * scale[:, None, None]
        return self._finish(y)

    def __call__(self, x: Tensor) -> Tensor:
        return self._finish(_convolve(x, self._weight, self._bias))

    def _finish(self, y: Tensor) -> Tensor:
        if self._normalization == "instance":
            y = F.instance_norm(y, eps=_VARIANCE_FLOOR)
        return self._activation(y).mul_(self._mask)


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

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self._convolutions:
            y = convolution(y)
        if not self._residual:
            return y
        return y.add_(x if self._projection is None else _convolve(x, self._projection))


class _Drawing:
    """Draws the tensors of one operator; each has an address of its own."""

    def __init__(
        self, seed: int, index: int, values: ParameterValues, device: torch.device
    ) -> None:
        self._seed, self._index, self._values, self._device = seed, index, values, device
        self._layer = 0

    def weight(self, fan_out: int, fan_in: int, kernel: int, gain: float) -> Tensor:
        """Uniform weights of variance gain^2 / (fan_in * kernel^2)."""
        size = (fan_out, fan_in, kernel, kernel)
        self._layer += 1
        drawn = symmetric_uniform(
            self._seed,
            Stream.WEIGHTS,
            self._index,
            math.prod(size),
            substream=self._layer,
            device=self._device,
        )
        return drawn.mul_(gain * math.sqrt(3 / (fan_in * kernel**2))).view(size)

    def mask(self, width: int) -> Tensor:
        """Channel dropout (1, width, 1, 1): zeros, and 1 / (1 - rate) elsewhere.

        Systematic sampling: the channels are ranked at random, and those whose rank, shifted by a
        random offset, lies below rate * width are silenced. Each channel is silenced with
        probability ``rate``, and their number is within one of rate * width, so no operator loses
        a layer.
        """
        rate = self._values.dropout_rate
        drawn = uniform(
            self._seed,
            Stream.DROPOUT,
            self._index,
            width + 1,
            substream=self._layer,
            device=self._device,
        )
        rank = drawn[:width].argsort(stable=True).argsort(stable=True)
        kept = rank + drawn[width] >= rate * width
        return (kept / (1 - rate)).view(1, width, 1, 1)

    def hidden(self, width_in: int, width: int) -> _HiddenConvolution:
        v = self._values
        gain = variance_preserving_gain(v.activation)
        weight = self.weight(width, width_in, v.kernel_size, gain)
        return _HiddenConvolution(weight, self.mask(width), v.normalization, v.activation)


class ConvOperator:
    """One random operator F, drawn and calibrated.

    Args:
        values: The operator's parameter values.
        seed: The dataset's seed.
        index: The operator's index, which with the seed addresses its randomness.
        channels: Channels C of a field.
        device: Where its weights live and its fields must be.
    """

    def __init__(
        self,
        values: ParameterValues,
        *,
        seed: int,
        index: int,
        channels: int = 3,
        device: torch.device | str = "cpu",
    ) -> None:
        device = torch.device(device)
        draw = _Drawing(seed, index, values, device)
        widths = hidden_widths(values)
        residual = values.num_layers > _MAX_PLAIN_LAYERS
        self._input = draw.weight(widths[0], channels, values.kernel_size, gain=1.0)
        self._blocks: list[_Block] = []
        for width_in, width in zip([widths[0], *widths[:-1]], widths, strict=True):
            convolutions = [draw.hidden(width_in, width)]
            projection = None
            if residual:
                convolutions.append(draw.hidden(width, width))
                if width_in != width:
                    projection = draw.weight(width, width_in, 1, gain=1.0)
            self._blocks.append(_Block(convolutions, residual, projection))
        self._output = draw.weight(channels, widths[-1], 1, gain=1.0)
        self._calibrate(
            calibration_fields(seed, channels, values.grid_size, values.kernel_size, device)
        )

    def _calibrate(self, fields: Tensor) -> None:
        x = _calibrated(fields, self._input)
        for block in self._blocks:
            x = block.calibrate(x)
        y = _calibrated(x, self._output)
        for _ in range(_OUTPUT_ITERATIONS):
            scale = 1 / _root_mean_square(_bounded(y.clone()))
            y *= scale
            self._output *= scale

    def __call__(self, fields: Tensor) -> Tensor:
        """Apply the operator.

        Args:
            fields: (n, C, H, W) float32.

        Returns:
            (n, C, H, W) float32, every value of modulus at most `OUTPUT_BOUND`.
        """
        x = _convolve(fields, self._input)
        for block in self._blocks:
            x = block(x)
        return _bounded(_convolve(x, self._output))


def _bounded(x: Tensor) -> Tensor:
    return x.div_(OUTPUT_BOUND).tanh_().mul_(OUTPUT_BOUND)
