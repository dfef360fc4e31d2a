"""Threads that outlive a task.

The allocator keeps memory for each thread that ever ran, and convolutions keep a workspace in each:
with new threads for every shard the memory of a run would grow with the number of shards.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any


def shared_pool(
    name: str, threads: int, initializer: Callable[[], None] | None = None
) -> ThreadPoolExecutor:
    """The process's pool of this name and size, made on first use.

    Args:
        name: Prefix of the threads' names.
        threads: Number of threads.
        initializer: Called once in each thread.
    """
    # A forked child has its parent's pools without their threads: it needs its own.
    return _pool(os.getpid(), name, threads, initializer)


@cache
def _pool(
    process: int, name: str, threads: int, initializer: Callable[[], None] | None
) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=initializer)


def abandon(futures: Iterable[Future[Any]]) -> None:
    """Cancel what has not begun and wait for the rest: nothing goes on behind the caller."""
    wait([future for future in futures if not future.cancel()])
