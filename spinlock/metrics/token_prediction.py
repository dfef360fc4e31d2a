"""What tokens predict of values of other operators.

References:
    1. Hoerl & Kennard, Ridge regression, Technometrics 12 (1970), 55–67.
    2. Golub, Heath & Wahba, Generalized cross-validation as a method for choosing a good ridge
       parameter, Technometrics 21 (1979), 215–223.
"""

import torch
from torch import Tensor

from spinlock.metrics.joint_labels import first_rows, joint_tokens

FOLDS = 5
"""Number of folds of operators."""

# Penalties in numbers of operators: with penalty 1, the mean of a token that one operator has
# counts as much as the mean of all. The largest penalty leaves the mean of all.
_PENALTIES = (*(10 ** (exponent / 4) for exponent in range(-8, 13)), 1e9)


def predict_from_tokens(
    values: Tensor, tokens: Tensor, operators: Tensor, *, fitted: Tensor | None = None
) -> Tensor:
    """Predict values of each operator by the means that its tokens have over other operators.

    The operators are divided into five folds. Each fold is predicted from the other four by the
    mean of the token over the operators that have it, shrunk toward the mean of all operators if
    there are few of them: ridge regression on indicators of the codes [1]. A token that no other
    operator has predicts the intercept. With several levels, the contributions of the levels'
    codes add up, since most combinations of codes would have no other operator. An operator that
    has a token under several probes counts once. The penalty minimizes generalized cross-validation
    [2] within the four folds, for each column by itself.

    Without shrinkage, the result would depend on the number of operators: the mean of one other
    operator predicts worse than the mean of all if tokens say little.

    Args:
        values: Values to predict, ``[N, D]``, such as the dynamics of the samples' operators.
        tokens: Codebook indices, integers ``[N]`` or ``[N, Q]``.
        operators: Operator of each sample, integers ``[N]``.
        fitted: Samples that predictions may be fitted to, bool ``[N]`` (default: all). Others are
            only predicted.

    Returns:
        Predictions, float64 ``[N, D]``; NaN in columns with values that are not finite, and for
        samples that no other operator can be fitted to.

    Example:
        >>> import torch
        >>> from spinlock.metrics import predict_from_tokens
        >>> operators = torch.arange(100)
        >>> values = (operators % 2)[:, None].double()
        >>> predict_from_tokens(values, operators % 2, operators)[:4, 0].round(decimals=1)
        tensor([0., 1., 0., 1.], dtype=torch.float64)
    """
    values = (values.cpu() if values.device.type == "mps" else values).double()
    levels = tokens[:, None] if tokens.ndim == 1 else tokens
    numbers = [joint_tokens(level) for level in levels.unbind(1)]
    sizes = [int(number.max()) + 1 if len(number) else 0 for number in numbers]
    codes = torch.stack(numbers, 1) + torch.tensor([0, *sizes[:-1]], device=levels.device).cumsum(0)
    operator = joint_tokens(operators)
    # The first fitted sample of each operator and token.
    rows = torch.arange(len(operator), device=operator.device)
    rows = rows if fitted is None else rows[fitted]
    rows = rows[first_rows(torch.stack([operator, joint_tokens(levels)], 1)[rows])]
    folds = max(1, min(FOLDS, int(operator.max()) + 1 if len(operator) else 1))
    predictions = torch.full_like(values, torch.nan)
    finite = values.isfinite().all(0)
    known = torch.where(finite, values, 0.0)
    for fold in range(folds):
        held_out = operator % folds == fold
        used = rows[operator[rows] % folds != fold]
        if len(used):
            mean, effects = _fit(known[used], codes[used], sum(sizes))
            predictions[held_out] = mean + effects[codes[held_out]].sum(1)
    return torch.where(finite, predictions, torch.nan)


def column_r_squared(prediction: Tensor, target: Tensor, groups: Tensor | None = None) -> Tensor:
    """Return 1 - residual / total sum of squares of each column.

    Args:
        prediction: Predicted values ``[N, D]``.
        target: True values ``[N, D]``.
        groups: Integers ``[N]``. If given, the total is about the mean of each group, so that
            differences between groups count for nothing. Default: one group.

    Returns:
        R2 of each column, float64 ``[D]``; 0 for a column that is constant within each group.

    Example:
        >>> import torch
        >>> from spinlock.metrics import column_r_squared
        >>> target = torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
        >>> column_r_squared(torch.ones(3, 2), target)
        tensor([0., 0.], dtype=torch.float64)
        >>> column_r_squared(target, target)[0].item()
        1.0
    """
    prediction, target = prediction.double(), target.double()
    group = joint_tokens(groups) if groups is not None else torch.zeros_like(target[:, 0]).long()
    count = torch.bincount(group).clamp(min=1)[:, None]
    sums = target.new_zeros(len(count), target.shape[1]).index_add_(0, group, target)
    total = (target - (sums / count)[group]).square().sum(0)
    residual = (prediction - target).square().sum(0)
    scale = target.square().sum(0)
    # A constant column has a total of rounding errors.
    return torch.where(total > 1e-24 * scale, 1 - residual / total, 0.0 * residual)


def _fit(values: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Ridge regression on indicators of codes ``[n, Q]``: intercept ``[D]``, effects ``[K, D]``."""
    count, levels = codes.shape
    pairs = (codes[:, :, None] * size + codes[:, None, :]).flatten()
    gram = torch.bincount(pairs, minlength=size * size).view(size, size).to(values)
    share = gram.diagonal() / count
    center = values.mean(0)
    centered = values - center
    products = values.new_zeros(size, values.shape[1])
    for level in range(levels):
        products.index_add_(0, codes[:, level], centered)
    # Indicators without their means; codes that no fitted sample has keep an effect of 0.
    eigenvalues, vectors = torch.linalg.eigh(gram - count * share[:, None] * share)
    eigenvalues = eigenvalues.clamp(min=0)[:, None]
    projected = vectors.T @ products
    best = torch.full_like(center, torch.inf)
    effects = torch.zeros_like(projected)
    # From the largest penalty, which is the one to prefer among equals.
    for penalty in reversed(_PENALTIES):
        inverse = 1 / (eigenvalues + penalty)
        explained = projected.square() * (eigenvalues + 2 * penalty) * inverse.square()
        residual = (centered.square().sum(0) - explained.sum(0)).clamp(min=0)
        free = count - 1 - (eigenvalues * inverse).sum()
        score = residual / free.square()
        better = (score < best * (1 - 1e-9)) & (free > 0)
        best = torch.where(better, score, best)
        effects = torch.where(better, projected * inverse, effects)
    effects = vectors @ effects
    return center - share @ effects, effects
