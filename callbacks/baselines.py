"""What features can be told without tokens: the floors that an R2 is read against."""

from collections.abc import Sequence

import torch
from torch import Tensor

PENALTIES = (1e-4, 1e-2, 1.0)
"""Ridge penalties, relative to the mean sum of squares of an input column."""


def r_squared(prediction: Tensor, target: Tensor) -> float:
    """1 - residual / total sum of squares, both over samples and columns ``[N, F]``.

    The total is about each column's mean, so a column that does not vary counts nothing in it; 0
    where none varies.
    """
    target = target.double()
    residual = (prediction.double() - target).square().sum()
    total = (target - target.mean(0)).square().sum()
    return (1 - residual / total).item() if total != 0 else 0.0


def ridge_r_squared(
    inputs: Tensor,
    target: Tensor,
    groups: Tensor,
    *,
    folds: int = 5,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """Cross-validated R2 of linear ridge regression, in closed form.

    Inputs are standardized; the intercept is not penalized. Each fold is predicted by the
    coefficients of the other folds. Of the penalties the best is taken: a floor should be as high
    as it can be.

    Args:
        inputs: ``[N, P]``; columns that do not vary are left out.
        target: ``[N, F]``.
        groups: ``[N]`` integers; samples of one group are in one fold.
        folds: Number of folds; group g (in order) is in fold g modulo `folds`.
        penalties: As :data:`PENALTIES`.

    Returns:
        As :func:`r_squared`; NaN with fewer than two groups.
    """
    number = torch.unique(groups, return_inverse=True)[1]
    folds = min(folds, int(number.max()) + 1)
    if folds < 2:
        return float("nan")
    x, y = inputs.double(), target.double()
    spread = x.std(0, correction=0)
    varies = spread > 1e-6
    x = (x - x.mean(0))[:, varies] / spread[varies]
    y = y - y.mean(0)
    x = torch.cat([x.new_ones(len(x), 1), x], 1)
    # Products of columns say all: a fold's residual needs no prediction of its samples.
    rows = [number % folds == k for k in range(folds)]
    products = torch.stack([x[mine].T @ torch.cat([x[mine], y[mine]], 1) for mine in rows])
    total = products.sum(0)
    variance = y.square().sum().item()
    # A fold's sum is that of its targets, less what its fit explains.
    explained = _explained(products, total - products, torch.tensor(penalties).to(x))
    return explained.max().item() / variance if variance != 0 else 0.0


def _explained(held_out: Tensor, fitted: Tensor, penalties: Tensor) -> Tensor:
    """What coefficients fitted on some products take off the sum of squares of held-out targets.

    Args:
        held_out: Of each fold, products of inputs with inputs and targets, ``[folds, P, P + F]``.
        fitted: Those of the other folds.
        penalties: ``[L]``, relative to the mean sum of squares of an input column.

    Returns:
        ``[L]``, summed over folds.
    """
    size = held_out.shape[1]
    gram, right = fitted[:, :, :size], fitted[:, :, size:]
    # The first column, of ones, is the intercept's.
    squares = gram.diagonal(dim1=1, dim2=2)
    mean = squares[:, 1:].mean(1) if size > 1 else squares.new_zeros(len(squares))
    shrunk = torch.ones_like(squares[0])
    shrunk[0] = 0
    strength = penalties[:, None, None] * mean[:, None] * shrunk
    coefficients = torch.linalg.solve(gram + torch.diag_embed(strength), right)
    cross = (coefficients * held_out[:, :, size:]).sum((1, 2, 3))
    fit = (coefficients * (held_out[:, :, :size] @ coefficients)).sum((1, 2, 3))
    explained: Tensor = 2 * cross - fit
    return explained
