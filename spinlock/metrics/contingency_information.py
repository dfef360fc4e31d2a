"""Information scores of tables of tokens against classes, as pure functions of counts.

Tables may be stacked, ``[..., codes, classes]``. Results are float64 ``[...]``, and entropies and
informations are in nats. Computation is in float64 because scores are differences of entropies, in
which a chance level of 0.001 nats must not be lost to rounding. Values of degenerate tables are
those of scikit-learn.

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
    """Return the mutual information I = H(token) + H(class) − H(token, class) [1].

    Args:
        contingency: Counts ``[..., codes, classes]``.
        corrected: Whether to correct each entropy by Miller and Madow's (occupied cells − 1) /
            (2 · samples) [2], default: False. The plug-in value is biased upward, by about
            (codes − 1)(classes − 1) / (2 · samples) for independent labels. The corrected value
            may be below 0.

    Returns:
        ``[...]``, nats; 0 without samples.

    Example:
        >>> import torch
        >>> from spinlock.metrics import mutual_information
        >>> mutual_information(torch.tensor([[5, 0], [0, 5]])).round(decimals=4)
        tensor(0.6931, dtype=torch.float64)
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
    """Return mutual information divided by the arithmetic mean of both entropies [3].

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [0, 1]; 1 if token and class determine each other, which includes a single
        token with a single class, and a table without samples.

    Example:
        >>> import torch
        >>> from spinlock.metrics import normalized_mutual_information
        >>> normalized_mutual_information(torch.tensor([[5, 0], [0, 5]]))
        tensor(1., dtype=torch.float64)
    """
    counts = as_counts(contingency)
    ratio = plug_in_information(counts) / mean_entropy(counts)
    return torch.where(one_to_one(counts), 1.0, ratio)


def adjusted_mutual_information(contingency: Tensor, *, expected: Tensor | None = None) -> Tensor:
    """Return mutual information adjusted for chance, (I − E I) / (mean entropy − E I) [3].

    Args:
        contingency: Counts ``[..., codes, classes]``.
        expected: E I ``[...]`` of these counts, if already computed; it takes most of the time.

    Returns:
        ``[...]``, at most 1, and about 0 (of either sign) for independent labels; 1 if token and
        class determine each other, which includes a single token with a single class, and a table
        without samples.

    Example:
        >>> import torch
        >>> from spinlock.metrics import adjusted_mutual_information
        >>> adjusted_mutual_information(torch.tensor([[[9, 1], [1, 9]], [[5, 5], [5, 5]]])) > 0
        tensor([ True, False])
    """
    counts = as_counts(contingency)
    chance = expected_mutual_information(counts) if expected is None else expected
    ratio = (plug_in_information(counts) - chance) / (mean_entropy(counts) - chance)
    return torch.where(one_to_one(counts), 1.0, ratio)


def conditional_mutual_information(
    contingency: Tensor, *, adjusted: bool = False, expected: Tensor | None = None
) -> Tensor:
    """Return the mutual information of token and class within groups, I(T; C | G) [1].

    Pooling the groups can hide a dependence that every group has, and can show one that none has.

    Args:
        contingency: Counts ``[..., groups, codes, classes]``.
        adjusted: Whether to return (I − E I) / (mean entropy − E I) [3], default: False. Each term
            is averaged over the groups, weighted by their samples.
        expected: E I ``[..., groups]`` of each group, if already computed.

    Returns:
        ``[...]``, nats; if adjusted, at most 1, and about 0 if token and class are independent in
        every group. Without samples 0 nats, adjusted 1.

    Raises:
        ValueError: The table has no dimension of groups.

    Example:
        >>> import torch
        >>> from spinlock import metrics
        >>> table = torch.tensor([[[5, 0], [0, 5]], [[0, 5], [5, 0]]])
        >>> metrics.conditional_mutual_information(table, adjusted=True).item()
        1.0
        >>> metrics.mutual_information(table.sum(0)).item()
        0.0
    """
    counts = as_counts(contingency)
    if counts.ndim < 3:
        shape = list(counts.shape)
        raise ValueError(f"contingency must be [..., groups, codes, classes], got {shape}")
    samples = counts.sum((-2, -1))
    weights = samples / samples.sum(-1, keepdim=True).clamp(min=1)
    information = (weights * plug_in_information(counts)).sum(-1)
    if not adjusted:
        return information
    each = expected_mutual_information(counts) if expected is None else expected
    chance = (weights * each).sum(-1)
    most = (weights * mean_entropy(counts)).sum(-1)
    ratio = (information - chance) / (most - chance)
    return torch.where(one_to_one(counts).all(-1), 1.0, ratio)


