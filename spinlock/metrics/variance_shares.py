"""Shares of the variance of columns that variants, operators and neither of them explain.

References:
    1. Searle, Casella & McCulloch, Variance Components, Wiley (1992), chapter 5: quadratic forms of
       unbalanced data, and estimates that equate them to their expectations.
    2. Efron & Tibshirani, An Introduction to the Bootstrap, Chapman & Hall (1993), chapters 8 and
       13: resampling of groups, percentiles.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.validation import require_at_least
from spinlock.errors import ConfigurationError

# Sums of columns that are held in memory at once, by operator and variant: 32 MB.
_SUMS = 1 << 22
# Rank-normalized columns have a variance of about 1, so less than this is rounding error.
_NOTHING = 1e-9
_LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class VarianceShares:
    """Shares of the variance of K columns. The three shares of a column add up to 1.

    Args:
        variant: Share of the variants' means, float64 [K].
        operator: Share of the operators: covariance of two probes of one operator after the
            variants' means are removed, float64 [K].
        rest: Share of neither: 1 - variant - operator, float64 [K].
        variant_interval: 95 % confidence interval of ``variant``, float64 [K, 2].
        operator_interval: The same of ``operator``.
        rest_interval: The same of ``rest``.
    """

    variant: Tensor
    operator: Tensor
    rest: Tensor
    variant_interval: Tensor
    operator_interval: Tensor
    rest_interval: Tensor


def variance_shares(
    values: Tensor, variant: Tensor, operator: Tensor, *, resamples: int = 200, seed: int = 0
) -> VarianceShares:
    """Decompose the variance of rank-normalized columns by variant, operator and rest.

    Each column is mapped to the normal quantiles of its ranks (`rank_normalized`) and modeled as

        z_i = mean of its variant + effect of its operator + rest,

    with uncorrelated operators and rests. Let r be z without the mean of its variant. Three
    quadratic forms are equated to their expectations, which are linear in the three variances [1]:
    the sum of squares between variants, the sum of squares of r, and the sum of r_i r_j over the
    pairs of probes i != j of each operator. The variances are unbiased for any numbers of samples
    of variants and operators. Estimates of small shares can be slightly negative.

    Confidence intervals are percentiles of estimates from resampled operators [2], shifted so that
    the mean of these estimates is the estimate. Ranks are not computed anew.

    Args:
        values: Columns, [N, K] of any real type.
        variant: Variant of each sample, integers [N].
        operator: Operator of each sample, integers [N]. Some operators must have several samples.
        resamples: Number of resamples for the confidence intervals (default: 200). With 0, the
            intervals are NaN.
        seed: Seed of the resamples (default: 0).

    Returns:
        Shares on the device of ``values``. A constant column has the shares 0, 0 and 1. Shares are
        NaN for a column with values that are not finite, and for all columns if the labels cannot
        separate operators from variants, for example if each variant has only one operator.

    Raises:
        ConfigurationError: If a shape does not match, no operator has two samples, or
            ``resamples`` is negative.

    Example:
        >>> import torch
        >>> from spinlock.metrics import variance_shares
        >>> operator, variant = torch.arange(200) // 4, torch.arange(200) % 4
        >>> values = torch.stack([100 * operator + variant, operator + 100 * variant], dim=1)
        >>> shares = variance_shares(values, variant, operator)
        >>> [round(share, 2) for share in shares.variant.tolist()]
        [0.0, 0.86]
        >>> [round(share, 2) for share in shares.operator.tolist()]
        [1.0, 0.1]
    """
    require_at_least({"resamples": resamples}, 0)
    if values.ndim != 2 or not variant.shape == operator.shape == values.shape[:1]:
        raise ConfigurationError(
            "values must be [N, K], and variant and operator [N]; got "
            f"{list(values.shape)}, {list(variant.shape)} and {list(operator.shape)}"
        )
    design = _Design.of(variant, operator, resamples, seed)
    finite = values.isfinite().all(dim=0)
    normalized = rank_normalized(torch.where(finite, values, 0))
    width = max(1, _SUMS // design.counts.numel())
    parts = [_shares(columns, design) for columns in torch.split(normalized, width, dim=1)]
    # Variant, operator and rest, of the data and of each resample: [3, 1 + resamples, K].
    shares = torch.where(finite, torch.cat(parts, dim=-1), torch.nan)
    estimates = shares[:, 0]
    return VarianceShares(*estimates, *_intervals(estimates, shares[:, 1:]))


def rank_normalized(values: Tensor) -> Tensor:
    """Map each column to the normal quantiles of its ranks.

    Equal values share their mean rank. A sample with rank r of N becomes the normal quantile of
    (r - 1/2) / N.

    Args:
        values: Columns without NaN, [N, K] of any real type.

    Returns:
        Normalized columns, float64 [N, K].

    Example:
        >>> import torch
        >>> rank_normalized(torch.tensor([[3.0], [9.0], [3.0], [-1.0]])).T
        tensor([[ 0.0000,  1.1503,  0.0000, -1.1503]], dtype=torch.float64)
    """
    columns = values.T.contiguous()
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns)
    not_above = torch.searchsorted(ordered, columns, right=True)
    normalized: Tensor = torch.special.ndtri((below + not_above).double() / (2 * len(values)))
    return normalized.T


@dataclass(frozen=True)
class _Design:
    """Samples by operator and variant, and what follows from them in each resample.

    O is the number of operators, V that of variants and B that of resamples plus one: the first row
    of the weights is the data itself, each other row a resample.

    Args:
        cell: Operator and variant of each sample as ``operator * V + variant``, [N].
        counts: Number of samples of each operator and variant, [O, V].
        weights: Number of times that each operator occurs in each resample, [B, O].
        sizes: Number of samples of each variant, [B, V].
        products: Sum over operators of the product of the counts of two variants, [B, V, V].
        pairs: Number of ordered pairs of different samples of one operator, [B].
        alike: Sum over variants of the number of such pairs within the variant, divided by its
            size, [B].
        spread: Trace of (A H)^2, where A marks such pairs and H removes variants' means, [B].
    """

    cell: Tensor
    counts: Tensor
    weights: Tensor
    sizes: Tensor
    products: Tensor
    pairs: Tensor
    alike: Tensor
    spread: Tensor

    @classmethod
    def of(cls, variant: Tensor, operator: Tensor, resamples: int, seed: int) -> "_Design":
        """Count the samples of labels (N,) and draw resamples of the operators."""
        variants, variant = torch.unique(variant, return_inverse=True)
        operators, operator = torch.unique(operator, return_inverse=True)
        if len(operators) == len(operator):
            raise ConfigurationError(
                "a decomposition of variance needs two or more samples of an operator; got "
                f"{len(operator)} samples of {len(operators)} operators. Use data with "
                "probes_per_operator of at least 2"
            )
        cell = operator * len(variants) + variant
        counts = torch.bincount(cell, minlength=len(operators) * len(variants)).double()
        counts = counts.view(len(operators), len(variants))
        chance = np.full(len(operators), 1 / len(operators))
        drawn = np.random.default_rng(seed).multinomial(len(operators), chance, size=resamples)
        weights = torch.cat(
            [torch.ones_like(counts[:, 0])[None], torch.from_numpy(drawn).to(counts)]
        )
        own = counts.sum(dim=1, keepdim=True)
        sizes = weights @ counts
        products = _weighted(weights, counts[:, :, None] * counts[:, None, :])
        pairs = weights @ (own * (own - 1))[:, 0]
        # Sums over the pairs of one operator whose samples have variants u and v.
        by_variant = products - torch.diag_embed(sizes)
        inverse = 1 / sizes.clamp(min=1)
        reached = weights @ ((own - 2) * counts.square() + counts)
        spread = pairs - 2 * (reached * inverse).sum(dim=1)
        spread += torch.einsum("buv,bu,bv->b", by_variant.square(), inverse, inverse)
        alike = (by_variant.diagonal(dim1=1, dim2=2) * inverse).sum(dim=1)
        return cls(cell, counts, weights, sizes, products, pairs, alike, spread)


def _shares(normalized: Tensor, design: _Design) -> Tensor:
    """Return the three shares in each resample, [3, B, K], of normalized columns [N, K]."""
    counts, weights, sizes = design.counts, design.weights, design.sizes
    operators, variants = counts.shape
    sums = normalized.new_zeros(counts.numel(), normalized.shape[1])
    squares = sums.clone().index_add_(0, design.cell, normalized.square())
    sums = sums.index_add_(0, design.cell, normalized).view(operators, variants, -1)
    own = sums.sum(dim=1)
    total = weights @ squares.view(operators, variants, -1).sum(dim=1)
    means = _weighted(weights, sums) / sizes.clamp(min=1)[..., None]
    between = (sizes[..., None] * means.square()).sum(dim=1)
    within = total - between
    # Squares of the sums of r over each operator, where r = z - mean of the variant.
    crossed = _weighted(weights, counts[..., None] * own[:, None])
    of_means = torch.einsum("buv,buk,bvk->bk", design.products, means, means)
    products = weights @ own.square() - 2 * (crossed * means).sum(dim=1) + of_means - within

    samples, used = sizes.sum(dim=1), (sizes > 0).sum(dim=1)
    free = samples - used
    # within = free * inner - alike * operator, products = spread * operator - alike * inner, where
    # operator is the operators' variance and inner that of the operators and the rest.
    factor, determinant = design.alike, free * design.spread - design.alike.square()
    solvable = determinant > _NOTHING * samples.square()
    free, factor, determinant = free[:, None], factor[:, None], determinant[:, None]
    operator = (free * products + factor * within) / determinant
    inner = (within + factor * operator) / free
    mean = (sizes[..., None] * means).sum(dim=1) / samples[:, None]
    chance = (used[:, None] - 1) * inner + operator * (factor - (design.pairs / samples)[:, None])
    variant = (between - samples[:, None] * mean.square() - chance) / samples[:, None]
    whole = variant + inner
    shares = torch.stack([variant, operator]) / whole
    shares = torch.where(whole > _NOTHING, shares, 0.0)
    shares = torch.where(solvable[:, None], shares, torch.nan)
    return torch.cat([shares, 1 - shares.sum(dim=0, keepdim=True)])


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    """Return the weighted sums [B, ...] of values [O, ...]."""
    return (weights @ values.flatten(1)).view(len(weights), *values.shape[1:])


def _intervals(estimates: Tensor, resampled: Tensor) -> Tensor:
    """Return the interval of each share, [3, K, 2]."""
    if not resampled.shape[1]:
        return torch.full_like(estimates, torch.nan)[..., None].expand(-1, -1, 2)
    levels = torch.tensor(_LEVELS, dtype=estimates.dtype, device=estimates.device)
    shift = estimates - resampled.nanmean(dim=1)
    return (resampled.nanquantile(levels, dim=1) + shift).movedim(0, -1)
