"""What tables of given marginals look like by chance: expectation, and a permutation null.

References:
    1. Vinh, Epps & Bailey, Information theoretic measures for clusterings comparison, JMLR 11
       (2010), 2837–2854.
    2. Phipson & Smyth, Permutation p-values should never be zero, Statistical Applications in
       Genetics and Molecular Biology 9 (2010), 39.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.metrics.counts import as_counts, plug_in_information

# Flat terms of the expectation that are in memory together: some 30 arrays of 8 MB.
_TERMS = 1 << 20
# Probability of the counts that the expectation leaves out.
_NEGLIGIBLE = 1e-20
# Samples that are permuted in the time that the count of one cell is drawn in.
_SAMPLES_PER_CELL = 16


def expected_mutual_information(contingency: Tensor) -> Tensor:
    """Mutual information that labels of these marginals have by chance, E I [1, eq. 24].

    Under random permutation of one label a cell with marginals a and b is hypergeometric, and

        E I = Σ_ab Σ_n  n/N · ln(N·n / (a·b)) · P(n; a, b, N).

    It depends on the marginals alone, so equal ones are evaluated once, also those of different
    tables. The sum over n leaves out what Bernstein's inequality bounds by a probability of 1e-20.

    Args:
        contingency: Counts ``[..., codes, classes]``.

    Returns:
        ``[...]``, nats; 0 without samples.
    """
    counts = as_counts(contingency)
    tables = counts.reshape(math.prod(counts.shape[:-2]), *counts.shape[-2:])
    pairs = [_marginal_pairs(table, number) for number, table in enumerate(tables)]
    expected = counts.new_zeros(len(tables))
    if pairs:
        a, b, total, times, group = (torch.cat(column) for column in zip(*pairs, strict=True))
        chosen, which = _distinct(a, b, total)
        a, b, total = a[chosen], b[chosen], total[chosen]
        sums = [_chance_sums(a[p], b[p], total[p]) for p in _pieces(_ends(a, b, total))]
        expected.index_add_(0, group, times * torch.cat(sums)[which])
    return expected.view(counts.shape[:-2])


def permuted_tables(
    contingency: Tensor, *, permutations: int, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Tables of samples whose classes are permuted at random.

    Permuting labels keeps both marginals, and all tables of these marginals arise with the
    multivariate hypergeometric probability, so the table is all that is needed. Where samples are
    few the labels are laid out and shuffled; where there are more than 16 for each cell, the cells'
    counts are drawn: the law is the same, and time does not grow with the number of samples.

    Args:
        contingency: Integer counts ``[codes, classes]``, or ``[groups, codes, classes]``: classes
            are then permuted within each group.
        permutations: Number of tables.
        seed: Of numpy's generator; the same tables on every machine.

    Yields:
        int64 tables of the same shape.

    Raises:
        ValueError: On fewer than one permutation, or a table of another rank.
    """
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    counts = contingency.cpu().numpy().astype(np.int64)
    if counts.ndim not in (2, 3):
        shape = list(counts.shape)
        raise ValueError(f"contingency must be [codes, classes] or [groups, ...], got {shape}")
    generator = np.random.default_rng(seed)
    groups = counts if counts.ndim == 3 else counts[None]
    streams = [_permuted(table, generator) for table in groups]
    for _ in range(permutations):
        yield np.stack([next(stream) for stream in streams]).reshape(counts.shape)


def permutation_null(contingency: Tensor, *, permutations: int = 100, seed: int = 0) -> Tensor:
    """Plug-in mutual information of tables whose classes are permuted.

    With the marginals fixed, normalized and adjusted mutual information are increasing functions of
    it: their p-values are the same.

    Args:
        contingency: Integer counts ``[codes, classes]``.
        permutations: Number of permutations.
        seed: As in :func:`permuted_tables`.

    Returns:
        ``[permutations]``, nats.
    """
    tables = permuted_tables(contingency, permutations=permutations, seed=seed)
    return torch.stack([plug_in_information(as_counts(torch.from_numpy(t))) for t in tables])


def permutation_p_value(observed: Tensor, null: Tensor) -> Tensor:
    """Probability of a value at least as large by chance, (1 + #{null >= observed}) / (1 + K) [2].

    Args:
        observed: Scalar.
        null: ``[K]``, its values under permutation.

    Returns:
        Scalar in [1 / (K + 1), 1].
    """
    # Equal tables differ in rounding where they are summed in another order.
    reached = null >= observed - 1e-12
    return (1 + reached.sum()) / (1 + len(null))


