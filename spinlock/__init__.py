"""Spinlock: datasets of random stochastic neural operators, and models trained on them.

The public names are imported when they are first used, so ``import spinlock`` is fast.

Example:
    >>> import spinlock
    >>> spinlock.GenerationConfig(num_samples=1000).num_realizations
    5
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spinlock.checks import check_dataset as check_dataset
    from spinlock.configuration import (
        GenerationConfig as GenerationConfig,
        IntegerRange as IntegerRange,
        ParameterSpaceConfig as ParameterSpaceConfig,
        StorageConfig as StorageConfig,
    )
    from spinlock.configuration.parameter_space import ParameterValues as ParameterValues
    from spinlock.datamodules import SpinlockDataModule as SpinlockDataModule
    from spinlock.features import custom_feature as custom_feature
    from spinlock.generation import generate as generate
    from spinlock.simulation.initial_conditions import InitialCondition as InitialCondition
    from spinlock.simulation.operator_family import (
        Operator as Operator,
        OperatorFamily as OperatorFamily,
    )
    from spinlock.simulation.randomness import Stream as Stream
    from spinlock.storage import read_info as read_info

    __version__: str

# Public name -> the module that defines it.
_MODULES = {
    "GenerationConfig": "spinlock.configuration",
    "InitialCondition": "spinlock.simulation.initial_conditions",
    "IntegerRange": "spinlock.configuration",
    "Operator": "spinlock.simulation.operator_family",
    "OperatorFamily": "spinlock.simulation.operator_family",
    "ParameterSpaceConfig": "spinlock.configuration",
    "ParameterValues": "spinlock.configuration.parameter_space",
    "SpinlockDataModule": "spinlock.datamodules",
    "StorageConfig": "spinlock.configuration",
    "Stream": "spinlock.simulation.randomness",
    "check_dataset": "spinlock.checks",
    "custom_feature": "spinlock.features",
    "generate": "spinlock.generation",
    "read_info": "spinlock.storage",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("spinlock")
    if name in _MODULES:
        value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
