"""Chooses the device that computes."""

import torch

from spinlock.errors import ConfigurationError

# Number of this process among those that share the GPUs of a machine.
_turn: int | None = None


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
    # Asking for the current device would initialize CUDA, which is impossible in a forked process,
    # and useless: before that, the current device is the first one.
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    index = chosen.index
    if chosen == torch.device("cuda"):
        index = torch.cuda.current_device() if initialized else 0
    if index >= count:
        raise ConfigurationError(
            f"device: got {device}, but this process sees {count} CUDA device(s); choose "
            f"{_choices(count)}"
        )
    return torch.device("cuda", index)


def take_turn(number: int) -> None:
    """Number this process among those that share the GPUs of a machine; see `use_gpu_of_turn`."""
    global _turn
    _turn = number


def use_gpu_of_turn(device: str | torch.device | None) -> None:
    """Make the GPU of this process's turn the current one of this thread, if it has a turn.

    Args:
        device: Device that was asked for. A CPU or a GPU with a number needs no choice, and CUDA is
            then not initialized.
    """
    if _turn is None or not (device is None or str(device) == "cuda"):
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(_turn % torch.cuda.device_count())


def _choices(count: int) -> str:
    """Name the devices of this process in a sentence."""
    if not count:
        return "cpu"
    return "cpu or cuda:0" if count == 1 else f"cpu or cuda:0 to cuda:{count - 1}"
