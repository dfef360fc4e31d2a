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
