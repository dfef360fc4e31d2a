"""Draws the weights and dropout masks of one operator, each at its own random address."""

import math

import torch
from torch import Tensor

from spinlock.configuration.generation_config import Precision
from spinlock.configuration.parameter_space import ParameterValues
from spinlock.simulation.convolution import prepared
from spinlock.simulation.network_layers import Layer
from spinlock.simulation.randomness import Stream, symmetric_uniform, uniform


class OperatorDrawing:
    """Draws the tensors of an operator; the number of a layer is part of the random address.

    Args:
        seed: Seed of the dataset.
        index: Index of the operator.
        values: Parameter values of the operator.
        device: Device of the tensors.
    """

    def __init__(
        self, seed: int, index: int, values: ParameterValues, device: torch.device
    ) -> None:
        self._seed, self._index, self._values, self.device = seed, index, values, device

    def weight(self, layer: Layer, inputs: Tensor | None = None) -> Tensor:
        """Draw uniform weights of variance gain^2 / (fan_in * kernel^2) for a layer.

        Random positions count outputs first, then inputs, then the kernel's columns and rows, which
        is the order of `prepared` weights in the memory of a CPU.

        Args:
            layer: The layer.
            inputs: Input channels to keep, (n,) int64; default: all.

        Returns:
            Weights as `prepared` returns them, (fan_out, fan_in or n, kernel, kernel) float32.
        """
        drawn = symmetric_uniform(
            self._seed,
            Stream.WEIGHTS,
            self._index,
            layer.weights,
            substream=layer.number,
            scale=largest_weight(layer),
            device=self.device,
        ).view(layer.kernel**2, layer.fan_in, layer.fan_out)
        if inputs is not None:
            drawn = drawn.index_select(1, inputs)
        side = layer.kernel
        return prepared(drawn.view(side, side, -1, layer.fan_out).permute(3, 2, 0, 1))

    def mask(self, layer: Layer) -> Tensor:
        """Draw the dropout mask of a layer on the device; see `dropout_mask`."""
        rate = self._values.dropout_rate
        return dropout_mask(self._seed, self._index, layer, rate, self.device)


def dropout_mask(
    seed: int, index: int, layer: Layer, rate: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw the dropout mask of a layer.

    Systematic sampling ranks the channels at random and silences those whose rank, shifted by a
    random offset, lies below rate * width. Each channel is silenced with probability ``rate``,
    and the number of silenced channels differs from rate * width by less than one, so no
    operator loses a whole layer.

    Args:
        seed: Seed of the dataset.
        index: Index of the operator.
        layer: The layer, which has width = fan_out channels.
        rate: Share of the channels to silence, in [0, 1).
        device: Device of the mask; default: the CPU.

    Returns:
        Factors of the channels, (width,) float32: 0 or 1 / (1 - rate).
    """
    width, substream = layer.fan_out, layer.number
    drawn = uniform(seed, Stream.DROPOUT, index, width + 1, substream=substream, device=device)
    rank = drawn[:width].argsort(stable=True).argsort(stable=True)
    return (rank + drawn[width] >= rate * width).float() / (1 - rate)


def largest_weight(layer: Layer) -> float:
    """Return the bound of the drawn weights of a layer, before calibration."""
    return layer.gain * math.sqrt(3 / (layer.fan_in * layer.kernel**2))


def rounded_weight(weight: Tensor, precision: Precision) -> Tensor:
    """Round calibrated weights as a precision asks; TF32 is a matter of the convolution."""
    return weight.to(torch.bfloat16) if precision == "bfloat16" else weight
