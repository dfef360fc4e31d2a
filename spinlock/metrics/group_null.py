"""Null of a score of samples in groups, such as the probes of operators.

The samples of one group are not independent: their tokens may be alike without a dependence on the
label. Permuting labels among all samples is then the wrong null. If labels have no effect, their
values are exchangeable among the samples of a group. If they were also assigned to the groups at
random, as the design of a dataset assigns variants to operators, then the labels of whole groups
are exchangeable among groups of equally many samples [1, section 5.9; 2]. Permuting within groups
alone does not see a dependence on what differs between groups only.

References:
    1. Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses, 3rd ed. (2005): permutation
       within blocks.
    2. Winkler et al., Multi-level block permutation, NeuroImage 123 (2015), 253–268: permutation
       of whole blocks and within blocks.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.validation import require_at_least
from spinlock.metrics.joint_labels import joint_tokens

# Random numbers, and cells of tables, that are held in memory at once: 16 MB.
_NUMBERS = 1 << 21


def group_permutations(
    labels: Tensor,
    groups: Tensor,
    *,
    strata: Tensor | None = None,
    permutations: int,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yield labels that are permuted at random among groups, and among the samples of each group.

    The permutations of N samples depend on the seed, and on the order of the samples within each
    group. Sort the samples, for example by index, if that order should not matter.

    Args:
        labels: Labels, ``[N]`` of any type.
        groups: Group of each sample, integers ``[N]``, in any order.
        strata: Stratum of each sample's group, integers ``[N]``, such as the update policy of an
            operator. If given, groups of one stratum that have equally many samples exchange their
            labels before these are permuted among the samples of each group; pass zeros if all
            groups may exchange labels. Default: labels stay in their group.
        permutations: Number of permutations K.
        seed: Seed of NumPy's generator, default: 0.

    Yields:
        Blocks of permutations ``[n, N]``, K rows altogether.

    Raises:
        ValueError: `permutations` is less than 1, the shapes differ, or a group has samples of
            several strata.

    Example:
        >>> import torch
        >>> from spinlock.metrics import group_permutations
        >>> labels, groups = torch.tensor([5, 6, 7, 8]), torch.tensor([0, 0, 1, 1])
        >>> (block,) = group_permutations(labels, groups, permutations=3)
        >>> block[:, :2].sort().values.tolist()
        [[5, 6], [5, 6], [5, 6]]
        >>> (block,) = group_permutations(labels, groups, strata=groups * 0, permutations=3)
        >>> block[:, :2].sort().values.tolist()
        [[7, 8], [5, 6], [7, 8]]
    """
    require_at_least({"permutations": permutations}, 1)
    if labels.ndim != 1 or labels.shape != groups.shape:
        raise ValueError(
            f"labels and groups must be [N], got {list(labels.shape)} and {list(groups.shape)}"
        )
    if not len(labels):
        yield labels.expand(permutations, 0)
        return
    generator = np.random.default_rng(seed)
    place = torch.argsort(groups, stable=True)
    sorted_labels = labels[place]
    number, size = torch.unique(groups[place], return_inverse=True, return_counts=True)[1:]
    start = size.cumsum(0) - size
    offset = torch.arange(len(labels), device=labels.device) - start[number]
    kind = None if strata is None else _kinds(size, strata[place], number)
    num_groups = 0 if kind is None else len(size)
    for count in _blocks(permutations, num_groups + len(labels)):
        drawn = torch.from_numpy(generator.random((count, num_groups + len(labels))))
        of_group, of_sample = drawn.to(labels.device).tensor_split([num_groups], 1)
        # Keys of a group are in [number, number + 1/2], so that rounding cannot mix groups.
        source = torch.argsort(number.double() + of_sample / 2, dim=1)
        if kind is not None:
            partner = _partners(kind, of_group)
            source = (start[partner[:, number]] + offset).gather(1, source)
        yield torch.empty_like(labels.expand(count, -1)).index_copy_(
            1, place, sorted_labels[source]
        )


def group_permutation_null(
    score: Callable[[Tensor], Tensor],
    codes: Tensor,
    classes: Tensor,
    groups: Tensor,
    *,
    strata: Tensor | None = None,
    shape: tuple[int, int],
    permutations: int = 100,
    seed: int = 0,
) -> Tensor:
    """Return the scores of tables whose classes :func:`group_permutations` permutes.

    Args:
        score: Function of n tables of counts, int64 ``[n, *shape]``, that returns their scores
            ``[n, ...]``, such as :func:`mutual_information`.
        codes: Row of each sample in the table, ``[N]`` int64.
        classes: Column of each sample in the table, ``[N]`` int64.
        groups: Group of each sample, such as its operator, integers ``[N]``.
        strata: Stratum of each sample's group, integers ``[N]``. If given, groups of one stratum
            that have equally many samples exchange their classes. Default: classes are permuted
            within groups only.
        shape: Number of codes and of classes.
        permutations: Number of permutations K.
        seed: Seed of the permutations; see :func:`group_permutations`.

    Returns:
        The score of each table, ``[K, ...]``.

    Example:
        The token is the operator, so that permuting the families changes nothing.

        >>> import torch
        >>> from spinlock import metrics
        >>> operator, family = torch.arange(8) // 2, torch.arange(8) % 2
        >>> metrics.group_permutation_null(
        ...     metrics.mutual_information, operator, family, operator, shape=(4, 2), permutations=3
        ... )
        tensor([0., 0., 0.], dtype=torch.float64)
    """
    num_codes, num_classes = shape
    cells = num_codes * num_classes
    scores = []
    blocks = group_permutations(
        classes, groups, strata=strata, permutations=permutations, seed=seed
    )
    for block in blocks:
        for some in torch.split(block, max(1, _NUMBERS // max(cells, 1))):
            table = torch.arange(len(some), device=some.device)[:, None]
            labels = (table * num_codes + codes) * num_classes + some
            counts = torch.bincount(labels.flatten(), minlength=len(some) * cells)
            scores.append(score(counts.view(-1, *shape)))
    return torch.cat(scores)


def _kinds(size: Tensor, strata: Tensor, number: Tensor) -> Tensor:
    """Number groups ``[G]`` by their size and stratum; samples are sorted by group."""
    stratum = strata[size.cumsum(0) - size]
    if bool((strata != stratum[number]).any()):
        raise ValueError("strata: all samples of a group must have the same stratum")
    return joint_tokens(torch.stack([size, stratum.to(size)], 1))


def _partners(kind: Tensor, random: Tensor) -> Tensor:
    """Permute groups among those of the same kind ``[G]`` by random numbers ``[n, G]``."""
    drawn = torch.argsort(kind.double() + random / 2, dim=1)
    return torch.empty_like(drawn).index_copy_(1, torch.argsort(kind, stable=True), drawn)


def _blocks(permutations: int, numbers: int) -> Iterator[int]:
    """Yield how many permutations, of so many random numbers each, are drawn together."""
    most = max(1, _NUMBERS // numbers)
    for first in range(0, permutations, most):
        yield min(most, permutations - first)
