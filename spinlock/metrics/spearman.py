"""Spearman's rank correlation of values and columns."""

import torch
from scipy.stats import rankdata
from torch import Tensor


def rank_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return Spearman's rank correlation of values and each column; 0 if either is constant.

    Equal values share their mean rank.

    Args:
        x: Values ``[N]``.
        y: Columns ``[N, D]``.

    Returns:
        ``[D]`` float64, on the CPU.

    Example:
        >>> import torch
        >>> from spinlock.metrics.spearman import rank_correlation
        >>> rank_correlation(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([[3.0], [2.0], [0.0]]))
        tensor([-1.], dtype=torch.float64)
    """
    columns = torch.cat([x.cpu().double()[:, None], y.cpu().double()], 1)
    ranks = torch.from_numpy(rankdata(columns.numpy(), axis=0))
    ranks = ranks - ranks.mean(0)
    own, others = ranks[:, :1], ranks[:, 1:]
    scale = (own.square().sum(0) * others.square().sum(0)).sqrt()
    return torch.where(scale > 0, (own * others).sum(0) / scale.clamp(min=1e-12), 0.0)
