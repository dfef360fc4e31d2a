"""Chooses the device that computes."""

import torch

from spinlock.errors import ConfigurationError


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the given device; by default the current CUDA device, or the CPU if there is none.

    Args:
        device: Device or its name; default: chosen automatically. ``cuda`` without a number is the
            current CUDA device.

    Returns:
        The device; a CUDA device with its number, because the current device of another thread may
        be another one.

    Raises:
        ConfigurationError: If the device does not exist, or is neither a CPU nor a CUDA device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        device = "cuda" if count else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"device: torch knows no device {device!r}; choose {_choices(count)}"
        ) from error
    if chosen.type == "cpu":
        return chosen
    if chosen.type != "cuda":
        raise ConfigurationError(
            f"device: got {device}, but only CPUs and CUDA devices can compute samples; choose "
            f"{_choices(count)}"
        )
    if not count:
        reason = (
            f"torch {torch.__version__} was built without CUDA; install a build with CUDA"
            if torch.version.cuda is None
            else "torch finds no CUDA device; see `nvidia-smi` and CUDA_VISIBLE_DEVICES"
        )
        raise ConfigurationError(f"device: got {device}, but {reason}, or choose cpu")
    # Not initialized in a forked process, which cannot ask for the current device.
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    current = torch.cuda.current_device() if initialized else 0
    index = chosen.index if ":" in str(chosen) else current
    if index >= count:
        raise ConfigurationError(
            f"device: got {device}, but this process sees {count} CUDA device(s); choose "
            f"{_choices(count)}"
        )
    return torch.device("cuda", index)


def _choices(count: int) -> str:
    """Name the devices of this process in a sentence."""
    if not count:
        return "cpu"
    return "cpu or cuda:0" if count == 1 else f"cpu or cuda:0 to cuda:{count - 1}"
