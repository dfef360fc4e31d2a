"""Stores the operands of convolutions in the arithmetic of a precision.

==============  ===========================================================================
dtype of high   value of an operand x
==============  ===========================================================================
float16         high + low / 2^11 with high = float16(x), low = float16(2^11 (x - high)): 22 bits
float32         x rounded to TF32, 11 bits; there is no low part
bfloat16        x rounded to bfloat16, 8 bits; there is no low part
==============  ===========================================================================

A float16 operand beyond 65504 becomes infinity minus infinity, so every result that depends on it
is NaN.
"""

import torch
from torch import Tensor

#: Factor of low parts, with which they have as many bits as high parts if these are small.
LOW_SCALE = 2.0**11
#: dtype of the high part of operands by precision.
OPERAND_DTYPES = {
    "float32": torch.float16,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
}


def make_operands(size: int, precision: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tensors for the high and low parts of operands; the values are not initialized.

    Args:
        size: Number of operands.
        precision: A key of `OPERAND_DTYPES`.
        device: Device of the tensors.

    Returns:
        High parts, (size,); low parts, (size,) float16, or (0,) if the precision has none.
    """
    dtype = OPERAND_DTYPES[precision]
    high = torch.empty(size, dtype=dtype, device=device)
    return high, torch.empty(
        size if dtype == torch.float16 else 0, dtype=torch.float16, device=device
    )


def round_to_tf32(values: Tensor) -> Tensor:
    """Round float32 values to the 10 stored bits of TF32, ties away from zero.

    Example:
        >>> round_to_tf32(torch.tensor([1.0, 1.0004, 1.0006])).tolist()
        [1.0, 1.0, 1.0009765625]
    """
    rounded = (values.view(torch.int32) + 0x1000).bitwise_and_(~0x1FFF).view(torch.float32)
    # The bits of a NaN could become those of zero.
    return torch.where(values == values, rounded, values)


def split_operands(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return the high parts of float32 values, and the low parts of float16 ones."""
    if dtype == torch.float32:
        return round_to_tf32(values), None
    high = values.to(dtype)
    if dtype != torch.float16:
        return high, None
    return high, ((values - high.float()) * LOW_SCALE).to(dtype)


def write_operands(values: Tensor, high: Tensor, low: Tensor) -> None:
    """Store float32 values in parts of the same shape; ``low`` is empty if there is no low part."""
    upper, lower = split_operands(values, high.dtype)
    high.copy_(upper)
    if lower is not None:
        low.copy_(lower)


def read_operands(high: Tensor, low: Tensor) -> Tensor:
    """Return the float32 values of operands."""
    if high.dtype != torch.float16:
        return high.float()
    return high.float() + low.float() / LOW_SCALE
