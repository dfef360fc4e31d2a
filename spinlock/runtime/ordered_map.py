"""Maps functions over items in threads, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from spinlock.runtime.threads import abandon, settle_vector_math, shared_pool, use_one_thread

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Rows of columns that are held in memory at a time.
_ROWS_AT_A_TIME = 1024


def ordered_map(
    pool: ThreadPoolExecutor,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    limit: int,
) -> Generator[_Result, None, None]:
    """Yield ``function(item)`` for each item, in the order of the items.

    When the iterator ends or is closed, no task is left in the pool.

    Args:
        pool: Pool whose threads call the function.
        function: Function of one item.
        items: Items, which are taken in the caller's thread as results are asked for.
        limit: Number of items that are submitted ahead of the caller.

    Example:
        >>> with ThreadPoolExecutor(2) as pool:
        ...     list(ordered_map(pool, abs, [-1, 2, -3], limit=2))
        [1, 2, 3]
    """
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > limit:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        abandon(pending)


def reproducible_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int = 1
) -> Generator[_Result, None, None]:
    """Yield ``function(item)`` in order, with results that do not depend on the number of threads.

    Each call is computed by one thread, and ``torch.get_num_threads()`` calls run in parallel.

    Args:
        function: Function of one item.
        items: Items, which are taken in the caller's thread as results are asked for.
        ahead: Number of items per thread that are submitted ahead of the caller; default: 1.

    Example:
        >>> list(reproducible_map(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    settle_vector_math()
    threads = torch.get_num_threads()
    pool = shared_pool("compute", threads, use_one_thread)
    try:
        yield from ordered_map(pool, function, items, ahead * threads)
    finally:
        # `use_one_thread` in a worker also changed the default of threads started later.
        torch.set_num_threads(threads)


def row_blocks(rows: range) -> Iterator[range]:
    """Yield consecutive parts of some rows, of bounded length."""
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        yield rows[start : start + _ROWS_AT_A_TIME]
