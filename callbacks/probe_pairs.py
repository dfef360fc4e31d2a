"""Arranges the samples of an epoch by the probes of their operators."""

import torch
from torch import Tensor

from spinlock.datamodules import datasets


def next_probes(operator: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each sample with the next probe of its operator, and the last probe with the first.

    Samples without another probe of their operator are left out.

    Args:
        operator: Operator of each sample, ``[N]`` int64, in the order of the samples' index.

    Returns:
        Rows of the samples and of their next probes, ``[n]`` int64 each.

    Example:
        >>> import torch
        >>> from spinlock.callbacks.probe_pairs import next_probes
        >>> next_probes(torch.tensor([4, 4, 7, 5, 5]))
        (tensor([0, 1, 3, 4]), tensor([1, 0, 4, 3]))
    """
    order = torch.argsort(operator, stable=True)
    places = torch.arange(len(operator), device=operator.device)
    pairs = order[datasets.pair_probes(places, operator[order])]
    return pairs[:, 0], pairs[:, 1]


def probe_table(operator: Tensor) -> Tensor:
    """Put the probes of each operator in one row.

    Operators that have fewer samples than others are left out.

    Args:
        operator: Operator of each sample, ``[N]`` int64, in the order of the samples' index.

    Returns:
        Rows of the samples, ``[O, P]`` int64: P probes of each of O operators.

    Example:
        >>> import torch
        >>> from spinlock.callbacks.probe_pairs import probe_table
        >>> probe_table(torch.tensor([4, 4, 7, 5, 5]))
        tensor([[0, 1],
                [3, 4]])
    """
    order = torch.argsort(operator, stable=True)
    places = torch.arange(len(operator), device=operator.device)
    return order[datasets.group_probes(places, operator[order])]
