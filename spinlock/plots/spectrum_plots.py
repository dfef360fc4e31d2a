"""Plots of the radial power spectra of initial conditions."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spinlock.features.fourier_bins import BAND_EDGES
from spinlock.plots.plot_style import label_colors, new_plot
from spinlock.simulation.initial_conditions import BandLimited

# Power below this is float32 rounding.
_FLOOR = 1e-16


def radial_spectrum(
    fields: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean power of the Fourier modes at each wavenumber, in whole cycles per domain.

    Args:
        fields: (..., H, H) fields; the power is averaged over all of them.

    Returns:
        Frequencies in cycles per pixel, and the mean of ``|DFT|^2 / H^2`` over the modes of each.
        White noise of variance v has power v at every frequency (Percival & Walden 1993).
    """
    size = fields.shape[-1]
    planes = fields.reshape(-1, size, size).astype(np.float64)
    power = np.mean([np.abs(np.fft.fft2(plane)) ** 2 for plane in planes], axis=0) / size**2
    wave = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(wave[:, None], wave).round().astype(np.int64).ravel()
    count = np.bincount(radius)
    mean = np.bincount(radius, weights=power.ravel()) / np.maximum(count, 1)
    # The constant mode is left out; the corners beyond the Nyquist frequency are included.
    return np.arange(1, len(mean)) / size, mean[1:]


def radial_spectra(samples: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Plot radial power spectra by variant, and the passbands of band-limited variants.

    Args:
        samples: (n, C, H, H) initial conditions, by variant.
    """
    plot = new_plot(7.6, 4.2)
    axes = plot.subplots()
    for tint, (band, (low, high)) in zip(
        ("#7aa6d8", "#79b791", "#d8a27a"), BandLimited.PASSBANDS.items(), strict=True
    ):
        axes.axvspan(low, high, color=tint, alpha=0.22, label=f"passband {band}", lw=0)
    # Every second edge separates the low, mid and high frequencies of the features.
    for edge in BAND_EDGES[1::2]:
        axes.axvline(edge, color="gray", ls=":", lw=1)
    for name, color in label_colors(list(samples)).items():
        frequency, power = radial_spectrum(samples[name])
        axes.loglog(frequency, np.maximum(power, _FLOOR), color=color, lw=1.4, label=name)
    axes.set_xlabel("frequency (cycles/pixel)")
    axes.set_ylabel("power per mode (u²; white noise: its variance)")
    axes.set_title("Radial power spectra of initial conditions\ndotted: cutoffs 1/16 and 1/4")
    axes.grid(visible=True, which="major", lw=0.5)
    plot.legend(loc="outside right upper")
    return plot
