"""What goes wrong in a way that the user can mend. The command line prints these in one line."""


class SpinlockError(Exception):
    """Base class of the package's errors."""


class ConfigurationError(SpinlockError, ValueError):
    """A setting is not valid. The message names it, what was given and what is allowed."""


class SimulationError(SpinlockError):
    """A sample cannot be computed as it should be. The message names it."""


class DatasetError(SpinlockError):
    """A file is not the dataset that was expected. The file was not changed."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no file where a dataset was expected."""
