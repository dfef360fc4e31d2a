"""Draws random convolutional operators from parameter values and a random address.

F is a periodic convolutional network: an input convolution to B channels, hidden blocks of width
B * min(2^i, 4), and a 1x1 convolution to the channels of the field, followed by b * tanh(x / b).
A block is one convolution or, in networks with more than three blocks, a residual pair. Each
hidden convolution is followed by normalization, activation and a frozen channel dropout.

Weights are drawn with a variance that preserves the scale of activations [1]_ and are then
calibrated layer by layer (LSUV [2]_): on a small fixed batch of fields, every pre-activation and
the output have unit root mean square.

.. [1] K. He et al., "Delving deep into rectifiers", ICCV 2015.
.. [2] D. Mishkin, J. Matas, "All you need is a good init", ICLR 2016.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spinlock.configuration.generation_config import Precision
from spinlock.configuration.parameter_space import ParameterValues
from spinlock.kernels.layer_table import VARIANCE_FLOOR
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.calibration import calibration_fields
from spinlock.simulation.convolution import periodic_convolution, select_channels, select_outputs
from spinlock.simulation.network_layers import ACTIVATIONS, Layer, network
from spinlock.simulation.operator_weights import OperatorDrawing, rounded_weight

#: Bound b of the operator's output: |F(u)| <= b.
OUTPUT_BOUND = 10.0
#: Fixed-point iterations that calibrate the output through tanh; each gains nearly two digits.
OUTPUT_ITERATIONS = 4


def _root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _calibrated(x: Tensor, weight: Tensor) -> Tensor:
    """Scale weights in place so that the convolution of x has unit RMS, and return its result."""
    y = periodic_convolution(x, weight)
    scale = 1 / _root_mean_square(y)
    weight *= scale
    return y.mul_(scale)


def _instance_norm(x: Tensor) -> Tensor:
    """Give each channel of each field zero mean and unit variance."""
    if x.device.type != "cpu":
        return F.instance_norm(x, eps=VARIANCE_FLOOR)
    # torch's instance_norm takes four times as long in the channels_last layout.
    y = x - x.mean(dim=(2, 3), keepdim=True)
    variance = y.square().mean(dim=(2, 3), keepdim=True)
    return y.mul_((variance + VARIANCE_FLOOR).rsqrt_())


class _HiddenConvolution:
    """A convolution followed by normalization, activation and frozen channel dropout.

    Args:
        weight: Drawn weights, (O, I, k, k) float32.
        mask: Factor of each channel, (O,): 0 for the channels that dropout silences.
        normalization: ``none``, ``instance`` or ``batch``.
        activation: Name of the activation.
        prune: Whether the result omits the silenced channels. The other channels are then not
            rescaled, because the calibration of the next convolution undoes any common factor.
    """

    def __init__(
        self, weight: Tensor, mask: Tensor, normalization: str, activation: str, *, prune: bool
    ) -> None:
        self._weight = weight
        self._bias: Tensor | None = None
        self._mask = mask[:, None, None]
        self._normalization = normalization
        self._activation = ACTIVATIONS[activation]
        self._tf32 = False
        #: Channels in the result; None if it has all of them.
        self.kept = mask.nonzero()[:, 0] if prune else None

    def calibrate(self, x: Tensor) -> Tensor:
        y = _calibrated(x, self._weight)
        if self._normalization == "batch":
            # A trained BatchNorm at inference is an affine map; fold it into the convolution.
            mean = y.mean(dim=(0, 2, 3), keepdim=True)
            y -= mean
            scale = (y.square().mean(dim=(0, 2, 3)) + VARIANCE_FLOOR).rsqrt()
            y *= scale[:, None, None]
            self._weight *= scale[:, None, None, None]
            self._bias = -mean.flatten() * scale
        if self.kept is not None:
            # Silenced channels take part in the calibration only.
            self._weight = select_outputs(self._weight, self.kept)
            self._bias = None if self._bias is None else self._bias[self.kept]
            y = select_channels(y, self.kept)
        return self._finish(y)

    def apply_in(self, precision: Precision) -> None:
        self._tf32 = precision == "tf32"
        self._weight = rounded_weight(self._weight, precision)

    def __call__(self, x: Tensor) -> Tensor:
        return self._finish(periodic_convolution(x, self._weight, self._bias, tf32=self._tf32))

    def _finish(self, y: Tensor) -> Tensor:
        if self._normalization == "instance":
            y = _instance_norm(y)
        y = self._activation(y)
        return y if self.kept is not None else y.mul_(self._mask)


class _Block:
    """A sequence of hidden convolutions, with a shortcut around them if it is residual.

    Args:
        convolutions: One convolution, or two if the block is residual.
        projection: Weights of the 1x1 convolution in the shortcut; None for the identity.
    """

    def __init__(self, convolutions: list[_HiddenConvolution], projection: Tensor | None) -> None:
        self._convolutions, self._residual = convolutions, len(convolutions) > 1
        self._projection, self._tf32 = projection, False

    def calibrate(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self._convolutions:
            y = convolution.calibrate(y)
        if not self._residual:
            return y
        return y + (x if self._projection is None else _calibrated(x, self._projection))

    def apply_in(self, precision: Precision) -> None:
        for convolution in self._convolutions:
            convolution.apply_in(precision)
        self._tf32 = precision == "tf32"
        if self._projection is not None:
            self._projection = rounded_weight(self._projection, precision)

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self._convolutions:
            y = convolution(y)
        if not self._residual:
            return y
        if self._projection is not None:
            x = periodic_convolution(x, self._projection, tf32=self._tf32)
        return y.add_(x)


class ConvOperator:
    """A random operator F, drawn and calibrated.

    Args:
        values: Parameter values of the operator.
        seed: Seed of the dataset.
        index: Index of the operator; with the seed it addresses the operator's random numbers.
        channels: Number of channels C of a field.
        precision: Arithmetic of the convolutions; calibration uses float32 on any device.
        device: Device of the weights and of the fields.
        clock: Counts the time of the stages ``weights`` and ``calibration``.

    Example:
        >>> import torch
        >>> from spinlock.configuration.parameter_space import ParameterValues
        >>> values = ParameterValues(
        ...     num_layers=2, base_channels=4, kernel_size=3, activation="gelu", dropout_rate=0.1,
        ...     noise_type="gaussian", noise_scale=0.1, noise_schedule="constant",
        ...     schedule_period=100, spatial_correlation=0.0, normalization="none", grid_size=16,
        ...     update_policy="residual", alpha=0.5, dt=0.1,
        ... )
        >>> operator = ConvOperator(values, seed=42, index=0)
        >>> operator(torch.ones(1, 3, 16, 16)).shape
        torch.Size([1, 3, 16, 16])
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
        self._apply_in(precision)

    def _draw(self, values: ParameterValues, draw: OperatorDrawing, channels: int) -> None:
        layers = network(values, channels)
        # Silenced channels are up to a third of the work, but GPUs prefer multiples of 4 channels.
        may_prune = values.dropout_rate > 0 and draw.device.type == "cpu"

        def hidden(layer: Layer, inputs: Tensor | None, *, prune: bool) -> _HiddenConvolution:
            rules = values.normalization, values.activation
            weight, mask = draw.weight(layer, inputs), draw.mask(layer)
            return _HiddenConvolution(weight, mask, *rules, prune=prune and may_prune)

        self._input = draw.weight(layers.entry)
        self._blocks: list[_Block] = []
        kept: Tensor | None = None
        for block in layers.blocks:
            first, *second = block.convolutions
            # A residual block adds its shortcut, which has all channels, so it is not pruned.
            convolutions = [hidden(first, kept, prune=True)]
            inner = convolutions[0].kept
            convolutions += [hidden(layer, inner, prune=False) for layer in second]
            projection = None if block.projection is None else draw.weight(block.projection)
            kept = convolutions[-1].kept
            self._blocks.append(_Block(convolutions, projection))
        self._output = draw.weight(layers.exit, kept)

    def _calibrate(self, fields: Tensor) -> None:
        x = _calibrated(fields, self._input)
        for block in self._blocks:
            x = block.calibrate(x)
        y = _calibrated(x, self._output)
        for _ in range(OUTPUT_ITERATIONS):
            scale = 1 / _root_mean_square(_bounded(y.clone()))
            y *= scale
            self._output *= scale

    def _apply_in(self, precision: Precision) -> None:
        self._input = rounded_weight(self._input, precision)
        self._output = rounded_weight(self._output, precision)
        self._tf32 = precision == "tf32"
        for block in self._blocks:
            block.apply_in(precision)

    def __call__(self, fields: Tensor) -> Tensor:
        """Apply the operator to each field.

        Args:
            fields: Fields, (n, C, H, W) float32.

        Returns:
            Output fields, (n, C, H, W) float32, with absolute values of at most `OUTPUT_BOUND`.
        """
        x = periodic_convolution(fields, self._input, tf32=self._tf32)
        for block in self._blocks:
            x = block(x)
        return _bounded(periodic_convolution(x, self._output, tf32=self._tf32).contiguous())


def _bounded(x: Tensor) -> Tensor:
    return x.div_(OUTPUT_BOUND).tanh_().mul_(OUTPUT_BOUND)
