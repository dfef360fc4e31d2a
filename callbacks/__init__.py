"""Callbacks that monitor what a codebook learns, check the data, and write tokens.

They work with any model and any data that keep the contract of :mod:`spinlock.contract`.
"""

from spinlock.callbacks.codebook_usage import CodebookUsage
from spinlock.callbacks.dataset_report import DatasetReport
from spinlock.callbacks.finite_check import FiniteCheck
from spinlock.callbacks.ic_mutual_information import ICMutualInformation
from spinlock.callbacks.operator_consistency import OperatorConsistency
from spinlock.callbacks.reconstruction_by_group import ReconstructionByGroup
from spinlock.callbacks.token_transfer import TokenTransfer
from spinlock.callbacks.token_writer import TokenWriter
from spinlock.contract import ContractError

__all__ = [
    "CodebookUsage",
    "ContractError",
    "DatasetReport",
    "FiniteCheck",
    "ICMutualInformation",
    "OperatorConsistency",
    "ReconstructionByGroup",
    "TokenTransfer",
    "TokenWriter",
]
