"""What a table of tokens against labels says: pure functions of counts.

Results are float64 scalars, computed in float64: the figures are differences of entropies, and a
chance level of 0.001 nats should not be rounding. Entropies and informations are in nats. Values on
degenerate tables are scikit-learn's; a table without samples has entropies and informations 0.

References:
    1. Cover & Thomas, Elements of Information Theory, 2nd ed. (2006), chapter 2.
    2. Miller, Note on the bias of information estimates, in Information Theory in Psychology
       (1955), 95–100.
    3. Vinh, Epps & Bailey, Information theoretic measures for clusterings comparison, JMLR 11
       (2010), 2837–2854.
"""

import torch
from torch import Tensor


def mutual_information(contingency: Tensor, *, corrected: bool = False) -> Tensor:
    """Mutual information of token and class, I = H(token) + H(class) − H(token, class) [1].

    Args:
        contingency: Counts ``[codes, classes]``.
        corrected: Estimate each entropy with Miller and Madow's correction, (occupied cells − 1) /
            (2 · samples) [2]. The plug-in value is biased upwards, by about (codes − 1)(classes −
            1) / (2 · samples) for independent labels; the corrected one may fall below 0.

    Returns:
        Scalar, nats; 0 without samples.
    """
    counts = _counts(contingency)
    codes, classes = counts.sum(1), counts.sum(0)
    plug_in = (_entropy(codes) + _entropy(classes) - _entropy(counts)).clamp(min=0)
    if not corrected:
        return plug_in
    total = counts.sum()
    excess = codes.count_nonzero() + classes.count_nonzero() - counts.count_nonzero() - 1
    return torch.where(total > 0, plug_in + excess / (2 * total), plug_in)


def normalized_mutual_information(contingency: Tensor) -> Tensor:
    """Mutual information over the arithmetic mean of the entropies of token and class [3].

    Args:
        contingency: Counts ``[codes, classes]``.

    Returns:
        Scalar in [0, 1]; 1 where token and class determine each other, which includes a single
        token with a single class and no samples at all.
    """
    counts = _counts(contingency)
    if _one_to_one(counts):
        return counts.new_ones(())
    return mutual_information(counts) / _mean_entropy(counts)


def adjusted_mutual_information(contingency: Tensor) -> Tensor:
    """Mutual information above chance, (I − E I) / (mean entropy − E I) [3].

    Args:
        contingency: Counts ``[codes, classes]``.

    Returns:
        Scalar, at most 1 and about 0 (either sign) for independent labels; 1 where token and class
        determine each other, which includes a single token with a single class and no samples.
    """
    counts = _counts(contingency)
    if _one_to_one(counts):
        return counts.new_ones(())
    chance = expected_mutual_information(counts)
    return (mutual_information(counts) - chance) / (_mean_entropy(counts) - chance)


def expected_mutual_information(contingency: Tensor) -> Tensor:
    """Mutual information that labels of these marginals have by chance, E I [3, eq. 24].

    Under random permutation of one label a cell with marginals a and b is hypergeometric, and

        E I = Σ_ab Σ_n  n/N · ln(N·n / (a·b)) · P(n; a, b, N).

    It depends on the marginals alone, so equal ones are evaluated once. Time is at most samples x
    distinct marginals of the smaller side, memory proportional to samples.

    Args:
        contingency: Counts ``[codes, classes]``.

    Returns:
        Scalar, nats; 0 without samples.
    """
    counts = _counts(contingency)
    total = counts.sum()
    sides = [counts.sum(1), counts.sum(0)]
    (few, few_times), (many, many_times) = sorted(
        (torch.unique(side[side > 0], return_counts=True) for side in sides),
        key=lambda marginals: len(marginals[0]),
    )
    expected = counts.new_zeros(())
    for b, times in zip(few, few_times, strict=True):
        expected = expected + times * _chance_sum(many, many_times, b, total)
    return expected


def conditional_entropy(contingency: Tensor) -> Tensor:
    """Entropy of the class that remains when the token is known, H(class | token) [1].

    Args:
        contingency: Counts ``[codes, classes]``; transposed, it gives H(token | class).

    Returns:
        Scalar, nats, in [0, H(class)]; 0 without samples.
    """
    counts = _counts(contingency)
    return (_entropy(counts) - _entropy(counts.sum(1))).clamp(min=0)


def codebook_perplexity(contingency: Tensor) -> Tensor:
    """Effective number of codes in use, exp H(token).

    Args:
        contingency: Counts ``[codes, classes]``.

    Returns:
        Scalar in [1, codes]; 1 without samples.
    """
    return _entropy(_counts(contingency).sum(1)).exp()


def codebook_usage(contingency: Tensor) -> Tensor:
    """Fraction of the codes that occur at all.

    Args:
        contingency: Counts ``[codes, classes]``.

    Returns:
        Scalar in [0, 1]; 0 without samples.
    """
    codes = _counts(contingency).sum(1)
    return (codes > 0).double().sum() / max(len(codes), 1)


def _counts(contingency: Tensor) -> Tensor:
    """The table in float64."""
    if contingency.ndim != 2:
        raise ValueError(f"contingency must be [codes, classes], got {list(contingency.shape)}")
    # Apple's GPUs have no float64.
    return (contingency.cpu() if contingency.device.type == "mps" else contingency).double()


def _entropy(counts: Tensor) -> Tensor:
    """Plug-in entropy of float64 counts of any shape, nats; 0 where there are none."""
    terms: Tensor = torch.special.entr(counts / counts.sum().clamp(min=1))
    return terms.sum()


def _mean_entropy(counts: Tensor) -> Tensor:
    return (_entropy(counts.sum(1)) + _entropy(counts.sum(0))) / 2


def _one_to_one(counts: Tensor) -> bool:
    """Whether every occupied row and column holds exactly one occupied cell."""
    cells = counts.count_nonzero()
    return bool((cells == counts.any(1).sum()) & (cells == counts.any(0).sum()))


def _chance_sum(a: Tensor, times: Tensor, b: Tensor, total: Tensor) -> Tensor:
    """The part of E I from marginals ``a [K]``, occurring `times`, against one marginal b.

    The cell count n runs over max(1, a + b − N)..min(a, b), of a length that differs between the
    entries of a: all runs lie end to end in one flat tensor.
    """
    first = (a + b - total).clamp(min=1)
    lengths = (torch.minimum(a, b) - first + 1).long()
    entry = torch.repeat_interleave(lengths)
    starts = lengths.cumsum(0) - lengths
    n = torch.arange(len(entry), device=a.device) - starts[entry] + first[entry]
    ways = _log_factorial(a) + _log_factorial(total - a)
    ways = ways + _log_factorial(b) + _log_factorial(total - b) - _log_factorial(total)
    a, times, ways = a[entry], times[entry], ways[entry]
    ways = ways - _log_factorial(n) - _log_factorial(a - n) - _log_factorial(b - n)
    probability = (ways - _log_factorial(total - a - b + n)).exp()
    return (times * n / total * torch.log(total * n / (a * b)) * probability).sum()


def _log_factorial(n: Tensor) -> Tensor:
    return torch.lgamma(n + 1)
