"""Computes the 13 temporal features of a trajectory of fields.

A trajectory is first reduced, one block of pixels after the other, to a few time series (energy,
variance, squared steps, power over temporal frequency). Sums over a block are float32; everything
else (logarithms, slopes, correlations) is float64. Time is counted in steps.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spinlock.features.registry import FEATURES
from spinlock.features.spatial import is_flat

_PEAK_TOLERANCE = 1e-3
_DEAD_BAND = 1e-4
_FEATURES = tuple(feature for feature in FEATURES if feature.group == "temporal")


@dataclass(frozen=True, eq=False)
class _Series:
    """Time series of A trajectories of T fields, all float64.

    Attributes:
        variance: Spatial variance V_t of u_t (0 if flat), [A, T].
        energy: Energy E_t = ⟨u_t²⟩, [A, T].
        step: Squared steps ⟨Δ_t²⟩, where Δ_t = u_{t+1} − u_t, [A, T−1].
        turn: Products of successive steps ⟨Δ_t·Δ_{t+1}⟩, [A, T−2].
        residual: Squares ⟨r_t²⟩, where r_t is u_t minus its mean over time, [A, T].
        detrended: Squares ⟨(r_t − τ·b)²⟩, where b is the slope of each pixel, [A, T].
        power: Power ⟨|r̂(ω)|²⟩ of the Fourier transform of r, zero-padded to 2T, [A, T+1].
    """

    variance: Tensor
    energy: Tensor
    step: Tensor
    turn: Tensor
    residual: Tensor
    detrended: Tensor
    power: Tensor


def temporal_of(trajectories: Tensor, pixels: int) -> Tensor:
    """Compute the 13 temporal features of each trajectory.

    Args:
        trajectories: Floating-point trajectories [A, T, H, W].
        pixels: Number of elements to process at once, rounded to whole image rows.

    Returns:
        Features, float32 [A, 13]. NaN where T is below the minimum of the feature.
    """
    count, steps = trajectories.shape[:2]
    undefined = trajectories.new_full((count,), math.nan, dtype=torch.float64)
    values: dict[str, Tensor] = {}
    if steps > 1:
        series = _reduce(trajectories, pixels)
        values = {**_growth(series), **_divergence(series), **_about_the_mean(series)}
    columns = [
        values[feature.name] if steps >= (feature.min_timesteps or 0) else undefined
        for feature in _FEATURES
    ]
    return torch.stack(columns, dim=-1).float()


def _reduce(trajectories: Tensor, pixels: int) -> _Series:
    """Reduce trajectories [A, T, H, W] to time series, one block of image rows at a time."""
    count, steps, height, width = trajectories.shape
    low, high = trajectories.amin((-2, -1)).float(), trajectories.amax((-2, -1)).float()
    mean = trajectories.mean((-2, -1), dtype=torch.float32)
    rows = max(1, pixels // (count * steps * width))
    first, *rest = torch.split(trajectories, rows, dim=2)
    totals = _block_sums(first.flatten(2).float(), mean)
    for block in rest:
        # Small results kept between large temporaries would fragment the heap, so add them now.
        for total, part in zip(totals, _block_sums(block.flatten(2).float(), mean), strict=True):
            total += part
    offset, square, *others = (total / (height * width) for total in totals)
    # `offset` corrects the rounding of the float32 mean that was subtracted.
    variance = torch.where(is_flat(low, high), 0.0, (square - offset.square()).clamp(min=0.0))
    return _Series(variance, *others)


def _block_sums(u: Tensor, mean: Tensor) -> tuple[Tensor, ...]:
    """Compute sums over a block of pixels, float64 [A, ·].

    Args:
        u: Pixels of the block, float32 [A, T, P].
        mean: Mean of each field over all its pixels, float32 [A, T].

    Returns:
        Sums of d and d², where d = u − mean, and then of the members of `_Series` after the first.
    """
    # Operations are in place where possible, because new memory costs more than the arithmetic.
    d = u - mean[..., None]
    offset, square = _sum(d), _sum(d.square_())
    delta = u[:, 1:] - u[:, :-1]
    turn, step = _sum(delta[:, 1:] * delta[:, :-1]), _sum(delta.square_())
    # Subtract the mean twice: where a pixel hardly moves, the rounding of the first mean matters.
    r = u - u.mean(1, keepdim=True)
    r -= r.mean(1, keepdim=True)
    transform = torch.fft.rfft(r.transpose(1, 2), n=2 * u.shape[1])
    power = torch.view_as_real(transform).square_().sum(1)
    # Not a matrix product, because TensorFloat-32 would round it to 10 bits.
    tau = _times(u.shape[1], u).float()[:, None]
    slope = (tau * r).sum(1, keepdim=True) / tau.square().sum()
    detrended = _sum((r - tau * slope).square_())
    energy, residual = _sum(u.square()), _sum(r.square_())
    return offset, square, energy, step, turn, residual, detrended, power.sum(-1).double()


def _sum(values: Tensor) -> Tensor:
    """Sum over the pixels of a block [A, T, P]; the result is float64 [A, T]."""
    return values.sum(-1).double()


def _times(steps: int, like: Tensor) -> Tensor:
    """Return τ = t − (T−1)/2, float64 [T]."""
    return torch.arange(steps, dtype=torch.float64, device=like.device) - (steps - 1) / 2


def _slope(series: Tensor) -> Tensor:
    """Compute the least-squares slope per step of series [A, K]; NaN if K = 1."""
    tau = _times(series.shape[-1], series)
    return (tau * series).sum(-1) / tau.square().sum()


def _log(series: Tensor) -> Tensor:
    """Return the logarithm of series [A, T], floored 120 dB below the maximum of each."""
    floor = (1e-12 * series.amax(-1, keepdim=True)).clamp(min=1e-30)
    return torch.maximum(series, floor).log()


def _growth(series: _Series) -> dict[str, Tensor]:
    """Compute the features of the logarithms of energy and variance."""
    log_energy = _log(series.energy)
    steps = log_energy.shape[-1]
    q = _times(steps, log_energy).square() - (steps**2 - 1) / 12
    return {
        "energy_growth_rate": _slope(log_energy),
        "energy_growth_accel": 2 * (q * log_energy).sum(-1) / q.square().sum(),
        "variance_growth_rate": _slope(_log(series.variance)),
        "regime_switches": _sign_changes(log_energy.diff()) / (steps - 2),
        "final_to_initial_ratio": ((log_energy[:, -1] - log_energy[:, 0]) / 2).exp(),
    }


def _sign_changes(change: Tensor) -> Tensor:
    """Count sign changes along the rows of change [A, K], without entries in the dead band."""
    sign = torch.where(change.abs() > _DEAD_BAND, change.sign(), 0.0)
    position = torch.arange(sign.shape[-1], device=sign.device)
    # Position of the latest entry outside the dead band (0 before the first one).
    latest = torch.where(sign != 0, position, 0).cummax(-1).values
    previous = sign.gather(-1, latest)[:, :-1]
    return (sign[:, 1:] * previous < 0).sum(-1)


def _divergence(series: _Series) -> dict[str, Tensor]:
    """Compute the growth rate of the distance to the copy delayed by a step (Wolf et al. 1985)."""
    scale = series.energy.amax(-1, keepdim=True).sqrt()
    distance = torch.maximum(series.step.sqrt(), 1e-6 * scale).clamp(min=1e-15)
    return {"lyapunov_approx": _slope(distance.log())}


def _about_the_mean(series: _Series) -> dict[str, Tensor]:
    """Compute the features of the motion about the mean over time; fixed values if static."""
    variance = series.residual.mean(-1)
    detrended = series.detrended.mean(-1)
    values = {
        **_oscillation(series.power),
        "autocorr_decay_time": _decay_time(series.power),
        "trajectory_smoothness": _smoothness(series),
        "trend_strength": (1 - detrended / variance).clamp(min=0.0),
        "detrended_variance": detrended,
    }
    steps = series.energy.shape[-1]
    scale = series.energy.amax(-1).sqrt()
    static = variance.sqrt() <= (1e-6 * scale).clamp(min=1e-12)
    at_rest = {f.name: steps if f.static == "T" else f.static or 0.0 for f in _FEATURES}
    return {name: torch.where(static, at_rest[name], value) for name, value in values.items()}


def _oscillation(power: Tensor) -> dict[str, Tensor]:
    """Compute dominant frequency, amplitude and mean period m₀/m₁ (Longuet-Higgins 1975)."""
    steps = power.shape[-1] - 1
    # The even bins of the padded transform are the bins of the trajectory.
    spectrum = 2 * power[:, 2::2] / steps**2
    if steps % 2 == 0:
        spectrum[:, -1] /= 2
    frequency = torch.arange(1, steps // 2 + 1, dtype=power.dtype, device=power.device) / steps
    top = spectrum.amax(-1)
    tied = (spectrum >= (1 - _PEAK_TOLERANCE) * top[:, None]).double()
    return {
        "temporal_freq_dominant": (tied * frequency).sum(-1) / tied.sum(-1),
        "oscillation_amplitude": (2 * top).sqrt(),
        "oscillation_period": spectrum.sum(-1) / (spectrum * frequency).sum(-1),
    }


def _decay_time(power: Tensor) -> Tensor:
    """Compute the e-folding time of the biased autocorrelation (von Storch & Zwiers 1999)."""
    steps = power.shape[-1] - 1
    covariance = torch.fft.irfft(power, n=2 * steps)[:, :steps]
    rho = covariance / covariance[:, :1]
    level = math.exp(-1)
    # argmax finds the first lag (from 1) at which the autocorrelation is below the level.
    lag = 1 + (rho[:, 1:] < level).int().argmax(-1, keepdim=True)
    before, after = rho.gather(-1, lag - 1), rho.gather(-1, lag)
    time: Tensor = lag - 1 + (before - level) / (before - after)
    return time[:, 0]


def _smoothness(series: _Series) -> Tensor:
    """Return ½(1 + correlation of successive steps)."""
    pairs = series.step[:, 1:] + series.step[:, :-1]
    return (0.5 + series.turn.sum(-1) / pairs.sum(-1)).clamp(0.0, 1.0)
