"""Drawing the tensors of one operator: weights and dropout masks, each at an address of its own."""

import math

import torch
from torch import Tensor

from spinlock.simulation.convolution import prepared
from spinlock.simulation.parameter_space import ParameterValues
from spinlock.simulation.randomness import Stream, symmetric_uniform, uniform


class OperatorDrawing:
    """Draws an operator's tensors, layer after layer; the order of the calls is their address.

    Args:
        seed: The dataset's seed.
        index: The operator's index.
        values: The operator's parameter values.
        device: Where the tensors are drawn.
    """

    def __init__(
        self, seed: int, index: int, values: ParameterValues, device: torch.device
    ) -> None:
        self._seed, self._index, self._values, self._device = seed, index, values, device
        self._layer = 0

    def weight(
        self, fan_out: int, fan_in: int, kernel: int, gain: float, inputs: Tensor | None = None
    ) -> Tensor:
        """Uniform weights of variance gain^2 / (fan_in * kernel^2), of some inputs or of all.

        Positions count outputs first, then inputs, then the kernel's columns and rows: the order in
        which `prepared` weights lie in a host's memory.

        Returns:
            (fan_out, fan_in or len(inputs), kernel, kernel) float32, `prepared`.
        """
        self._layer += 1
        drawn = symmetric_uniform(
            self._seed,
            Stream.WEIGHTS,
            self._index,
            fan_out * fan_in * kernel**2,
            substream=self._layer,
            scale=gain * math.sqrt(3 / (fan_in * kernel**2)),
            device=self._device,
        ).view(kernel**2, fan_in, fan_out)
        if inputs is not None:
            drawn = drawn.index_select(1, inputs)
        return prepared(drawn.view(kernel, kernel, -1, fan_out).permute(3, 2, 0, 1))

    def mask(self, width: int) -> Tensor:
        """Channel dropout (width,): zeros, and 1 / (1 - rate) elsewhere.

        Systematic sampling: the channels are ranked at random, and those whose rank, shifted by a
        random offset, lies below rate * width are silenced. Each channel is silenced with
        probability ``rate``, and their number is within one of rate * width, so no operator loses
        a layer.
        """
        rate = self._values.dropout_rate
        address = self._seed, Stream.DROPOUT, self._index
        drawn = uniform(*address, width + 1, substream=self._layer, device=self._device)
        rank = drawn[:width].argsort(stable=True).argsort(stable=True)
        return (rank + drawn[width] >= rate * width).float() / (1 - rate)
