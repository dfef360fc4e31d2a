"""Samples of an epoch, paired with the next probe of their operator."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ProbePairs:
    """N pairs of probes A and B of one operator.

    Args:
        operator: ``[N]``, their operator.
        tokens: ``[N, Q]``, A's.
        features: ``[N, F]``, B's.
        initial_features: ``[N, F']``, B's.
        variant: ``[N]``, B's.
        seen_rows: ``[S]``, rows of the epoch's samples that are A of pairs whose B is one too.
        seen_partners: ``[S]``, rows of those B.
    """

    operator: Tensor
    tokens: Tensor
    features: Tensor
    initial_features: Tensor
    variant: Tensor
    seen_rows: Tensor
    seen_partners: Tensor

    def sample(self, most: int, seed: int) -> "ProbePairs":
        """At most so many of the pairs, drawn without replacement; what was seen stays."""
        if len(self.tokens) <= most:
            return self
        chosen = np.random.default_rng(seed).choice(len(self.tokens), most, replace=False)
        rows = torch.from_numpy(chosen).to(self.tokens.device)
        keys = ("operator", "tokens", "features", "initial_features", "variant")
        return replace(self, **{key: getattr(self, key)[rows] for key in keys})


def pair_probes(columns: Mapping[str, Tensor]) -> ProbePairs:
    """Pair samples.

    Args:
        columns: ``tokens``, ``features``, ``initial_features``, ``variant``, ``operator`` and
            ``index`` of each sample, whose order does not matter: samples are taken in the order of
            their index, each once. With ``other_index``, also the ``other_...`` of the first four
            that a batch has, and pairs are those; else the next probe in the order of the index,
            after the last one the first.
    """
    index = columns["index"]
    order = torch.argsort(index, stable=True)
    # Distributed samplers repeat samples to give every process as many.
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = index[order].diff() != 0
    order = order[first]
    if "other_index" in columns:
        return _given_pairs(columns, order)
    operator = columns["operator"][order]
    by_operator = torch.argsort(operator, stable=True)
    order, operator = order[by_operator], operator[by_operator]
    _, place, sizes = torch.unique_consecutive(operator, return_inverse=True, return_counts=True)
    start = sizes.cumsum(0) - sizes
    position = torch.arange(len(order), device=order.device) - start[place]
    partner = order[start[place] + (position + 1) % sizes[place]]
    paired = sizes[place] > 1
    a, b = order[paired], partner[paired]
    return ProbePairs(
        columns["operator"][a],
        columns["tokens"][a],
        columns["features"][b],
        columns["initial_features"][b],
        columns["variant"][b],
        a,
        b,
    )


def _given_pairs(columns: Mapping[str, Tensor], order: Tensor) -> ProbePairs:
    """The pairs of the view ``pairs``; B's own tokens are those of the row where it is A."""
    known, wanted = columns["index"][order], columns["other_index"][order]
    place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    seen = known[place] == wanted
    return ProbePairs(
        columns["operator"][order],
        columns["tokens"][order],
        columns["other_features"][order],
        columns["other_initial_features"][order],
        columns["other_variant"][order],
        order[seen],
        order[place[seen]],
    )
