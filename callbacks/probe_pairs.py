"""Pairs each sample of an epoch with the next probe of its operator."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from spinlock.datamodules import datasets

_OF_B = ("features", "initial_features", "variant")


class ProbePairs(NamedTuple):
    """N pairs of probes A and B of one operator.

    Args:
        entries: Entries of the pairs, ``[N, ...]`` each: ``operator``; ``tokens`` of A; and
            ``features``, ``initial_features`` and ``variant`` of B.
        rows: Rows ``[S]`` of A among the epoch's samples, for pairs whose B is one too.
        partners: Rows ``[S]`` of the corresponding B.
    """

    entries: dict[str, Tensor]
    rows: Tensor
    partners: Tensor


def pair_probes(columns: Mapping[str, Tensor]) -> ProbePairs:
    """Pair samples.

    Args:
        columns: ``tokens``, ``features``, ``initial_features``, ``variant``, ``operator`` and
            ``index`` of each sample, in any order. Repeated samples count once. If there is
            ``other_index``, pairs are those of the ``other_...`` columns. Otherwise the partner is
            the next probe of the operator in the order of the index, after the last the first.
    """
    order = torch.argsort(columns["index"], stable=True)
    # Distributed samplers repeat samples to give all processes the same number.
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = columns["index"][order].diff() != 0
    a = order[is_first]
    if "other_index" in columns:
        known, wanted = columns["index"][a], columns["other_index"][a]
        place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        seen = known[place] == wanted
        rows, partners = a[seen], a[place[seen]]
        of_b = {key: columns[f"other_{key}"][a] for key in _OF_B}
    else:
        a = a[torch.argsort(columns["operator"][a], stable=True)]
        places = torch.arange(len(a), device=a.device)
        a, partners = a[datasets.pair_probes(places, columns["operator"][a])].unbind(1)
        rows = a
        of_b = {key: columns[key][partners] for key in _OF_B}
    of_a = {key: columns[key][a] for key in ("operator", "tokens")}
    return ProbePairs({**of_a, **of_b}, rows, partners)
