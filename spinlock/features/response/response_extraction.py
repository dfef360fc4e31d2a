"""Extracts response features: what the steps of a trajectory do to the field."""

from typing import NamedTuple

import torch
from torch import Tensor

from spinlock.features.batches import check_fields, chunk_pixels, in_chunks
from spinlock.features.response.band_gains import band_gains
from spinlock.features.response.linear_response import (
    linear_columns,
    linear_response,
    mean_columns,
)
from spinlock.features.response.local_stencil import stencil_column
from spinlock.features.response.noise_response import (
    divergence_columns,
    noise_columns,
    spread,
    spread_and_energy,
)
from spinlock.features.response.response_names import TRANSPORT_NAMES, response_names
from spinlock.features.response.step_spectra import StepSpectra, step_spectra
from spinlock.features.response.transport_response import transport_columns

# Pixels processed at once on a CPU: four samples of the baseline, which need about 50 MB.
_CPU_CHUNK = 2**20


class ResponseFeatures(NamedTuple):
    """Response features of a batch of samples; all arrays are float32.

    `response_names`, `TRANSPORT_NAMES`, `NOISE_NAMES` and `divergence_names` name the columns.

    Attributes:
        per_timestep: Features of each step, averaged over realizations, [N, T, 13 + C].
        transport: Features of the transport in each step, averaged in the same way, [N, T, 5].
        noise: Features of the spread of realizations at the first timestep, [N, 6]; NaN at M = 1.
        divergence: Growth of the spread from timestep to timestep and its relative size at the
            end, [N, T], or [N, 0] at T = 1; NaN at M = 1.

    Example:
        >>> import torch
        >>> from spinlock.features.response import extract_responses
        >>> extract_responses(torch.randn(2, 3, 16, 16), torch.randn(2, 5, 1, 3, 16, 16))._fields
        ('per_timestep', 'transport', 'noise', 'divergence')
    """

    per_timestep: Tensor
    transport: Tensor
    noise: Tensor
    divergence: Tensor


def extract_responses(initial: Tensor, fields: Tensor) -> ResponseFeatures:
    """Extract the response features of samples.

    The first step leads from the initial condition to the mean of u_1 over realizations. The spread
    of the realizations gives the power of the noise that this mean still contains, which is
    subtracted. Later steps are evaluated for each realization, and their features are averaged.
    Fields and their transforms are float32; products of transforms are summed in float64.

    Args:
        initial: Initial conditions u_0, floating point [N, C, H, W].
        fields: Trajectories u_1 … u_T, floating point [N, M, T, C, H, W], on a periodic grid of at
            least 8×8 pixels. They must be finite; this is not checked.

    Returns:
        Features on the device of the fields, without gradients.

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If the fields have another shape, or the two do not belong together.

    Example:
        >>> import torch
        >>> from spinlock.features.response import extract_responses
        >>> features = extract_responses(torch.randn(2, 3, 16, 16), torch.randn(2, 5, 4, 3, 16, 16))
        >>> features.per_timestep.shape, features.transport.shape, features.divergence.shape
        (torch.Size([2, 4, 16]), torch.Size([2, 4, 5]), torch.Size([2, 4]))
    """
    check_fields(initial, ("N", "C", "H", "W"))
    check_fields(fields, ("N", "M", "T", "C", "H", "W"))
    expected = (len(fields), *fields.shape[3:])
    if tuple(initial.shape) != expected:
        raise ValueError(
            f"initial conditions of shape {tuple(initial.shape)} and fields of shape "
            f"{tuple(fields.shape)}: the initial conditions must have shape {expected}; pass those "
            "of the same samples"
        )
    if initial.device != fields.device:
        raise ValueError(
            f"initial conditions on {initial.device} and fields on {fields.device}: move both to "
            "one device"
        )
    # Each operation is faster in inference mode. The conversions after it make ordinary tensors.
    with torch.inference_mode():
        first, noise = _first_steps(initial, fields[:, :, 0])
        steps = torch.cat((first[:, None], _later_steps(fields)), dim=1).float()
        divergence = _divergence(fields)
    per_timestep = steps[..., : -len(TRANSPORT_NAMES)].contiguous()
    transport = steps[..., -len(TRANSPORT_NAMES) :].contiguous()
    return ResponseFeatures(per_timestep, transport, noise.float(), divergence.float())


def _first_steps(initial: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
    """Compute features of the first step and its noise.

    Args:
        initial: Initial conditions [N, C, H, W].
        fields: Realizations of u_1, [N, M, C, H, W].

    Returns:
        Columns of the step, float64 [N, 18 + C], and of the noise, float64 [N, 6].
    """
    size = max(1, _chunk(fields) // fields[0].numel())
    count = fields.shape[1]
    pieces = []
    for start in range(0, len(fields), size):
        rows = slice(start, start + size)
        realizations = spread(fields[rows].float())
        spectra = step_spectra(initial[rows].float(), realizations.mean)
        columns = _step_columns(spectra, realizations.power / count, realizations.total / count)
        energy = spectra.w_power + spectra.w_means.square().mean(-1)
        pieces.append((columns, noise_columns(realizations, energy)))
    first, noise = zip(*pieces, strict=True)
    return torch.cat(first), torch.cat(noise)


def _later_steps(fields: Tensor) -> Tensor:
    """Compute features of the steps after the first, float64 [N, T − 1, 18 + C]."""
    samples, realizations, steps, channels = fields.shape[:4]
    if steps == 1:
        count = len(response_names(channels)) + len(TRANSPORT_NAMES)
        return fields.new_empty(samples, 0, count, dtype=torch.float64)
    # Pairs of neighboring timesteps, [N, M, T − 1, 2, C, H, W]; no copy.
    pairs = fields.unfold(2, 2, 1).movedim(-1, 3)

    def features(pair: Tensor) -> Tensor:
        u, w = pair.float().unbind(1)
        silent = torch.zeros(len(pair), dtype=torch.float64, device=pair.device)
        return _step_columns(step_spectra(u, w), silent, silent)

    columns = in_chunks(pairs, 4, features, pixels=_chunk(fields))
    return columns.reshape(samples, realizations, steps - 1, -1).mean(1)


def _divergence(fields: Tensor) -> Tensor:
    """Compute the divergence columns, float64 [N, T], or [N, 0] at T = 1."""
    samples, realizations, steps = fields.shape[:3]
    if steps == 1:
        return fields.new_empty(samples, 0, dtype=torch.float64)
    rows = fields.transpose(1, 2)
    values = in_chunks(
        rows, 4, lambda chunk: spread_and_energy(chunk.float()), pixels=_chunk(fields)
    )
    totals, energies = values.reshape(samples, steps, 2).unbind(-1)
    return divergence_columns(totals, energies[:, -1], realizations)


def _step_columns(spectra: StepSpectra, noise: Tensor, total_noise: Tensor) -> Tensor:
    """Compute the columns of `response_names` and `TRANSPORT_NAMES`, float64 [B, 18 + C]."""
    linear = linear_response(spectra, noise, total_noise)
    values = {
        **linear_columns(spectra, linear),
        **band_gains(spectra, linear),
        **mean_columns(spectra, linear),
        **stencil_column(spectra, linear),
        **transport_columns(spectra, noise, total_noise),
    }
    names = (*response_names(spectra.channels), *TRANSPORT_NAMES)
    return torch.stack([values[name] for name in names], dim=-1)


def _chunk(fields: Tensor) -> int:
    """Return the number of pixels to process at once on the device of the fields."""
    return _CPU_CHUNK if fields.device.type == "cpu" else chunk_pixels(fields)
