"""Numbers of the combinations of several labels."""

import torch
from torch import Tensor


def joint_tokens(tokens: Tensor) -> Tensor:
    """Number the combinations of codes that occur.

    Args:
        tokens: Codebook indices, integers ``[N]`` or ``[N, Q]``, of Q levels. Other labels of
            samples are possible too.

    Returns:
        Number of each sample's combination, ``[N]`` int64, in [0, number of combinations). The
        numbers are in lexicographic order of the combinations.

    Example:
        >>> import torch
        >>> from spinlock.metrics import joint_tokens
        >>> joint_tokens(torch.tensor([[7, 1], [3, 9], [7, 1], [7, 0]]))
        tensor([2, 0, 2, 1])
    """
    levels = tokens[:, None] if tokens.ndim == 1 else tokens
    number = torch.zeros(len(levels), dtype=torch.int64, device=levels.device)
    # Numbers are renewed for each level, so they stay below N times the size of one level. This is
    # ten times as fast as the unique rows of a matrix.
    for level in levels.unbind(1):
        codes, code = torch.unique(level, return_inverse=True)
        number = torch.unique(number * len(codes) + code, return_inverse=True)[1]
    return number


def first_rows(labels: Tensor) -> Tensor:
    """Return the row of the first sample of each label.

    Args:
        labels: Labels, integers ``[N]``, or ``[N, Q]`` for combinations of labels.

    Returns:
        Rows, int64 ``[number of labels]``, in ascending order of the labels.

    Example:
        >>> import torch
        >>> from spinlock.metrics.joint_labels import first_rows
        >>> first_rows(torch.tensor([7, 3, 7, 3, 5]))
        tensor([1, 4, 0])
    """
    number = joint_tokens(labels)
    if not len(number):
        return number
    rows = torch.arange(len(number), device=number.device)
    first = torch.full_like(number[: int(number.max()) + 1], len(number))
    return first.scatter_reduce_(0, number, rows, "amin")


def count_table(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Tensor:
    """Count samples by two labels.

    Args:
        rows: First label of each sample, ``[N]`` int64.
        columns: Second label of each sample, ``[N]`` int64.
        shape: Number of values of the first and of the second label.

    Returns:
        Counts, int64 ``[*shape]``.

    Example:
        >>> import torch
        >>> from spinlock.metrics.joint_labels import count_table
        >>> count_table(torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0]), (2, 2))
        tensor([[0, 2],
                [1, 0]])
    """
    return torch.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).view(shape)