def _marginal_pairs(table: Tensor, number: int) -> tuple[Tensor, ...]:
    """Distinct pairs of marginals a, b, their total, how often they occur, the table's number."""
    (a, a_times), (b, b_times) = (
        torch.unique(side[side > 0], return_counts=True) for side in (table.sum(1), table.sum(0))
    )
    times = (a_times[:, None] * b_times).flatten().double()
    pairs = a.repeat_interleave(len(b)), b.repeat(len(a))
    group = torch.full_like(times, number, dtype=torch.int64)
    return (*pairs, table.sum().expand_as(times), times, group)


def _distinct(a: Tensor, b: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of distinct triples, and of each triple its place among them."""
    size = int(total.max()) + 1 if len(total) else 1
    number = torch.unique(total, return_inverse=True)[1]
    key = (number * size + a.long()) * size + b.long()
    keys, which = torch.unique(key, return_inverse=True)
    chosen = torch.empty_like(keys).scatter_(0, which, torch.arange(len(key), device=key.device))
    return chosen, which


def _range(a: Tensor, b: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """First and last n that count, max(1, a + b − N)..min(a, b) without the negligible tails."""
    mean = a * b / total
    variance = mean * (total - a) * (total - b) / (total * (total - 1).clamp(min=1))
    # Where Bernstein's bound 2 exp(-t² / (2 variance + 2 t / 3)) falls to _NEGLIGIBLE.
    third = math.log(2 / _NEGLIGIBLE) / 3
    reach = third + (third**2 + 6 * third * variance).sqrt()
    first = torch.maximum((a + b - total).clamp(min=1), (mean - reach).floor())
    last = torch.minimum(torch.minimum(a, b), (mean + reach).ceil())
    return first, last


def _ends(a: Tensor, b: Tensor, total: Tensor) -> Tensor:
    first, last = _range(a, b, total)
    return (last - first + 1).cumsum(0)


def _pieces(ends: Tensor) -> Iterator[slice]:
    """Slices of pairs with about as many terms as fit in memory."""
    piece = (ends / _TERMS).long()
    starts = [0, *(torch.nonzero(piece.diff()).flatten() + 1).tolist(), len(ends)]
    return (slice(*bounds) for bounds in pairwise(starts))


def _chance_sums(a: Tensor, b: Tensor, total: Tensor) -> Tensor:
    """Σ_n of E I for each pair of marginals; the runs of n lie end to end in one flat tensor."""
    first, last = _range(a, b, total)
    lengths = (last - first + 1).long()
    entry = torch.repeat_interleave(lengths)
    n = torch.arange(len(entry), device=a.device) - (lengths.cumsum(0) - lengths - first)[entry]
    ways = _log_factorial(a) + _log_factorial(total - a)
    ways = ways + _log_factorial(b) + _log_factorial(total - b) - _log_factorial(total)
    rest = total - a - b
    a_, b_, rest, ways, share = (x[entry] for x in (a, b, rest, ways, total / (a * b)))
    # Looking logarithms of factorials up is ten times faster, if the table is the smaller one.
    largest = int(total.max()) if len(total) else 0
    factorial = _log_factorial
    if largest < len(n):
        table = _log_factorial(torch.arange(largest + 1, device=a.device).double())
        factorial = partial(_look_up, table)
    ways = ways - factorial(n) - factorial(a_ - n) - factorial(b_ - n)
    terms = n * torch.log(share * n) * (ways - factorial(rest + n)).exp()
    return torch.zeros_like(a).index_add_(0, entry, terms) / total


def _log_factorial(n: Tensor) -> Tensor:
    return torch.lgamma(n + 1)


def _look_up(table: Tensor, n: Tensor) -> Tensor:
    return table[n.long()]


def _permuted(
    table: NDArray[np.int64], generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    codes, classes = table.shape
    drawn_cells = codes * max(classes - 1, 0)
    few = table.sum() <= _SAMPLES_PER_CELL * drawn_cells
    return _shuffled(table, generator) if few else _hypergeometric(table, generator)


def _shuffled(
    table: NDArray[np.int64], generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    codes, classes = table.shape
    first_cells = np.repeat(np.arange(codes) * classes, table.sum(1))
    labels = np.repeat(np.arange(classes), table.sum(0))
    while True:
        generator.shuffle(labels)
        cells: NDArray[Any] = np.bincount(first_cells + labels, minlength=codes * classes)
        yield cells.reshape(codes, classes).astype(np.int64)


def _hypergeometric(
    table: NDArray[np.int64], generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    codes, classes = table.sum(1), table.sum(0)
    while True:
        out, left = np.empty_like(table), codes.copy()
        for column, size in enumerate(classes[:-1]):
            # The default method takes memory proportional to the samples.
            out[:, column] = generator.multivariate_hypergeometric(left, size, method="marginals")
            left -= out[:, column]
        out[:, -1:] = left[:, None]
        yield out
