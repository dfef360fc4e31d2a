"""Records what computed the samples of a file, as JSON for its root attributes."""

import dataclasses
import json
from functools import cache
from importlib.metadata import version

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.features import FEATURES, CustomFeatures
from spinlock.features.response import RESPONSE_FEATURES
from spinlock.runtime.device_record import device_record
from spinlock.simulation.kernel_check import computes_together

# The packages whose versions may change a sample's bytes.
_PACKAGES = ("spinlock", "torch", "numpy", "scipy", "h5py", "isal")


def provenance(config: GenerationConfig, device: torch.device) -> dict[str, str]:
    """Return the root attributes ``package_versions``, ``device`` and ``features``.

    Args:
        config: Configuration of the dataset.
        device: Device that computes the samples.

    Returns:
        Attribute name -> JSON list: the versions of the packages, the device (see
        `spinlock.runtime.device_record`), and the registry row of every feature (name, formula,
        unit, range, ...), custom ones last.
    """
    rows = [*FEATURES, *(RESPONSE_FEATURES if config.responses else ())]
    rows += CustomFeatures(config.features, config.trusted_modules).rows
    return {
        "package_versions": json.dumps([_versions()]),
        "device": json.dumps([_device(config, device)]),
        "features": json.dumps([dataclasses.asdict(row) for row in rows]),
    }


@cache
def _versions() -> dict[str, str]:
    """Return the versions of the packages, which take 13 ms to find."""
    return {package: version(package) for package in _PACKAGES}


def _device(config: GenerationConfig, device: torch.device) -> dict[str, str]:
    """Return the record of a device, of CUDA devices with what applies the operators."""
    record = device_record(device)
    if device.type == "cuda":
        together = computes_together(config, device)
        record["operators"] = f"triton {version('triton')}" if together else "torch"
    return record
