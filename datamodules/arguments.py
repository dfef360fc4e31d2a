"""Checks of the data module's own arguments."""

from typing import Any, Literal, get_args

from spinlock.datamodules.scaling import Scaling
from spinlock.errors import ConfigurationError

Balance = Literal["none", "variant", "family"]
StartMethod = Literal["fork", "spawn", "forkserver"]

_CHOICES = {"scaling": Scaling, "balance": Balance}
# Argument -> its least value.
_LEAST = {
    "batch_size": 1,
    "max_samples": 1,
    "prefetch_factor": 1,
    "split_seed": 0,
    "sampling_seed": 0,
    "num_workers": 0,
}


def check_arguments(arguments: dict[str, Any]) -> None:
    """Check the arguments of `SpinlockDataModule` that concern loading.

    Args:
        arguments: By name; None passes.

    Raises:
        ConfigurationError: Naming the argument, what is allowed and what was given.
    """
    for name, least in _LEAST.items():
        value = arguments[name]
        if value is not None and value < least:
            raise ConfigurationError(f"{name}: must be at least {least}, got {value}")
    for name, choices in _CHOICES.items():
        if arguments[name] not in get_args(choices):
            allowed = ", ".join(get_args(choices))
            raise ConfigurationError(f"{name}: must be one of {allowed}, got {arguments[name]!r}")
    start = arguments["multiprocessing_context"]
    if start is not None and start not in get_args(StartMethod):
        raise ConfigurationError(
            f"multiprocessing_context: must be one of {', '.join(get_args(StartMethod))}, got "
            f"{start!r}"
        )
    val, test = arguments["val_fraction"], arguments["test_fraction"]
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ConfigurationError(
            "val_fraction and test_fraction: must be >= 0 and leave something to train on, got "
            f"{val} and {test}"
        )
    if not arguments["num_workers"]:
        for name in ("prefetch_factor", "multiprocessing_context"):
            if arguments[name] is not None:
                raise ConfigurationError(
                    f"{name}: needs num_workers of at least 1, got num_workers=0 and "
                    f"{name}={arguments[name]!r}"
                )
