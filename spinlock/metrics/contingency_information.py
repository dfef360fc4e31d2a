"""What a table of tokens against labels says: pure functions of counts.

Tables come alone or stacked, ``[..., codes, classes]``; results are float64 ``[...]``, computed in
float64: the figures are differences of entropies, and a chance level of 0.001 nats should not be
rounding. Entropies and informations are in nats. Values on degenerate tables are scikit-learn's; a
table without samples has entropies and informations 0.

References:
    1. Cover & Thomas, Elements of Information Theory, 2nd ed. (2006), chapter 2.
    2. Miller, Note on the bias of information estimates, in Information Theory in Psychology
       (1955), 95–100.
    3. Vinh, Epps & Bailey, Information theoretic measures for clusterings comparison, JMLR 11
       (2010), 2837–2854.
    4. Lin, Divergence measures based on the Shannon entropy, IEEE Transactions on Information
       Theory 37 (1991), 145–151.
"""

import torch
from torch import Tensor

from spinlock.metrics.chance import expected_mutual_information
from spinlock.metrics.counts import (
    as_counts,
    code_entropy,
    entropy,
    mean_entropy,
    one_to_one,
    plug_in_information,
)


def mutual_information(contingency: Tensor, *, corrected: bool = False) -> Tensor:
    """Mutual information of token and class, I = H(token) + H(class) − H(token, class) [1].

    Args:
        contingency: Counts ``[..., codes, classes]``.
        corrected: Estimate each entropy with Miller and Madow's correction, (occupied cells − 1) /
            (2 · samples) [2]. The plug-in value is biased upwards, by about (codes − 1)(classes −
            1) / (2 · samples) for independent labels; the corrected one may fall below 0.

    Returns:
        ``[...]``, nats; 0 without samples.
    """
    counts = as_counts(contingency)
    plug_in = plug_in_information(counts)
    if not corrected:
        return plug_in
    total = counts.sum((-2, -1))
    occupied = counts > 0
    codes, classes = occupied.any(-1).sum(-1), occupied.any(-2).sum(-1)
    excess = codes + classes - occupied.sum((-2, -1)) - 1
    return torch.where(total > 0, plug_in + excess / (2 * total), plug_in)


def normalized_mutual_information(contingency: Tensor) -> Tensor:
    """Mutual information over the arithmetic mean of the entropies of token and class [3].

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [0, 1]; 1 where token and class determine each other, which includes a single
        token with a single class and no samples at all.
    """
    counts = as_counts(contingency)
    ratio = plug_in_information(counts) / mean_entropy(counts)
    return torch.where(one_to_one(counts), 1.0, ratio)


def adjusted_mutual_information(contingency: Tensor, *, expected: Tensor | None = None) -> Tensor:
    """Mutual information above chance, (I − E I) / (mean entropy − E I) [3].

    Args:
        contingency: Counts ``[..., codes, classes]``.
        expected: ``[...]``, E I of these counts where it is known: it takes most of the time.

    Returns:
        ``[...]``, at most 1 and about 0 (either sign) for independent labels; 1 where token and
        class determine each other, which includes a single token with a single class and no
        samples.
    """
    counts = as_counts(contingency)
    chance = expected_mutual_information(counts) if expected is None else expected
    ratio = (plug_in_information(counts) - chance) / (mean_entropy(counts) - chance)
    return torch.where(one_to_one(counts), 1.0, ratio)


def conditional_mutual_information(
    contingency: Tensor, *, adjusted: bool = False, expected: Tensor | None = None
) -> Tensor:
    """Mutual information of token and class within the groups of a third label, I(T; C | G) [1].

    Pooling can hide a dependence that every group has, and can show one that none has.

    Args:
        contingency: Counts ``[groups, codes, classes]``.
        adjusted: Give (I − E I) / (mean entropy − E I) [3], each term averaged over the groups by
            their samples: 0 expected of tokens that are independent of the class in every group.
        expected: ``[groups]``, E I of each group where it is known.

    Returns:
        Scalar, nats, or at most 1 where adjusted; 0 nats, adjusted 1, without samples.

    Raises:
        ValueError: The table has no dimension of groups.
    """
    counts = as_counts(contingency)
    if counts.ndim != 3:
        shape = list(counts.shape)
        raise ValueError(f"contingency must be [groups, codes, classes], got {shape}")
    weights = counts.sum((1, 2)) / counts.sum().clamp(min=1)
    information = (weights * plug_in_information(counts)).sum()
    if not adjusted:
        return information
    each = expected_mutual_information(counts) if expected is None else expected
    chance = (weights * each).sum()
    most = (weights * mean_entropy(counts)).sum()
    ratio = (information - chance) / (most - chance)
    return torch.where(one_to_one(counts).all(), 1.0, ratio)


def conditional_entropy(contingency: Tensor) -> Tensor:
    """Entropy of the class that remains when the token is known, H(class | token) [1].

    Args:
        contingency: Counts ``[..., codes, classes]``; transposed, it gives H(token | class).

    Returns:
        ``[...]``, nats, in [0, H(class)]; 0 without samples.
    """
    counts = as_counts(contingency)
    return (entropy(counts.flatten(-2)) - code_entropy(counts)).clamp(min=0)


def jensen_shannon_divergence(contingency: Tensor) -> Tensor:
    """Divergence of the token distributions of two classes, H((p + q) / 2) − (H(p) + H(q)) / 2 [4].

    Args:
        contingency: Counts ``[..., codes, 2]``; each column is normalized by itself.

    Returns:
        ``[...]``, nats, in [0, ln 2]: 0 for equal distributions, ln 2 for disjoint ones; NaN where
        a class has no samples.

    Raises:
        ValueError: There are other than two classes.
    """
    counts = as_counts(contingency)
    if counts.shape[-1] != 2:
        raise ValueError(f"contingency must be [..., codes, 2], got {list(counts.shape)}")
    shares = (counts / counts.sum(-2, keepdim=True)).transpose(-1, -2)
    middle: Tensor = torch.special.entr(shares.mean(-2)).sum(-1)
    apart: Tensor = torch.special.entr(shares).sum(-1).mean(-1)
    return (middle - apart).clamp(min=0)


def codebook_perplexity(contingency: Tensor) -> Tensor:
    """Effective number of codes in use, exp H(token).

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [1, codes]; 1 without samples.
    """
    return code_entropy(as_counts(contingency)).exp()


def codebook_usage(contingency: Tensor) -> Tensor:
    """Fraction of the codes that occur at all.

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [0, 1]; 0 without samples.
    """
    codes = as_counts(contingency).sum(-1)
    return (codes > 0).double().sum(-1) / max(codes.shape[-1], 1)


def dead_codes(contingency: Tensor) -> Tensor:
    """Number of codes that do not occur.

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [0, codes].
    """
    codes = as_counts(contingency).sum(-1)
    return (codes == 0).double().sum(-1)
