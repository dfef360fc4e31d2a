"""Spinlock: datasets of random stochastic neural operators."""

from typing import TYPE_CHECKING

from spinlock.config import GenerationConfig
from spinlock.generation import generate

if TYPE_CHECKING:
    from spinlock.datamodules import SpinlockDataModule

__all__ = ["GenerationConfig", "SpinlockDataModule", "generate"]


def __getattr__(name: str) -> object:
    """Import `SpinlockDataModule` on first use (PEP 562): Lightning takes seconds to import."""
    if name == "SpinlockDataModule":
        from spinlock.datamodules import SpinlockDataModule

        return SpinlockDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
