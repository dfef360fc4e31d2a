"""Entropies of tables of counts, in float64 and nats."""

import torch
from torch import Tensor


def as_counts(contingency: Tensor) -> Tensor:
    """Return a table, or a stack of tables, in float64.

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Raises:
        ValueError: It has fewer than two dimensions.
    """
    if contingency.ndim < 2:
        shape = list(contingency.shape)
        raise ValueError(f"contingency must be [..., codes, classes], got {shape}")
    # Apple's GPUs have no float64.
    return (contingency.cpu() if contingency.device.type == "mps" else contingency).double()


def entropy(counts: Tensor) -> Tensor:
    """Return the plug-in entropy over the last dimension; 0 without counts."""
    terms: Tensor = torch.special.entr(counts / counts.sum(-1, keepdim=True).clamp(min=1))
    return terms.sum(-1)


def code_entropy(counts: Tensor) -> Tensor:
    """Return H(token) of tables ``[..., codes, classes]``."""
    return entropy(counts.sum(-1))


def mean_entropy(counts: Tensor) -> Tensor:
    """Return the arithmetic mean of H(token) and H(class)."""
    return (code_entropy(counts) + entropy(counts.sum(-2))) / 2


def plug_in_information(counts: Tensor) -> Tensor:
    """Return I = H(token) + H(class) − H(token, class)."""
    return (2 * mean_entropy(counts) - entropy(counts.flatten(-2))).clamp(min=0)


def one_to_one(counts: Tensor) -> Tensor:
    """Return whether every occupied row and column has exactly one occupied cell."""
    occupied = counts > 0
    cells = occupied.sum((-2, -1))
    return (cells == occupied.any(-1).sum(-1)) & (cells == occupied.any(-2).sum(-1))
