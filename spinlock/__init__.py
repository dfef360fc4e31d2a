"""Spinlock: datasets of random stochastic neural operators.

The public names below are imported when they are first used, so that ``import spinlock`` is fast.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spinlock.checks import check_dataset
    from spinlock.configuration import (
        GenerationConfig,
        IntegerRange,
        ParameterSpaceConfig,
        StorageConfig,
    )
    from spinlock.datamodules import SpinlockDataModule
    from spinlock.generation import generate
    from spinlock.simulation.initial_conditions import InitialCondition
    from spinlock.simulation.operator_family import OperatorFamily
    from spinlock.simulation.randomness import Stream
    from spinlock.storage import read_info

    __version__: str

__all__ = [
    "GenerationConfig",
    "InitialCondition",
    "IntegerRange",
    "OperatorFamily",
    "ParameterSpaceConfig",
    "SpinlockDataModule",
    "StorageConfig",
    "Stream",
    "__version__",
    "check_dataset",
    "generate",
    "read_info",
]

# Public name -> the module that defines it.
_MODULES = {
    "GenerationConfig": "spinlock.configuration",
    "InitialCondition": "spinlock.simulation.initial_conditions",
    "IntegerRange": "spinlock.configuration",
    "OperatorFamily": "spinlock.simulation.operator_family",
    "ParameterSpaceConfig": "spinlock.configuration",
    "SpinlockDataModule": "spinlock.datamodules",
    "StorageConfig": "spinlock.configuration",
    "Stream": "spinlock.simulation.randomness",
    "check_dataset": "spinlock.checks",
    "generate": "spinlock.generation",
    "read_info": "spinlock.storage",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("spinlock")
    if name in _MODULES:
        value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
