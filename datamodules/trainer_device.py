"""The device of a trainer, as far as it can generate samples."""

import torch
from lightning import Trainer


def trainer_device(trainer: Trainer | None) -> torch.device | None:
    """Return the device on which a trainer's process generates samples; None without a trainer.

    Generation needs 64-bit integers and floats, which accelerators other than CUDA lack. Beside
    them the CPU generates.

    Example:
        >>> trainer_device(Trainer(accelerator="cpu", logger=False))
        device(type='cpu')
    """
    if trainer is None:
        return None
    device = trainer.strategy.root_device
    return device if device.type in ("cpu", "cuda") else torch.device("cpu")
