"""Callbacks that watch what a codebook learns and whether the data are sound.

Each works with any model and any data that keep the contract of
:mod:`spinlock.callbacks.contract`.
"""

from spinlock.callbacks.contract import ContractError
from spinlock.callbacks.finite_check import FiniteCheck
from spinlock.callbacks.ic_mutual_information import ICMutualInformation

__all__ = ["ContractError", "FiniteCheck", "ICMutualInformation"]
