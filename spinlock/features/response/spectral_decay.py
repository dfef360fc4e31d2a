"""Measures the diffusion between two fields by the decay of their spectra with |k|.

The heat kernel multiplies a mode of wavevector k (radians per pixel) by exp(−D |k|²). The spectra
are summed over rings of |k|, and two lines are fitted to the sums by weighted least squares. Both
have the same D:

- The gain. Let X be the cross-spectrum of u and w, aligned by their displacement, and S_u the power
  of u. Then ln(Re X / S_u) = c − D |k|². The weight of a ring is the inverse variance of the
  logarithm, (1 − ρ²)/(2ρ²) (1/n + s) + τ² [1]_. Here ρ is the coherence and n the number of modes
  that have power; s and τ allow for a response that is not exactly a heat kernel.
- The tail. Nonlinearities and noise add power to w that is incoherent with u, also at scales that u
  lacks. Without the heat kernel it would fall roughly as a power of k, so half its logarithm is
  c' + a ln k − D k². This line determines D if u has few wavelengths, or only long ones.

A prior of D with mean 0 and a standard deviation of 1 pixel² per step makes the result 0 if neither
line has enough rings.

.. [1] J. S. Bendat, A. G. Piersol, "Random data", 4th ed., section 9.2.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Rings are one fundamental frequency wide up to this radius and widen in proportion to it beyond.
_EVEN_RINGS = 16
# Variances s and τ² of the gain.
_SPREAD = 0.2
_VARIANCE = 0.003
# Weight of a ring times the side of the grid: larger grids have more rings, but their errors are
# not independent.
_RING_WEIGHT = 24.0
# Rings whose ρ² is within this many standard errors of 0 do not count.
_SIGNIFICANCE = 2.0
# Smallest share of the power of u in a ring that counts; less is rounding or leakage.
_MIN_SHARE = 1e-8
# First frequency of the tail (cycles/pixel); below it, the power of u shapes that of w.
_TAIL_START = 1 / 8
# Weight of the tail for each radian per pixel, because neighboring rings share their errors.
_TAIL_WEIGHT = 10.0
# The tail ends where less than this fraction of the mean power of w is left in a mode, or less than
# this fraction of the ring's power is incoherent: the rest is rounding error of float32 fields.
_TAIL_FLOOR = 1e-11
_MIN_INCOHERENCE = 1e-6
# Inverse variance of the prior of D, in steps² per pixel⁴.
_PRIOR = 1.0
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class _Rings:
    """Rings of |k|.

    Attributes:
        number: Ring of each mode of the half plane, int64 [H · (W // 2 + 1)].
        weights: Numbers of modes of the full plane that modes stand for, and these times |k|²,
            float64 [2, H · (W // 2 + 1)].
        counts: Numbers of modes of the full plane in each ring, float64 [R].
        k: Wavenumbers of the rings, float64 [R].
        tail: Weight of each ring in the tail, 0 outside of it, float64 [R].
    """

    number: Tensor
    weights: Tensor
    counts: Tensor
    k: Tensor
    tail: Tensor


def mode_weights(height: int, width: int) -> Tensor:
    """Return how many modes of the full plane each mode of the half plane stands for.

    The mean and Nyquist frequencies have weight 0, since they are real: their phase has no sign.

    Args:
        height: Number of rows of the grid.
        width: Number of columns of the grid.

    Returns:
        Weights, float64 [H, W // 2 + 1], on the CPU.

    Example:
        >>> from spinlock.features.response.spectral_decay import mode_weights
        >>> mode_weights(4, 4).int().tolist()
        [[0, 2, 0], [1, 2, 0], [0, 0, 0], [1, 2, 0]]
    """
    weights = torch.full((height, width // 2 + 1), 2.0, dtype=torch.float64, device="cpu")
    weights[:, 0] = 1.0
    weights[0, 0] = 0.0
    if height % 2 == 0:
        weights[height // 2] = 0.0
    if width % 2 == 0:
        weights[:, width // 2] = 0.0
    return weights


@lru_cache(maxsize=16)
def _rings(height: int, width: int, device: torch.device) -> _Rings:
    """Return the rings of a grid on a device, computed in float64."""
    side = min(height, width)
    fy = torch.fft.fftfreq(height, dtype=torch.float64, device="cpu")[:, None]
    fx = torch.fft.rfftfreq(width, dtype=torch.float64, device="cpu")
    squared = fy.square() + fx.square()
    radius = squared.sqrt() * side
    stretched = _EVEN_RINGS * (1 + (radius / _EVEN_RINGS).clamp(min=1.0).log())
    ring = torch.where(radius < _EVEN_RINGS, radius, stretched).round().long().flatten()
    weight = mode_weights(height, width).flatten()
    counts = ring.bincount(weight)
    number = torch.arange(len(counts), dtype=torch.float64, device="cpu").clamp(min=1.0)
    growth = (number / _EVEN_RINGS - 1).clamp(min=0).exp()
    # In fundamental frequencies, like the radius.
    center = number.clamp(max=_EVEN_RINGS) * growth
    in_tail = (center >= _TAIL_START * side) & (2 * center < side)
    k = 2 * math.pi / side * center
    return _Rings(
        number=ring.to(device),
        weights=torch.stack((weight, weight * (2 * math.pi) ** 2 * squared.flatten())).to(device),
        counts=counts.to(device),
        k=k.to(device),
        tail=(in_tail * growth * (_TAIL_WEIGHT * 2 * math.pi / side)).to(device),
    )


def spectral_decay(
    aligned: Tensor, u_power: Tensor, w_power: Tensor, size: tuple[int, int]
) -> Tensor:
    """Fit the diffusion D to spectra of two fields.

    Args:
        aligned: Real part of the cross-spectrum after alignment, float64 [B, H, W // 2 + 1].
        u_power: Power of u, in units in which its sum over the plane is 1, of the same shape.
        w_power: Power of w, scaled in the same way, of the same shape. The cross-spectrum is in the
            geometric mean of the two units.
        size: Height H and width W of the grid.

    Returns:
        Diffusion in pixels² per step, float64 [B]; 0 for fields without power.

    Example:
        >>> import torch
        >>> from spinlock.features.response.spectral_decay import spectral_decay
        >>> white = torch.full((1, 32, 17), 1 / 1024, dtype=torch.float64)
        >>> spectral_decay(white, white, white, (32, 32)).abs() < 1e-6
        tensor([True])
    """
    rings = _rings(*size, u_power.device)
    weight, squared = rings.weights
    aligned, u_power, w_power = (x.flatten(1) for x in (aligned, u_power, w_power))
    weighted = u_power * weight
    spectra = (aligned * weight, weighted, w_power * weight, weighted * u_power, u_power * squared)
    sums = u_power.new_zeros(len(u_power), len(spectra), len(rings.k))
    cross, of_u, of_w, fourth, squares = sums.index_add_(
        2, rings.number, torch.stack(spectra, dim=1)
    ).unbind(1)
    gain = [_RING_WEIGHT / min(size) * x for x in _gain_line(cross, of_u, of_w, fourth, squares)]
    tail = _tail_line(cross, of_u, of_w, rings)
    return (gain[0] + tail[0]) / (gain[1] + tail[1] + _PRIOR)


def _gain_line(
    cross: Tensor, of_u: Tensor, of_w: Tensor, fourth: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit the decay of the gain.

    Args:
        cross: Sums of the aligned cross-spectrum over rings, float64 [B, R].
        of_u: Sums of the power of u, [B, R].
        of_w: Sums of the power of w, [B, R].
        fourth: Sums of the squared power of u, [B, R].
        squares: Sums of the power of u times |k|², [B, R].

    Returns:
        D times its inverse variance, and the inverse variance, float64 [B] each.
    """
    coherence = cross.clamp(min=0).square() / (of_u * of_w).clamp(min=_TINY)
    coherence = coherence.clamp(min=1e-6, max=1.0)
    noise = (1 - coherence) / (2 * coherence)
    # Half the sum, because k and −k are one mode.
    modes = (of_u.square() / (2 * fourth).clamp(min=_TINY)).clamp(min=0.5)
    significant = (1 - _SIGNIFICANCE * noise / modes).clamp(min=0)
    weight = significant / (noise * (1 / modes + _SPREAD) + _VARIANCE)
    weight = torch.where((of_u > _MIN_SHARE) & (cross > 0), weight, 0.0)
    logarithm = (cross.clamp(min=_TINY) / of_u.clamp(min=_TINY)).log()
    k_squared = _centered(squares / of_u.clamp(min=_TINY), weight)
    return -(weight * k_squared * logarithm).sum(-1), (weight * k_squared.square()).sum(-1)


def _tail_line(cross: Tensor, of_u: Tensor, of_w: Tensor, rings: _Rings) -> tuple[Tensor, Tensor]:
    """Fit the decay of the incoherent power; arguments and result are like those of the gain."""
    incoherent = (of_w - cross.square() / of_u.clamp(min=_TINY)).clamp(min=0)
    mean = incoherent / rings.counts.clamp(min=1.0)
    floor = _TAIL_FLOOR / rings.counts.sum().clamp(min=1.0)
    measurable = (mean > floor) & (incoherent > _MIN_INCOHERENCE * of_w)
    # Rings count up to the first one that is not measurable.
    weight = torch.where(rings.tail > 0, measurable.double(), 1.0).cumprod(-1) * rings.tail
    # Without power in u there is no step whose diffusion could be measured.
    weight = weight * (of_u.sum(-1, keepdim=True) > 0)
    logarithm = 0.5 * mean.clamp(min=_TINY).log()
    log_k, k_squared = _centered(rings.k.log(), weight), _centered(rings.k.square(), weight)
    slope = (weight * log_k * k_squared).sum(-1) / (weight * log_k.square()).sum(-1).clamp(
        min=_TINY
    )
    rest = k_squared - slope[:, None] * log_k
    return -(weight * rest * logarithm).sum(-1), (weight * rest.square()).sum(-1)


def _centered(x: Tensor, weight: Tensor) -> Tensor:
    """Subtract the weighted mean over rings."""
    return x - (weight * x).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=_TINY)
