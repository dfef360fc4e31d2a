"""Computes the gain from the input to the innovation in each octave of frequency."""

import torch
from torch import Tensor

from spinlock.features.response.linear_response import LinearResponse, log_ratio, relative_floor
from spinlock.features.response.step_spectra import StepSpectra

# An octave with a smaller share of the input's power says nothing about the response there.
_MIN_SHARE = 0.01


def band_gains(spectra: StepSpectra, linear: LinearResponse) -> dict[str, Tensor]:
    """Compute the gains of the five octaves; name of the column -> float64 [B]."""
    beta = linear.beta[:, None]
    of_u = spectra.u_bands
    of_e = spectra.w_bands - 2 * beta * spectra.cross_bands + beta.square() * of_u
    all_u, all_e = of_u.sum(-1, keepdim=True), of_e.sum(-1, keepdim=True)
    pooled = (of_u < _MIN_SHARE * all_u) | spectra.empty_bands
    floor = relative_floor(all_u + all_e)
    gains = log_ratio(
        torch.maximum(torch.where(pooled, all_e, of_e), floor),
        torch.maximum(torch.where(pooled, all_u, of_u), floor),
    )
    return {f"band_gain_{band}": gain for band, gain in enumerate(gains.unbind(-1))}
