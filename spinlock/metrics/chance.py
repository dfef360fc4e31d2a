"""Scores that tables with given marginals have by chance: expectation and permutation null.

References:
    1. Vinh, Epps & Bailey, Information theoretic measures for clusterings comparison, JMLR 11
       (2010), 2837–2854.
    2. Phipson & Smyth, Permutation p-values should never be zero, Statistical Applications in
       Genetics and Molecular Biology 9 (2010), 39.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise, repeat

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import random_table
from torch import Tensor

from spinlock.configuration.validation import require_at_least
from spinlock.metrics.counts import as_counts

# Terms of the expectation held in memory at once: about 30 arrays of 8 MB.
_TERMS = 1 << 20
# The expectation leaves out tails of counts with a total probability below this bound.
_NEGLIGIBLE = 1e-20
# Permuted tables that are scored together.
_TABLES = 32


def expected_mutual_information(contingency: Tensor) -> Tensor:
    """Return the mutual information that tables with these marginals have by chance, E I [1].

    Under random permutation of one of the two labelings, the count of a cell with marginals a and b
    is hypergeometric, and [1, eq. 24]

        E I = Σ_ab Σ_n  n/N · ln(N·n / (a·b)) · P(n; a, b, N).

    Equal pairs of marginals are evaluated once. The sum over n leaves out tails with a total
    probability below 1e-20 by Bernstein's inequality.

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]``, nats; 0 without samples.

    Example:
        >>> import torch
        >>> from spinlock.metrics import expected_mutual_information
        >>> expected_mutual_information(torch.tensor([[4, 1], [1, 4]])).round(decimals=4)
        tensor(0.0597, dtype=torch.float64)
    """
    counts = as_counts(contingency)
    tables = counts.reshape(math.prod(counts.shape[:-2]), *counts.shape[-2:])
    expected = [_expected(table) for table in tables]
    return torch.stack(expected).view(counts.shape[:-2]) if expected else counts.sum((-2, -1))


def permuted_tables(
    contingency: Tensor, *, permutations: int, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield tables of samples whose classes are permuted at random.

    Permuting labels keeps both marginals, and the distribution of the table depends on them alone:
    it is that of :data:`scipy.stats.random_table`, which draws the counts. With many samples, time
    does not grow with their number.

    Args:
        contingency: Integer counts ``[codes, classes]``, or ``[groups, codes, classes]`` to permute
            classes within each group.
        permutations: Number of tables.
        seed: Seed of NumPy's generator.

    Yields:
        int64 tables of the shape of `contingency`.

    Raises:
        ValueError: `permutations` is less than 1, or the table has another number of dimensions.

    Example:
        >>> import torch
        >>> from spinlock.metrics import permuted_tables
        >>> table = next(permuted_tables(torch.tensor([[5, 0], [0, 3]]), permutations=1))
        >>> table.sum(0).tolist(), table.sum(1).tolist()
        ([5, 3], [5, 3])
    """
    require_at_least({"permutations": permutations}, 1)
    counts = contingency.cpu().numpy().astype(np.int64)
    if counts.ndim not in (2, 3):
        shape = list(counts.shape)
        raise ValueError(f"contingency must be [codes, classes] or [groups, ...], got {shape}")
    generator = np.random.default_rng(seed)
    groups = counts if counts.ndim == 3 else counts[None]
    streams = [_permuted(table, generator) for table in groups]
    for _ in range(permutations):
        yield np.stack([next(stream) for stream in streams]).reshape(counts.shape)


def permutation_null(
    score: Callable[[Tensor], Tensor],
    contingency: Tensor,
    *,
    permutations: int = 100,
    seed: int = 0,
) -> Tensor:
    """Return the scores of tables whose classes are permuted at random.

    With the marginals fixed, normalized and adjusted mutual information are increasing functions of
    mutual information, so the p-values of the three are equal.

    Args:
        score: Function of n tables ``[n, *contingency.shape]`` that returns their scores
            ``[n, ...]``, such as :func:`mutual_information`.
        contingency: Integer counts; see :func:`permuted_tables`.
        permutations: Number of permutations K.
        seed: Seed of the permutations.

    Returns:
        The score of each table, ``[K, ...]``.

    Example:
        >>> import torch
        >>> from spinlock import metrics
        >>> table = torch.tensor([[8, 0], [0, 8]])
        >>> null = metrics.permutation_null(metrics.mutual_information, table)
        >>> bool((null <= metrics.mutual_information(table)).all())
        True
    """
    tables = permuted_tables(contingency, permutations=permutations, seed=seed)
    scores = []
    while some := list(islice(tables, _TABLES)):
        scores.append(score(torch.from_numpy(np.stack(some))))
    return torch.cat(scores)


