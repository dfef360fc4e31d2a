"""A slow and simple operator in numpy float64, as an oracle for the convolutional operator.

It was written from the documentation, and shares only the random numbers with the package.
"""

import math

import numpy as np
from scipy.special import erf

from spinlock.simulation.randomness import Stream, symmetric_uniform, uniform


def convolve(x, weight):
    """Periodic cross-correlation of x (n, i, H, W) with weight (o, i, k, k), tap by tap."""
    margin = weight.shape[-1] // 2
    out = 0.0
    for dy in range(weight.shape[2]):
        for dx in range(weight.shape[3]):
            shifted = np.roll(x, (margin - dy, margin - dx), axis=(2, 3))
            out = out + np.einsum("oi,nihw->nohw", weight[:, :, dy, dx], shifted)
    return out


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def rms(x):
    return math.sqrt(np.mean(x**2))


class ReferenceOperator:
    """Draws and calibrates on construction; records the pre-activations of each application."""

    def __init__(self, values, seed, index, channels, calibration):
        self.v, self.seed, self.index, self.layer = values, seed, index, 0
        self.preactivations = []
        v = values
        widths = [v.base_channels * min(2**i, 4) for i in range(v.num_layers)]
        residual = v.num_layers > 3
        x = np.asarray(calibration, dtype=np.float64)
        self.input, x = self.calibrated(self.draw(widths[0], channels, v.kernel_size), x)
        self.blocks = []
        previous = widths[0]
        for width in widths:
            block = {"convolutions": [], "projection": None, "residual": residual}
            shortcut = x
            # All weights of a block are drawn before the next block's, masks under their number.
            drawn = [self.hidden_tensors(previous, width)]
            if residual:
                drawn.append(self.hidden_tensors(width, width))
                if previous != width:
                    block["projection"] = self.draw(width, previous, 1)
            for weight, mask in drawn:
                weight, x = self.calibrated(weight, x)
                mean = scale = None
                if v.normalization == "batch":
                    mean = x.mean(axis=(0, 2, 3), keepdims=True)
                    scale = 1 / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + 1e-5)
                convolution = {"weight": weight, "mask": mask, "mean": mean, "scale": scale}
                block["convolutions"].append(convolution)
                x = self.finish(convolution, x)
            if residual:
                if block["projection"] is not None:
                    block["projection"], shortcut = self.calibrated(block["projection"], shortcut)
                x = x + shortcut
            self.blocks.append(block)
            previous = width
        self.output, x = self.calibrated(self.draw(channels, previous, 1), x)
        for _ in range(50):
            factor = 1 / rms(10 * np.tanh(x / 10))
            self.output, x = self.output * factor, x * factor

    def draw(self, fan_out, fan_in, kernel):
        self.layer += 1
        count = fan_out * fan_in * kernel**2
        numbers = symmetric_uniform(
            self.seed, Stream.WEIGHTS, self.index, count, substream=self.layer
        )
        taps_first = numbers.double().numpy().reshape(kernel, kernel, fan_in, fan_out)
        return taps_first.transpose(3, 2, 0, 1)

    def hidden_tensors(self, width_in, width):
        weight = self.draw(width, width_in, self.v.kernel_size)
        numbers = uniform(
            self.seed, Stream.DROPOUT, self.index, width + 1, substream=self.layer
        ).numpy()
        order = np.argsort(numbers[:width], kind="stable")
        rate = self.v.dropout_rate
        mask = np.full(width, 1 / (1 - rate))
        for rank, channel in enumerate(order):
            if rank + numbers[width] < rate * width:
                mask[channel] = 0
        return weight, mask[None, :, None, None]

    def calibrated(self, weight, x):
        y = convolve(x, weight)
        return weight / rms(y), y / rms(y)

    def finish(self, convolution, y):
        if self.v.normalization == "batch":
            y = (y - convolution["mean"]) * convolution["scale"]
        elif self.v.normalization == "instance":
            mean = y.mean(axis=(2, 3), keepdims=True)
            y = (y - mean) / np.sqrt(y.var(axis=(2, 3), keepdims=True) + 1e-5)
        self.preactivations.append(y)
        return ACTIVATIONS[self.v.activation](y) * convolution["mask"]

    def __call__(self, fields):
        self.preactivations = []
        x = convolve(np.asarray(fields, dtype=np.float64), self.input)
        for block in self.blocks:
            shortcut = x
            for convolution in block["convolutions"]:
                x = self.finish(convolution, convolve(x, convolution["weight"]))
            if block["residual"]:
                if block["projection"] is not None:
                    shortcut = convolve(shortcut, block["projection"])
                x = x + shortcut
        return 10 * np.tanh(convolve(x, self.output) / 10)
