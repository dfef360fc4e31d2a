"""Multiplies batches of matrices with rounding that does not depend on the batch.

The precision of products of float32 matrices is a setting of the process: `spinlock` allows TF32
for the convolutions of operators, which has 10 bits. Measurements need more, so their products are
in double precision, to which such settings do not apply.
"""

import torch
from torch import Tensor


def batched_product(first: Tensor, second: Tensor) -> Tensor:
    """Compute the products of pairs of matrices in double precision.

    Args:
        first: Matrices, floating point or complex [B, I, J], or one for all pairs, [I, J].
        second: Matrices, of the same kind, [B, J, K], or one for all pairs, [J, K].

    Returns:
        Products, float64 or complex128 [B, I, K]. Each is the same to the bit in any batch.

    Example:
        >>> import torch
        >>> from spinlock.features.response.matrix_products import batched_product
        >>> batched_product(torch.ones(5, 2, 3), torch.ones(3, 4)).shape
        torch.Size([5, 2, 4])
    """
    count = len(first) if first.ndim == 3 else len(second)
    # A single pair is multiplied twice: for one product torch calls another routine than for many.
    rows = max(2, count)
    first, second = (_double(factor).expand(rows, *factor.shape[-2:]) for factor in (first, second))
    return torch.bmm(first, second)[:count]


def _double(factor: Tensor) -> Tensor:
    return factor.to(torch.complex128 if factor.is_complex() else torch.float64)