def permutation_p_value(observed: Tensor, null: Tensor) -> Tensor:
    """Return the probability of a value at least as large under the null [2].

    It is estimated as (1 + #{null >= observed}) / (1 + K).

    Args:
        observed: Observed value, scalar.
        null: Values under permutation, ``[K]``.

    Returns:
        Scalar in [1 / (K + 1), 1].

    Example:
        >>> import torch
        >>> from spinlock.metrics import permutation_p_value
        >>> permutation_p_value(torch.tensor(0.9), torch.linspace(0.1, 0.5, 99))
        tensor(0.0100)
    """
    # Equal tables may differ by rounding if they are summed in another order.
    reached = null >= observed - 1e-12
    return (1 + reached.sum()) / (1 + len(null))


def _expected(table: Tensor) -> Tensor:
    """E I of one table ``[codes, classes]``, float64."""
    (a, a_times), (b, b_times) = (
        torch.unique(side[side > 0], return_counts=True) for side in (table.sum(1), table.sum(0))
    )
    times = (a_times[:, None] * b_times).flatten().double()
    a, b = a.repeat_interleave(len(b)), b.repeat(len(a))
    total = table.sum()
    first, last = _range(a, b, total)
    ends = (last - first + 1).cumsum(0)
    sums = [
        _chance_sums(a[piece], b[piece], total, first[piece], last[piece])
        for piece in _pieces(ends)
    ]
    return torch.dot(times, torch.cat(sums))


def _range(a: Tensor, b: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """First and last n in max(1, a + b − N)..min(a, b), without the negligible tails."""
    mean = a * b / total
    variance = mean * (total - a) * (total - b) / (total * (total - 1).clamp(min=1))
    # Distance at which Bernstein's bound 2 exp(-t² / (2 variance + 2 t / 3)) is _NEGLIGIBLE.
    third = math.log(2 / _NEGLIGIBLE) / 3
    reach = third + (third**2 + 6 * third * variance).sqrt()
    first = torch.maximum((a + b - total).clamp(min=1), (mean - reach).floor())
    last = torch.minimum(torch.minimum(a, b), (mean + reach).ceil())
    return first, last


def _pieces(ends: Tensor) -> Iterator[slice]:
    """Yield slices of the pairs of marginals, with about `_TERMS` terms each."""
    piece = (ends / _TERMS).long()
    starts = [0, *(torch.nonzero(piece.diff()).flatten() + 1).tolist(), len(ends)]
    return (slice(*bounds) for bounds in pairwise(starts))


def _chance_sums(a: Tensor, b: Tensor, total: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Σ_n of E I for each pair of marginals; all n are laid out in one flat tensor."""
    lengths = (last - first + 1).long()
    pair = torch.repeat_interleave(lengths)
    n = torch.arange(len(pair), device=a.device) - (lengths.cumsum(0) - lengths - first)[pair]
    log_ways = _log_factorial(a) + _log_factorial(total - a)
    log_ways = log_ways + _log_factorial(b) + _log_factorial(total - b) - _log_factorial(total)
    rest = total - a - b
    a_, b_, rest, log_ways, share = (x[pair] for x in (a, b, rest, log_ways, total / (a * b)))
    # Looking up logarithms of factorials is ten times faster if the table has fewer entries.
    factorial = _log_factorial
    if total < len(n):
        table = _log_factorial(torch.arange(int(total) + 1, device=a.device).double())
        factorial = partial(_look_up, table)
    log_ways = log_ways - factorial(n) - factorial(a_ - n) - factorial(b_ - n)
    terms = n * torch.log(share * n) * (log_ways - factorial(rest + n)).exp()
    return torch.zeros_like(a).index_add_(0, pair, terms) / total


def _log_factorial(n: Tensor) -> Tensor:
    return torch.lgamma(n + 1)


def _look_up(table: Tensor, n: Tensor) -> Tensor:
    return table[n.long()]


def _permuted(
    table: NDArray[np.int64], generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    codes, classes = table.sum(1), table.sum(0)
    # Only one table has the marginals of a single row or column, and scipy 1.17 draws it wrongly.
    if min(np.count_nonzero(codes), np.count_nonzero(classes)) < 2:
        return repeat(table)
    distribution = random_table(codes, classes)
    return (distribution.rvs(random_state=generator) for _ in repeat(None))
