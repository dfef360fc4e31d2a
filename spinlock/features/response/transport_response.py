"""Computes what a step does apart from moving and smoothing the field.

The displacement and the diffusion of a step are measured and applied to its input u'. The result v
is compared with the output w', as other response features compare u' with w'. Of these features,
two depend on the operator rather than on the initial condition if the operator moves fields: the
projection of w' on v, and the gain to the innovation in the highest octave. Smooth fields have no
power there, so that of the output comes from the operator.
"""

import math

import torch
from torch import Tensor

from spinlock.features.response.band_gains import band_gains
from spinlock.features.response.displacement import displacement_of_spectra
from spinlock.features.response.linear_response import linear_response
from spinlock.features.response.response_names import TRANSPORT_NAMES
from spinlock.features.response.step_spectra import StepSpectra, filtered


def transport_columns(
    spectra: StepSpectra, noise: Tensor, total_noise: Tensor
) -> dict[str, Tensor]:
    """Compute the transport columns of steps; name of the column -> float64 [B].

    Args:
        spectra: Transforms and moments of B steps.
        noise: Power of the noise in w without its channel means, float64 [B].
        total_noise: Power of the noise in w with its channel means, float64 [B].
    """
    x, y, diffusion = displacement_of_spectra(spectra).double().unbind(-1)
    height, width = spectra.grid
    kind = {"dtype": torch.float64, "device": x.device}
    # A negative diffusion is an error of measurement, which the filter would amplify.
    rows = _factors(torch.fft.fftfreq(height, **kind), diffusion.clamp(min=0), y)
    columns = _factors(torch.fft.rfftfreq(width, **kind), diffusion.clamp(min=0), x)
    moved = filtered(spectra, rows[:, :, None] * columns[:, None])
    linear = linear_response(moved, noise, total_noise)
    innovation = band_gains(moved, linear)["band_gain_4"]
    return dict(zip(TRANSPORT_NAMES, (x, y, diffusion, linear.beta, innovation), strict=True))


def _factors(frequency: Tensor, diffusion: Tensor, shift: Tensor) -> Tensor:
    """Compute exp(−D k² − i k s) of the modes of one axis.

    The factor of a Nyquist frequency is real, as that of `spinlock.simulation.transport_flow`.

    Args:
        frequency: Frequencies in cycles per pixel, float64 [n].
        diffusion: Diffusion D in pixels² per step, float64 [B].
        shift: Displacement s along the axis in pixels, float64 [B].

    Returns:
        Factors, complex128 [B, n].
    """
    k = 2 * math.pi * frequency
    phase = k * shift[:, None]
    sine = torch.where(frequency.abs() == 0.5, 0.0, -phase.sin())
    return torch.complex(phase.cos(), sine) * (-diffusion[:, None] * k.square()).exp()
