"""R2, and the baseline R2 of a prediction without tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

PENALTIES = (1e-4, 1e-2, 1.0)
"""Ridge penalties, relative to the sum of squares of an input column."""


def r_squared(prediction: Tensor, target: Tensor) -> float:
    """Return 1 - residual / total sum of squares, both over samples and columns.

    The total is about the mean of each column, so a constant column adds nothing to it.

    Args:
        prediction: Predicted values ``[N, F]``.
        target: True values ``[N, F]``.

    Returns:
        R2; 0 if no column varies.

    Example:
        >>> import torch
        >>> from spinlock.callbacks.baselines import r_squared
        >>> target = torch.tensor([[0.0], [1.0], [2.0]])
        >>> r_squared(target, target), r_squared(torch.ones(3, 1), target)
        (1.0, 0.0)
    """
    target = target.double()
    residual = (prediction.double() - target).square().sum()
    total = (target - target.mean(0)).square().sum()
    return (1 - residual / total).item() if total != 0 else 0.0


def ridge_r_squared(
    inputs: Tensor, target: Tensor, groups: Tensor, *, penalties: Sequence[float] = PENALTIES
) -> float:
    """Return the R2 of linear ridge regression, cross-validated in five folds.

    Inputs are standardized, and the intercept is not penalized. Each fold is predicted by the
    coefficients fitted on the other folds. The result is that of the best penalty, since a baseline
    should be as high as possible.

    Args:
        inputs: Predictors ``[N, P]``; constant columns are left out.
        target: Values to predict ``[N, F]``.
        groups: Integers ``[N]``; samples of one group are in one fold.
        penalties: Ridge penalties, default: :data:`PENALTIES`.

    Returns:
        R2 as of :func:`r_squared`; NaN with fewer than two groups.

    Example:
        >>> import torch
        >>> from spinlock.callbacks.baselines import ridge_r_squared
        >>> x = torch.linspace(0, 1, 50)[:, None]
        >>> round(ridge_r_squared(x, 2 * x + 1, torch.arange(50)), 3)
        1.0
    """
    number = torch.unique(groups, return_inverse=True)[1]
    folds = min(5, int(number.max()) + 1)
    if folds < 2:
        return float("nan")
    x, y = inputs.double(), target.double()
    spread = x.std(0, correction=0)
    x = ((x - x.mean(0)) / spread)[:, spread > 1e-6]
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    strengths = x.new_tensor(penalties)[:, None, None] * identity
    predictions = y.new_empty(len(penalties), *y.shape)
    for fold in range(folds):
        held_out = number % folds == fold
        fitted, values = x[~held_out], y[~held_out]
        center, mean = fitted.mean(0), values.mean(0)
        fitted = fitted - center
        gram = fitted.T @ fitted + len(fitted) * strengths
        coefficients = torch.linalg.solve(gram, fitted.T @ (values - mean))
        predictions[:, held_out] = mean + (x[held_out] - center) @ coefficients
    return max(r_squared(prediction, y) for prediction in predictions)
