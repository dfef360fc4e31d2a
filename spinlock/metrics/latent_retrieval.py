"""Share of operators that the nearest latent under another probe identifies."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.validation import require_at_least

# Distances that are held in memory at once: 16 MB.
_DISTANCES = 1 << 21


class Retrieval(NamedTuple):
    """Share of the queries that find their operator, and of how many.

    Args:
        rate: Share of the queries whose nearest candidate is of the same operator, float64 scalar;
            NaN without a pair of probes. Chance is 1 / ``candidates``.
        candidates: Number of candidates, one of each operator.
    """

    rate: Tensor
    candidates: int


def retrieval(latents: Tensor, *, num_candidates: int = 1000, seed: int = 0) -> Retrieval:
    """Return how often the nearest latent under another probe is that of the same operator.

    The latent of each operator's probe p is a query, and the candidates are the latents of probe
    p + 1 of all operators (after the last probe, of the first). The rate is the average over p. The
    distance is Euclidean. If several candidates are equally near, each of them counts as found with
    the same probability, so that constant latents have the rate of chance.

    Args:
        latents: Latents of the P probes of O operators, ``[O, P, D]``.
        num_candidates: Number of operators to find the right one among (default: 1000), drawn at
            random if there are more.
        seed: Seed of that draw (default: 0).

    Raises:
        ValueError: `num_candidates` is less than 1, or latents are not ``[O, P, D]``.

    Example:
        >>> import torch
        >>> from spinlock.metrics import retrieval
        >>> operator = torch.arange(3.0)
        >>> retrieval(torch.stack([operator, operator + 0.4], 1)[..., None])
        Retrieval(rate=tensor(1., dtype=torch.float64), candidates=3)
    """
    require_at_least({"num_candidates": num_candidates}, 1)
    if latents.ndim != 3:
        raise ValueError(f"latents must be [operators, probes, D], got {list(latents.shape)}")
    # Apple's GPUs have no float64.
    latents = (latents.cpu() if latents.device.type == "mps" else latents).double()
    if len(latents) > num_candidates:
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(latents), num_candidates, replace=False)
        latents = latents[torch.from_numpy(np.sort(chosen)).to(latents.device)]
    operators, probes = latents.shape[:2]
    if operators == 0 or probes < 2:
        return Retrieval(latents.new_tensor(torch.nan), operators)
    others = latents.roll(-1, dims=1)
    found = [
        _found(queries, candidates)
        for queries, candidates in zip(latents.unbind(1), others.unbind(1), strict=True)
    ]
    return Retrieval(torch.stack(found).mean(), operators)


def _found(queries: Tensor, candidates: Tensor) -> Tensor:
    """Share of the queries whose nearest candidate is in the same row."""
    rows = torch.arange(len(queries), device=queries.device)
    shares = []
    for some in torch.split(rows, max(1, _DISTANCES // len(candidates))):
        # Products of matrices would round equal distances to different numbers.
        distances = torch.cdist(
            queries[some], candidates, compute_mode="donot_use_mm_for_euclid_dist"
        )
        own = distances.gather(1, some[:, None])
        equally_near = (distances == own).sum(1)
        is_nearest = (distances >= own).all(1)
        shares.append(is_nearest / equally_near)
    return torch.cat(shares).double().mean()
