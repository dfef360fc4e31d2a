"""Exchanges objects between the processes of a distributed run."""

from typing import TypeVar

from torch import distributed

_Object = TypeVar("_Object")


def is_distributed() -> bool:
    """Return whether this process belongs to a distributed run.

    Example:
        >>> is_distributed()
        False
    """
    return distributed.is_available() and distributed.is_initialized()


def gather_objects(mine: _Object) -> list[_Object]:
    """Return an object of each process, in the order of ranks; all processes must call.

    Args:
        mine: Object of this process, which can be pickled.

    Example:
        >>> gather_objects("mine")
        ['mine']
    """
    if not is_distributed():
        return [mine]
    everyone: list[_Object] = [mine] * distributed.get_world_size()
    distributed.all_gather_object(everyone, mine)
    return everyone
