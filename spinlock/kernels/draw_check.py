"""Compares the random numbers of a CUDA device with those of the CPU, once in a process."""

import warnings
from functools import cache
from textwrap import shorten

import torch

from spinlock.kernels.random_draws import DISTRIBUTIONS, draw_numbers
from spinlock.kernels.triton_support import triton_available

_SEED, _COUNT = 2**63 + 1, 4099
_ADDRESSES = ((0, 0), (2**40, 5 << 16))
# Logarithms, sines and cosines of normal numbers may differ in the last bits, nothing else may.
_ALLOWED = {"uniform": 0.0, "symmetric_uniform": 0.0, "normal": 1e-5}


@cache
def draws_agree(device: torch.device) -> bool:
    """Return whether a device has a kernel of random numbers that agrees with the CPU.

    The first call for a device waits for it. If the kernel exists but does not agree, or fails, a
    warning says so.

    Args:
        device: CUDA device with its number.

    Returns:
        Whether `draw_numbers` may be used on the device; False without Triton.
    """
    if not triton_available():
        return False
    try:
        differences = {name: _difference(name, device) for name in DISTRIBUTIONS}
        # A comparison with NaN is false.
        if all(differences[name] <= _ALLOWED[name] for name in DISTRIBUTIONS):
            return True
        reason = f"differs from the CPU's numbers by {differences}"
    except torch.OutOfMemoryError:
        # Later, there may be room.
        raise
    except Exception as error:  # A compiler may fail in any way.
        reason = f"fails: {type(error).__name__}: {shorten(str(error), 200)}"
    warnings.warn(
        f"on {device}, the kernel of random numbers {reason}. The CPU draws the numbers instead, "
        "which is slower; the samples are the same up to rounding. Please report this with your "
        "versions of torch, Triton and the driver",
        stacklevel=2,
    )
    return False


def _difference(distribution: str, device: torch.device) -> float:
    addresses = torch.tensor(_ADDRESSES, dtype=torch.int64, device="cpu")
    plain = draw_numbers(addresses, _SEED, 1, _COUNT, distribution)
    own = draw_numbers(addresses.to(device), _SEED, 1, _COUNT, distribution).cpu()
    return float((own - plain).abs().amax())
