"""Maps a function over items in the threads of a pool, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from spinlock.runtime.threads import abandon

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
