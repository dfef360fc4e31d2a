"""Finds the operators that a token stands for: those with the nearest mean latents.

A token is a point of the latent space: its code; with several codebooks, the sum or the
concatenation of its codes. Its prototypes are the training operators whose mean latents, over their
training samples, are nearest to that point in Euclidean distance, which is also how latents are
quantized. The point may be any other one, such as the mean latent of the samples with a token
(`token_means`).
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

# Distances that are held in memory at a time.
_MOST_DISTANCES = 1 << 24


class Nearest(NamedTuple):
    """The nearest operators of K points, nearest first.

    Attributes:
        operators: Indices of the operators, [K, n] int64; -1 where there are fewer than n.
        distances: Distances of their mean latents, [K, n] float32; infinite where there are fewer.
    """

    operators: Tensor
    distances: Tensor


@dataclass(frozen=True)
class OperatorLatents:
    """Mean latents of operators.

    Args:
        operator: Indices of the operators, [O] int64, ascending.
        latent: Mean latent of each operator, [O, D] float64.

    Example:
        >>> import torch
        >>> latent = torch.tensor([[0.0], [2.0], [5.0]])
        >>> latents = OperatorLatents.of(torch.tensor([4, 4, 9]), latent)
        >>> latents.nearest(torch.tensor([[4.0]]), 3).operators
        tensor([[ 9,  4, -1]])
    """

    operator: Tensor
    latent: Tensor

    @classmethod
    def of(cls, operator: Tensor, latent: Tensor) -> Self:
        """Average the latents of each operator.

        Args:
            operator: Operator of each sample, [N] int64.
            latent: Latents of the samples, [N, D].
        """
        distinct, place, counts = torch.unique(operator, return_inverse=True, return_counts=True)
        sums = latent.new_zeros(len(distinct), latent.shape[1], dtype=torch.float64)
        sums.index_add_(0, place, latent.double())
        return cls(distinct, sums / counts[:, None])

    def nearest(self, points: Tensor, count: int = 8) -> Nearest:
        """Return the operators whose mean latents are nearest to points.

        Args:
            points: Points of the latent space, [K, D]. A point with NaN has no operators.
            count: Number n of operators for each point; default: 8.
        """
        shape = (len(points), count)
        operators = torch.full(shape, -1, dtype=torch.int64, device=points.device)
        distances = torch.full(shape, torch.inf, dtype=torch.float32, device=points.device)
        some = min(count, len(self.operator))
        rows = max(1, _MOST_DISTANCES // max(1, len(self.operator)))
        for start in range(0, len(points) if some else 0, rows):
            part = slice(start, start + rows)
            # The difference of points, unlike that of squares, is exact for equal points. Equal
            # distances are sorted by operator.
            distance = torch.cdist(
                points[part].double(), self.latent, compute_mode="donot_use_mm_for_euclid_dist"
            )
            found = distance.sort(dim=1, stable=True)
            known = found.values[:, :some].isfinite()
            operators[part, :some] = torch.where(known, self.operator[found.indices[:, :some]], -1)
            distances[part, :some] = torch.where(known, found.values[:, :some], torch.inf).float()
        return Nearest(operators, distances)


def token_means(tokens: Tensor, latent: Tensor, codebook_size: int) -> Tensor:
    """Return the mean latent of the samples with each token.

    Args:
        tokens: Token of each sample, [N] int64 in [0, K).
        latent: Latents of the samples, [N, D].
        codebook_size: Number K of codes.

    Returns:
        Means, [K, D] float64; NaN for tokens that no sample has.

    Example:
        >>> token_means(torch.tensor([1, 1]), torch.tensor([[1.0], [2.0]]), 2)
        tensor([[   nan],
                [1.5000]], dtype=torch.float64)
    """
    sums = latent.new_zeros(codebook_size, latent.shape[1], dtype=torch.float64)
    sums.index_add_(0, tokens, latent.double())
    return sums / tokens.bincount(minlength=codebook_size)[:, None]
