"""Errors that the user can fix. The command line prints their messages without a traceback."""


class SpinlockError(Exception):
    """Base class of the package's errors."""


class ConfigurationError(SpinlockError, ValueError):
    """A setting is not valid. The message names the setting, its value and what is allowed."""


class SimulationError(SpinlockError):
    """A sample cannot be computed. The message names it."""


class DatasetError(SpinlockError):
    """A file is not the dataset that was expected, or is damaged. The file was not changed."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no file where a dataset was expected."""


class NonFiniteError(SpinlockError, FloatingPointError):
    """A value that a model reads or computes is NaN or Inf. The message names it."""


def interruption(error: BaseException) -> BaseException | None:
    """Return the exception of a signal that compiled code has turned into a `SystemError`, or None.

    h5py does so if a signal comes while HDF5 calls a function of Python.

    Args:
        error: Error that was caught.

    Example:
        >>> interruption(ValueError("no signal"))
    """
    cause = error.__cause__ if isinstance(error, SystemError) else None
    return None if isinstance(cause, Exception) else cause


def in_a_line(error: BaseException) -> str:
    r"""Return the text of an error of another package in one line; without a text, its type.

    Messages of HDF5, torch and the dynamic linker have line breaks.

    Args:
        error: Error to describe.

    Example:
        >>> in_a_line(OSError("cannot open\n    a file"))
        'cannot open a file'
        >>> in_a_line(KeyError())
        'KeyError'
    """
    return " ".join(str(error).split()) or type(error).__name__
