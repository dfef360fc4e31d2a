"""Null of a score if labels are permuted among the samples of each group.

Several samples of one group, such as the probes of an operator, are not independent: their tokens
may be alike without a dependence on the label. Permuting labels among all samples is then the wrong
null. Under the null that a label has no effect within a group, its values are exchangeable among
the samples of the group [1, section 5.9; 2].

References:
    1. Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses, 3rd ed. (2005): permutation
       within blocks.
    2. Winkler et al., Multi-level block permutation, NeuroImage 123 (2015), 253–268.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.validation import require_at_least

# Random numbers, and cells of tables, that are held in memory at once: 16 MB.
_NUMBERS = 1 << 21


def group_permutations(
    labels: Tensor, groups: Tensor, *, permutations: int, seed: int = 0
) -> Iterator[Tensor]:
    """Yield labels that are permuted at random among the samples of each group.

    The permutations of N samples depend on the seed, and on the order of the samples within each
    group. Sort the samples, for example by index, if that order should not matter.

    Args:
        labels: Labels, ``[N]`` of any type.
        groups: Group of each sample, integers ``[N]``, in any order.
        permutations: Number of permutations K.
        seed: Seed of NumPy's generator, default: 0.

    Yields:
        Blocks of permutations ``[n, N]``, K rows altogether.

    Raises:
        ValueError: `permutations` is less than 1, or the shapes differ.

    Example:
        >>> import torch
        >>> from spinlock.metrics import group_permutations
        >>> labels, groups = torch.tensor([5, 6, 7, 8]), torch.tensor([0, 0, 1, 1])
        >>> (block,) = group_permutations(labels, groups, permutations=3)
        >>> block[:, :2].sort().values.tolist()
        [[5, 6], [5, 6], [5, 6]]
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
    number = torch.unique(groups[place], return_inverse=True)[1].double()
    for count in _blocks(permutations, len(labels)):
        drawn = torch.from_numpy(generator.random((count, len(labels)))).to(labels.device)
        # Keys of a group are in [number, number + 1/2], so that rounding cannot mix groups.
        source = torch.argsort(number + drawn / 2, dim=1)
        yield torch.empty_like(labels.expand(count, -1)).index_copy_(
            1, place, sorted_labels[source]
        )


def within_group_null(
    score: Callable[[Tensor], Tensor],
    codes: Tensor,
    classes: Tensor,
    groups: Tensor,
    *,
    shape: tuple[int, int],
    permutations: int = 100,
    seed: int = 0,
) -> Tensor:
    """Return the scores of tables whose classes are permuted among the samples of each group.

    Args:
        score: Function of n tables of counts, int64 ``[n, *shape]``, that returns their scores
            ``[n, ...]``, such as :func:`mutual_information`.
        codes: Row of each sample in the table, ``[N]`` int64.
        classes: Column of each sample in the table, ``[N]`` int64.
        groups: Group of each sample, such as its operator, integers ``[N]``.
        shape: Number of codes and of classes.
        permutations: Number of permutations K.
        seed: Seed of the permutations; see :func:`group_permutations`.

    Returns:
        The score of each table, ``[K, ...]``.

    Example:
        The token is the operator, so that permuting families within operators changes nothing.

        >>> import torch
        >>> from spinlock import metrics
        >>> operator, family = torch.arange(8) // 2, torch.arange(8) % 2
        >>> metrics.within_group_null(
        ...     metrics.mutual_information, operator, family, operator, shape=(4, 2), permutations=3
        ... )
        tensor([0., 0., 0.], dtype=torch.float64)
    """
    num_codes, num_classes = shape
    cells = num_codes * num_classes
    scores = []
    for block in group_permutations(classes, groups, permutations=permutations, seed=seed):
        for some in torch.split(block, max(1, _NUMBERS // max(cells, 1))):
            table = torch.arange(len(some), device=some.device)[:, None]
            labels = (table * num_codes + codes) * num_classes + some
            counts = torch.bincount(labels.flatten(), minlength=len(some) * cells)
            scores.append(score(counts.view(-1, *shape)))
    return torch.cat(scores)


def _blocks(permutations: int, samples: int) -> Iterator[int]:
    """Yield numbers of permutations that are drawn together; their sum is `permutations`."""
    most = max(1, _NUMBERS // samples)
    for first in range(0, permutations, most):
        yield min(most, permutations - first)
