"""Says whether Triton is installed, which CUDA builds of torch require on Linux only."""

from functools import cache


@cache
def triton_available() -> bool:
    """Return whether Triton can be imported. The first call imports it.

    Example:
        >>> triton_available() in (True, False)
        True
    """
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
