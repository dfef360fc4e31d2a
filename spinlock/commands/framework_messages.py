"""Leaves out messages of the framework that a user of the command line can do nothing about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
# Advertisements, and steps that always happen.
_MESSAGES = ("💡 Tip", "Loading `train_dataloader` to estimate", "TPU available: False")
# Python shows these warnings if they come from a library.
_CATEGORIES = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
_LIBRARIES = r"(lightning|lightning_utilities|torch|torchmetrics|jsonargparse)(\.|$)"
_TIPS = (
    # Columns are in memory, and loading fields is described in docs/performance.md.
    ".*does not have many workers which may be a bottleneck",
    # CSV files are a documented default.
    "Starting from v1.9.0, `tensorboardX` has been removed as a dependency",
    # Each run has a folder of its own.
    "The dirpath has changed from",
    # A file that is no checkpoint is refused anyway.
    "Detected pickle protocol",
)


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_MESSAGES)


@contextmanager
def without_tips() -> Iterator[None]:
    """Leave out advertisements, tips and deprecation warnings of the framework.

    Warnings about the user's own code and settings are shown.

    Example:
        >>> with without_tips():
        ...     logging.getLogger(_LOGGERS[0]).info("💡 Tip: install a further package")
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with warnings.catch_warnings():
        for category in _CATEGORIES:
            warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
        for tip in _TIPS:
            warnings.filterwarnings("ignore", message=tip)
        for logger in loggers:
            logger.addFilter(_is_useful)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_is_useful)
