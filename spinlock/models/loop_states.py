"""Checks the progress of loops in a checkpoint, which Lightning adopts without looking at it."""

from collections.abc import Mapping
from typing import Any, NoReturn

from lightning import Trainer

from spinlock.configuration.validation import shown
from spinlock.errors import DatasetError

# Lightning's loops count in integers of any size; loggers and tensors take those of 64 bits.
_MOST = 2**63


def check_loop_states(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Check that the states of loops in a checkpoint have the form of the trainer's own.

    They hold integers that are not negative, booleans and dictionaries. Lightning makes attributes
    of all entries. Entries that the trainer's loops do not have are
    removed, so that they cannot replace methods.

    Args:
        checkpoint: Loaded checkpoint, which is changed in place.
        trainer: Trainer that will restore it.

    Raises:
        DatasetError: If an entry has another form. Names the entry.

    Example:
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> check_loop_states({"loops": {"fit_loop": 5}}, trainer)
        Traceback (most recent call last):
        spinlock.errors.DatasetError: the checkpoint's loops.fit_loop must be a dictionary, got 5
    """
    states = checkpoint.get("loops")
    if states is None:
        return
    own = {
        f"{name}_loop": getattr(trainer, f"{name}_loop").state_dict()
        for name in ("fit", "validate", "test", "predict")
    }
    _check("loops", states, own)


def _check(where: str, given: object, own: object) -> None:
    if isinstance(own, Mapping):
        if not isinstance(given, dict):
            _refuse(where, "a dictionary", given)
        for name in list(given):
            if name in own:
                _check(f"{where}.{name}", given[name], own[name])
            elif not where.endswith("state_dict"):
                del given[name]
    elif isinstance(own, bool):
        if not isinstance(given, bool):
            _refuse(where, "True or False", given)
    elif isinstance(own, int) and not (type(given) is int and 0 <= given < _MOST):
        _refuse(where, "an integer from 0 to 2^63 - 1", given)


def _refuse(where: str, expected: str, given: object) -> NoReturn:
    text = shown(given) if isinstance(given, int) else f"a {type(given).__name__}"
    raise DatasetError(f"the checkpoint's {where} must be {expected}, got {text}")
