"""Computes the trajectories of a block in parts where the memory of a device is too small.

Initial conditions and features of a block are batched, and their rounding depends on the size of
the batch. Trajectories are computed one sample at a time, so that any number of them may be on the
device at once without changing a byte; those that do not fit wait in the memory of the host.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from spinlock.errors import SimulationError

_LOG = logging.getLogger(__name__)
#: Number of samples at once that fitted, by device and shape of a trajectory.
_FITTING: dict[tuple[torch.device, tuple[int, ...]], int] = {}

# Fills a tensor with the trajectories of samples, and returns measurements of their operators.
_Compute = Callable[[range, Tensor], list[Tensor]]


def compute_trajectories(
    shape: tuple[int, ...], rows: range, first: int, device: torch.device, compute: _Compute
) -> tuple[Tensor, list[Tensor]]:
    """Compute trajectories of a block; if memory does not suffice, of half as many samples at once.

    A process remembers the number that fitted.

    Args:
        shape: Shape of the trajectories of the whole block, (n, M, T, C, H, W).
        rows: Rows of the block that are wanted; the others are zero in the result.
        first: Index of the sample of row 0, for messages.
        device: Device of the result.
        compute: Function that fills a tensor (len(rows), M, T, C, H, W) with the trajectories of
            given rows, and returns a list of measurements.

    Returns:
        Trajectories, float32 of the given shape, and all measurements in order.

    Raises:
        SimulationError: If a single sample does not fit. Names the sample.
    """
    key = device, shape[1:]
    parts: list[tuple[range, Tensor]] = []
    measured: list[Tensor] = []
    position = rows.start
    while position < rows.stop:
        count = min(_FITTING.get(key, len(rows)), rows.stop - position)
        part = range(position, position + count)
        found = _attempt(shape, rows, part, device, compute)
        # Outside of the handler, whose traceback would keep tensors alive.
        if isinstance(found, str):
            if count == 1:
                raise SimulationError(
                    f"sample {first + position} does not fit into the memory of {device}: {found}. "
                    "Other programs may use that memory. Less is needed with a smaller grid_size, "
                    "base_channels, num_realizations or num_timesteps, which make another dataset"
                )
            if key not in _FITTING:
                _LOG.warning(
                    "%s is out of memory with %d samples at once; fewer are computed at once from "
                    "here on, with the same results",
                    device,
                    count,
                )
            _FITTING[key] = count // 2
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        trajectories, new = found
        measured += new
        if part == rows:
            return trajectories, measured
        parts.append((part, trajectories))
        position = part.stop
    whole = torch.zeros(shape, dtype=torch.float32, device=device)
    for part, trajectories in parts:
        whole[part.start : part.stop] = trajectories
    return whole, measured


def _attempt(
    shape: tuple[int, ...], rows: range, part: range, device: torch.device, compute: _Compute
) -> tuple[Tensor, list[Tensor]] | str:
    """Compute some rows, on the host unless they are all; or return why memory does not suffice."""
    count = shape[0] if part == rows else len(part)
    try:
        # The dtype is explicit because the caller may have changed torch's default.
        fields = torch.zeros((count, *shape[1:]), dtype=torch.float32, device=device)
        offset = part.start if part == rows else 0
        measured = compute(part, fields[offset : offset + len(part)])
    except torch.OutOfMemoryError as error:
        return str(error).splitlines()[0] if str(error) else "out of memory"
    return (fields if part == rows else fields.cpu()), measured
