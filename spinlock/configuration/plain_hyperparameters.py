"""Hyperparameters of models and data modules as plain data."""

import copy
import inspect
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from spinlock.configuration.plain_data import plain

if TYPE_CHECKING:
    from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin as _Base
else:
    _Base = object


class PlainHyperparameters(_Base):
    """Stores arguments as plain data, so that checkpoints load with ``weights_only=True``.

    A base class in front of ``LightningModule`` or ``LightningDataModule``. A subclass of theirs
    may call ``save_hyperparameters()`` for its own arguments.

    Example:
        >>> from pathlib import Path
        >>> from lightning import LightningModule
        >>> class Model(PlainHyperparameters, LightningModule):
        ...     def __init__(self, path: Path, sizes: tuple[int, ...] = (8, 8)) -> None:
        ...         super().__init__()
        ...         self.save_hyperparameters()
        >>> dict(Model(Path("a.h5")).hparams)
        {'path': 'a.h5', 'sizes': [8, 8]}
    """

    unstored_arguments: ClassVar[tuple[str, ...]] = ()
    """Names of arguments that are never stored."""

    def save_hyperparameters(
        self,
        *args: Any,  # noqa: ANN401 (as Lightning's)
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Store arguments as plain data; see Lightning's method."""
        if frame is None and (current := inspect.currentframe()) is not None:
            frame = current.f_back
        given = [ignore] if isinstance(ignore, str) else ignore or ()
        # The class is chosen by whoever loads the checkpoint, not by the checkpoint.
        dropped = [*given, *self.unstored_arguments, "_instantiator"]
        if inspect.getfullargspec(type(self).__init__).varkw is not None:
            # Lightning would pass the path of the class to a constructor that takes any argument.
            dropped.append("_class_path")
        # Lightning copies what it stores, and some unstored arguments cannot be copied.
        super().save_hyperparameters(*args, ignore=dropped, frame=frame, logger=logger)
        stored = {name: self.stored_argument(name, value) for name, value in self.hparams.items()}
        self.hparams.update(stored)
        self._hparams_initial = copy.deepcopy(self.hparams)

    def stored_argument(self, name: str, value: Any) -> Any:  # noqa: ANN401 (any argument)
        """Return an argument as it is stored: as plain data.

        Args:
            name: Name of the argument.
            value: Argument as it was given.
        """
        return plain(value)