def conditional_entropy(contingency: Tensor) -> Tensor:
    """Return the entropy of the class given the token, H(class | token) [1].

    Args:
        contingency: Counts ``[..., codes, classes]``; the transposed table gives H(token | class).

    Returns:
        ``[...]``, nats, in [0, H(class)]; 0 without samples.

    Example:
        >>> import torch
        >>> from spinlock.metrics import conditional_entropy
        >>> conditional_entropy(torch.tensor([[5, 0], [0, 5]])).item()
        0.0
    """
    counts = as_counts(contingency)
    return (entropy(counts.flatten(-2)) - code_entropy(counts)).clamp(min=0)


def jensen_shannon_divergence(contingency: Tensor) -> Tensor:
    """Return the divergence of two token distributions, H((p + q) / 2) − (H(p) + H(q)) / 2 [4].

    Args:
        contingency: Counts ``[..., codes, 2]``, each column normalized by itself.

    Returns:
        ``[...]``, nats, in [0, ln 2]: 0 for equal distributions, ln 2 for disjoint ones; NaN if a
        class has no samples.

    Raises:
        ValueError: The number of classes is not two.

    Example:
        >>> import torch
        >>> from spinlock.metrics import jensen_shannon_divergence
        >>> jensen_shannon_divergence(torch.tensor([[3, 30], [1, 10]])).item()
        0.0
    """
    counts = as_counts(contingency)
    if counts.shape[-1] != 2:
        raise ValueError(f"contingency must be [..., codes, 2], got {list(counts.shape)}")
    shares = (counts / counts.sum(-2, keepdim=True)).transpose(-1, -2)
    middle: Tensor = torch.special.entr(shares.mean(-2)).sum(-1)
    apart: Tensor = torch.special.entr(shares).sum(-1).mean(-1)
    return (middle - apart).clamp(min=0)


def codebook_perplexity(contingency: Tensor) -> Tensor:
    """Return the effective number of codes in use, exp H(token).

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [1, codes]; 1 without samples.

    Example:
        >>> import torch
        >>> from spinlock.metrics import codebook_perplexity
        >>> codebook_perplexity(torch.tensor([[4], [4], [0]])).round(decimals=6)
        tensor(2., dtype=torch.float64)
    """
    return code_entropy(as_counts(contingency)).exp()


def codebook_usage(contingency: Tensor) -> Tensor:
    """Return the fraction of codes that occur.

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [0, 1]; 0 without samples.

    Example:
        >>> import torch
        >>> from spinlock.metrics import codebook_usage
        >>> codebook_usage(torch.tensor([[4], [0], [1], [0]])).item()
        0.5
    """
    codes = as_counts(contingency).sum(-1)
    return (codes > 0).double().sum(-1) / max(codes.shape[-1], 1)


def dead_codes(contingency: Tensor) -> Tensor:
    """Return the number of codes that do not occur.

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]`` in [0, codes].

    Example:
        >>> import torch
        >>> from spinlock.metrics import dead_codes
        >>> dead_codes(torch.tensor([[4], [0], [1], [0]])).item()
        2.0
    """
    codes = as_counts(contingency).sum(-1)
    return (codes == 0).double().sum(-1)
