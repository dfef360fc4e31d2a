"""Computes how much of a step is a multiple of the field, and what it adds to the means.

The output w' is split into β·u', its projection on the input, and the innovation e = w' − β·u',
which is orthogonal to it (least squares). The symbols are those of `response_names`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spinlock.features.response.step_spectra import (
    ABSOLUTE_FLOOR,
    RELATIVE_FLOOR,
    StepSpectra,
)

# The subtraction of the noise leaves at least this share of the noise's power.
_NOISE_REMAINDER = 0.01


@dataclass(frozen=True, eq=False)
class LinearResponse:
    """Projection of the output of steps on their input; all values are float64.

    Attributes:
        beta: Coefficient β = ⟨u'w'⟩/P_u, [B].
        innovation: Power P_e of the innovation, noise included, [B].
        floor: Smallest power φ that can be distinguished from rounding errors, [B].
        noise: Power n of the noise in w', [B]; 0 if it is unknown.
        total_noise: Power of the noise in w, channel means included, [B]; 0 if it is unknown.
    """

    beta: Tensor
    innovation: Tensor
    floor: Tensor
    noise: Tensor
    total_noise: Tensor


def linear_response(spectra: StepSpectra, noise: Tensor, total_noise: Tensor) -> LinearResponse:
    """Project the output of steps on their input.

    Args:
        spectra: Transforms and moments of B steps.
        noise: Power of the noise in w without its channel means, float64 [B].
        total_noise: Power of the noise in w with its channel means, float64 [B].
    """
    of_u, of_w, cross = spectra.u_power, spectra.w_power, spectra.cross_power
    floor = relative_floor(of_u + of_w)
    beta = cross / torch.maximum(of_u, floor)
    innovation = of_w - 2 * beta * cross + beta.square() * of_u
    return LinearResponse(beta, innovation, floor, noise, total_noise)


def linear_columns(spectra: StepSpectra, linear: LinearResponse) -> dict[str, Tensor]:
    """Compute persistence, β, innovation and increment; name of the column -> float64 [B]."""
    of_u, of_w, cross = spectra.u_power, spectra.w_power, spectra.cross_power
    u_mean_power = spectra.u_means.square().mean(-1)
    w_mean_power = spectra.w_means.square().mean(-1)
    floor = linear.floor
    energy = of_u + u_mean_power
    energy_floor = relative_floor(energy + of_w + w_mean_power)
    step_of_means = (spectra.w_means - spectra.u_means).square().mean(-1)
    step = of_w - 2 * cross + of_u + step_of_means
    innovation = denoised(linear.innovation, linear.noise, floor)
    return {
        "persistence": cross / torch.sqrt(torch.maximum(of_u, floor) * torch.maximum(of_w, floor)),
        "beta": linear.beta,
        "innovation": log_ratio(innovation, torch.maximum(of_w, floor)),
        "innovation_abs": 0.5 * innovation.log10(),
        "increment": log_ratio(
            denoised(step, linear.total_noise, energy_floor), torch.maximum(energy, energy_floor)
        ),
    }


def mean_columns(spectra: StepSpectra, linear: LinearResponse) -> dict[str, Tensor]:
    """Compute the columns of channel means; name of the column -> float64 [B]."""
    u_means, w_means = spectra.u_means, spectra.w_means
    w_mean_power = w_means.square().mean(-1)
    energy = spectra.w_power + w_mean_power
    u_energy = spectra.u_power + u_means.square().mean(-1)
    energy = torch.maximum(energy, relative_floor(u_energy + energy))
    amplitude = energy.sqrt()
    added = (w_means - linear.beta[:, None] * u_means) / amplitude[:, None]
    return {
        "mean_out": (w_mean_power / energy).sqrt(),
        "mean_signed": w_means.mean(-1) / amplitude,
        **{f"channel_mean_{channel}": column for channel, column in enumerate(added.unbind(-1))},
    }


def denoised(power: Tensor, noise: Tensor, floor: Tensor) -> Tensor:
    """Subtract the noise's power from a power, leaving at least a hundredth of it and the floor."""
    return torch.maximum(torch.maximum(power - noise, _NOISE_REMAINDER * noise), floor)


def log_ratio(power: Tensor, reference: Tensor) -> Tensor:
    """Compute the decimal logarithm of a ratio of amplitudes from their powers."""
    return 0.5 * (power / reference).log10()


def relative_floor(power: Tensor) -> Tensor:
    """Return the smallest power that can be distinguished from rounding errors of a power."""
    return (RELATIVE_FLOOR * power).clamp(min=ABSOLUTE_FLOOR)
