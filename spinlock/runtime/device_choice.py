"""Chooses the device that computes."""

import torch

from spinlock.errors import ConfigurationError


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the given device; by default the current CUDA device, or the CPU if there is none.

    Args:
        device: Device or its name; default: chosen automatically.

    Raises:
        ConfigurationError: If the device is unavailable, or is neither a CPU nor a CUDA device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    available = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(available if device is None else device)
    except RuntimeError as error:
        raise ConfigurationError(f"device: torch knows no device {device!r}") from error
    if chosen.type not in ("cpu", available):
        raise ConfigurationError(
            f"device: got {device}; this machine computes on cpu"
            + (", cuda" if available == "cuda" else "")
        )
    return chosen
