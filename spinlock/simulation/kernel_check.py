"""Compares kernels with the plain computation on the device of a user, once in a process.

Kernels are compiled for each device by whatever versions of Triton and of the driver a user has.
The check draws a few small operators, applies them together by kernels, and compares the result
with operators that are applied one after another by torch.
"""

import math
import warnings
from functools import cache
from textwrap import shorten

import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig, Precision
from spinlock.configuration.parameter_space import ParameterValues
from spinlock.kernels.draw_check import draws_agree
from spinlock.kernels.layer_table import padded_width
from spinlock.kernels.triton_support import triton_available
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.one_copy import copy_to_device
from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.dynamics import measuring_side
from spinlock.simulation.network_layers import largest_width
from spinlock.simulation.operator_group import OperatorGroup, OperatorGroupPlan
from spinlock.simulation.randomness import Stream, normal

# Several calibration fields, and several tiles of pixels.
_SEED, _SIDE, _CHANNELS = 2**63 + 1, 40, 3
# Number of layers, channels, kernel, normalization, activation and dropout rate: every kind of
# each, and a layer of more than one tile of channels.
_NETWORKS = (
    (1, 6, 3, "none", "relu", 0.3),
    (2, 6, 5, "batch", "silu", 0.0),
    (3, 20, 1, "none", "silu", 0.3),
    (4, 6, 7, "instance", "gelu", 0.3),
)
# Largest difference of fields of RMS 1. For these operators, rounding causes up to 4e-6, 6e-3 and
# 0.06 on a CPU.
_ALLOWED: dict[Precision, float] = {"float32": 1e-4, "tf32": 0.02, "bfloat16": 0.2}


# Kernels count the weights of a layer in 32 bits.
_MOST_WEIGHTS = 2**31 - 2**16
# Kernels round the sum of a residual block to the precision, so errors grow with the number of
# blocks; with this number they are those of operators that are applied one by one.
_MOST_ROUNDED_LAYERS = 16


def computes_together(config: GenerationConfig, device: torch.device) -> bool:
    """Return whether the operators of a block of samples are applied together, by kernels.

    They must belong to a family of this package, none of their layers may be too large, half a
    convolution kernel must fit into the grid, networks of lower precision must not be deep, and the
    kernels of the device must agree with the plain computation.

    Args:
        config: Configuration of a dataset.
        device: Device that computes the samples.
    """
    if not isinstance(config.operator, str):
        return False
    space = config.parameter_space
    widest = padded_width(largest_width(space.base_channels.high, space.num_layers.high))
    kernel, side = max(space.kernel_size), config.grid_size
    if config.dynamics:
        side = measuring_side(side, built_in=True)
    if max(widest, config.channels) * widest * kernel**2 > _MOST_WEIGHTS or kernel // 2 > side:
        return False
    if config.precision != "float32" and space.num_layers.high > _MOST_ROUNDED_LAYERS:
        return False
    return kernels_agree(device, config.precision)


@cache
def kernels_agree(device: torch.device, precision: Precision) -> bool:
    """Return whether a device has kernels whose results agree with the plain computation.

    The result is kept until the process ends. If kernels exist but do not agree, or fail, a warning
    says so.

    Args:
        device: Device that computes samples.
        precision: Arithmetic of the convolutions.

    Returns:
        False for devices other than CUDA devices, and without Triton.
    """
    if device.type != "cuda" or not triton_available() or not draws_agree(device):
        return False
    allowed = _ALLOWED[precision]
    try:
        with fixed_arithmetic(device), torch.inference_mode():
            difference = fields_difference(device, precision)
        # A comparison with NaN is false.
        if difference <= allowed:
            return True
        reason = f"differ by {difference:.2g} (allowed: {allowed:g})"
    except torch.OutOfMemoryError:
        # Later, there may be room.
        raise
    except Exception as error:  # A compiler may fail in any way.
        reason = f"fail: {type(error).__name__}: {shorten(str(error), 200)}"
    warnings.warn(
        f"on {device} ({torch.cuda.get_device_name(device)}), the kernels that apply "
        f"operators in {precision} {reason}. Operators are applied one after another instead, "
        "which is slower; the samples are the same up to rounding. Please report this with your "
        "versions of torch, Triton and the driver",
        stacklevel=2,
    )
    return False


def fields_difference(device: torch.device, precision: Precision) -> float:
    """Return the largest difference between operators applied together and one after another."""
    operators = [(2**40 + number, _values(*network)) for number, network in enumerate(_NETWORKS)]
    counts = list(range(1, len(operators) + 1))
    plan = OperatorGroupPlan(
        operators, (_SIDE, counts), seed=_SEED, channels=_CHANNELS, precision=precision
    )
    group = OperatorGroup(plan, copy_to_device(plan.arrays(), device))
    shape = sum(counts), _CHANNELS, _SIDE, _SIDE
    drawn = normal(
        _SEED, Stream.CALIBRATION, torch.arange(shape[0], device="cpu"), math.prod(shape[1:])
    )
    fields = drawn.view(shape).to(device)
    together = torch.split(group.first(fields), counts)
    differences = []
    for (index, values), own, given in zip(
        operators, together, torch.split(fields, counts), strict=True
    ):
        operator = ConvOperator(
            values,
            seed=_SEED,
            index=index,
            channels=_CHANNELS,
            precision=precision,
            device=device,
        )
        differences.append(_largest(own - operator(given)))
    return float(torch.stack(differences).amax())


def _largest(difference: Tensor) -> Tensor:
    return difference.abs().amax().cpu()


def _values(
    num_layers: int,
    base_channels: int,
    kernel_size: int,
    normalization: str,
    activation: str,
    dropout_rate: float,
) -> ParameterValues:
    """Return the values of a narrow operator; those of the noise do not matter."""
    return ParameterValues(
        num_layers=num_layers,
        base_channels=base_channels,
        kernel_size=kernel_size,
        activation=activation,
        dropout_rate=dropout_rate,
        noise_type="gaussian",
        noise_scale=0.1,
        noise_schedule="constant",
        schedule_period=100,
        spatial_correlation=0.0,
        normalization=normalization,
        grid_size=_SIDE,
        update_policy="autoregressive",
        alpha=0.5,
        dt=0.1,
    )
