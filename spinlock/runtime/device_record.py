"""Describes a device by what decides the rounding of its results."""

import platform
import re
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# On ARM the kernel gives numbers instead of a name.
_CPU_KEYS = ("model name", "CPU implementer", "CPU part")
#: Text of what the system does not reveal.
UNKNOWN = "unknown"


def device_record(device: torch.device) -> dict[str, str]:
    """Return texts that identify a device and the software that computes on it.

    Args:
        device: CPU or CUDA device.

    Returns:
        ``type`` and ``name``, and what else decides which kernels run: of a CPU its model (the
        instruction set is part of the name); of a CUDA device its compute capability, number of
        multiprocessors and memory, and the versions of the CUDA runtime, of cuDNN and of the
        driver. What the system does not reveal is "unknown".

    Example:
        >>> sorted(device_record(torch.device("cpu")))
        ['model', 'name', 'type']
    """
    if device.type != "cuda":
        name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        return {"type": device.type, "name": name, "model": _cpu_model()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": device.type,
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": str(properties.multi_processor_count),
        "memory": f"{properties.total_memory / 1e9:.0f} GB",
        "cuda": torch.version.cuda or UNKNOWN,
        "cudnn": str(torch.backends.cudnn.version() or UNKNOWN),  # type: ignore[no-untyped-call]
        "driver": _driver_version(),
    }


def _cpu_model() -> str:
    """Return the name of the processor's model."""
    values: dict[str, str] = {}
    for line in _lines(_CPU_INFO):
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    found = [values[key] for key in _CPU_KEYS if values.get(key)]
    return _plain(" ".join(found) or platform.processor())


def _driver_version() -> str:
    """Return the version of the NVIDIA kernel module."""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", "".join(_lines(_NVIDIA_DRIVER)[:1]))
    return found.group() if found else UNKNOWN


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _plain(text: str) -> str:
    """Return printable text in a single line, as readers of files demand."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable()) or UNKNOWN
