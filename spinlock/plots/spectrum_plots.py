"""Radial power spectra of initial conditions, with the passbands of band-limited ones."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spinlock.plots.plot_style import label_colors, new_figure
from spinlock.simulation.initial_conditions import BandLimited

#: Cut-offs between low, mid and high frequencies of the features, in cycles per pixel.
BAND_EDGES = (1 / 16, 1 / 4)
# Power below this is float32 rounding.
_FLOOR = 1e-16


def radial_spectrum(
    fields: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power of the Fourier modes of equal wavenumber, rounded to whole cycles per domain.

    Args:
        fields: [..., H, H] fields, over which the power is averaged.

    Returns:
        Frequencies in cycles per pixel, and the mean of |DFT|^2 / H^2 over the modes of each: white
        noise of variance v has the power v everywhere (Percival & Walden 1993).
    """
    size = fields.shape[-1]
    planes = fields.reshape(-1, size, size).astype(np.float64)
    power = np.mean([np.abs(np.fft.fft2(plane)) ** 2 for plane in planes], axis=0) / size**2
    wave = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(wave[:, None], wave).round().astype(np.int64).ravel()
    count = np.bincount(radius)
    mean = np.bincount(radius, weights=power.ravel()) / np.maximum(count, 1)
    # The constant mode is no part of a spectrum; corners beyond Nyquist are.
    return np.arange(1, len(mean)) / size, mean[1:]


def radial_spectra(samples: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Radial power spectra by variant.

    Args:
        samples: Variant -> [n, C, H, H] initial conditions.
    """
    figure = new_figure(7.6, 4.2)
    axis = figure.subplots()
    for tint, (band, (low, high)) in zip(
        ("#7aa6d8", "#79b791", "#d8a27a"), BandLimited.PASSBANDS.items(), strict=True
    ):
        axis.axvspan(low, high, color=tint, alpha=0.22, label=f"passband {band}", lw=0)
    for edge in BAND_EDGES:
        axis.axvline(edge, color="gray", ls=":", lw=1)
    for name, color in label_colors(list(samples)).items():
        frequency, power = radial_spectrum(samples[name])
        axis.loglog(frequency, np.maximum(power, _FLOOR), color=color, lw=1.4, label=name)
    axis.set_xlabel("frequency (cycles/pixel)")
    axis.set_ylabel("power per mode (u²; white noise: its variance)")
    axis.set_title("Radial power spectra of initial conditions\ndotted: cut-offs 1/16 and 1/4")
    axis.grid(visible=True, which="major", lw=0.5)
    figure.legend(loc="outside right upper")
    return figure
