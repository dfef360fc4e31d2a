"""Seeded fields and maps for the tests of responses, and a common way to call what they judge."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm

from spinlock.features.response import (
    NOISE_NAMES,
    TRANSPORT_NAMES,
    divergence_names,
    extract_responses,
    response_names,
)

from . import response_oracle as oracle
from .helpers import red, white

SIDE = 64


def package_responses(initial, fields, device="cpu"):
    """``extract_responses`` on ``device``, brought back as a dict of numpy arrays."""
    arrays = [np.array(values, dtype=np.float32) for values in (initial, fields)]
    record = extract_responses(*(torch.from_numpy(values).to(device) for values in arrays))
    return {key: getattr(record, key).cpu().numpy() for key in record._fields}


def by_name(responses, channels):
    """Every column of every group under its name: [N, T] or [N]."""
    timesteps = responses["per_timestep"].shape[1]
    rows = np.moveaxis(responses["per_timestep"], -1, 0)
    named = dict(zip(response_names(channels), rows, strict=True))
    # The oracle has no transport group.
    if "transport" in responses:
        named |= zip(TRANSPORT_NAMES, np.moveaxis(responses["transport"], -1, 0), strict=True)
    named |= zip(NOISE_NAMES, responses["noise"].T, strict=True)
    named |= zip(divergence_names(timesteps), responses["divergence"].T, strict=True)
    return named


@dataclass(frozen=True)
class Implementation:
    """One of the two implementations: the oracle (``device`` None) or the package."""

    device: torch.device | None

    def columns(self, initial, fields):
        """Responses of one sample, u_0 [C, H, W] and fields [M, T, C, H, W]: numbers or [T]."""
        pair = [np.asarray(values, dtype=np.float32)[None] for values in (initial, fields)]
        if self.device is None:
            record = oracle.oracle_responses(*pair)
        else:
            record = package_responses(*pair, self.device)
        return {k: np.squeeze(v, 0) for k, v in by_name(record, pair[0].shape[1]).items()}

    def step(self, u, *w):
        """Responses of one timestep, as numbers; each w [C, H, W] is a realization."""
        columns = self.columns(u, np.stack(w)[:, None])
        return {name: float(np.squeeze(value)) for name, value in columns.items()}


def check(found, tolerance=1e-4, **expected):
    """Compare numbers by name; transport columns where they were computed."""
    for name, value in expected.items():
        if name in found or name not in TRANSPORT_NAMES:
            np.testing.assert_allclose(found[name], value, atol=tolerance, err_msg=name)


def lg(x):
    return np.log10(x)


def multiplied(u, multiplier):
    """Fields whose transform is multiplied by ``multiplier(f)``, f in cycles/pixel."""
    H, W = u.shape[-2:]
    f = np.hypot(np.fft.fftfreq(W)[None, :], np.fft.fftfreq(H)[:, None])
    return np.fft.ifft2(np.fft.fft2(u) * multiplier(f)).real


def shuffled(law, seed, C=3, side=SIDE):
    """White fields [C, H, W] with the quantiles of a law of mean 0, to unit variance."""
    n = side * side
    values = law.ppf((np.arange(n) + 0.5) / n)
    values /= np.sqrt(np.mean(values**2))
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(values).reshape(side, side) for _ in range(C)])


def gaussian(seed, C=3, side=SIDE):
    """White fields whose values are the quantiles of the normal distribution."""
    return shuffled(norm, seed, C, side)


def wave(ky, kx, side=128, phase=0.4):
    """A cosine of power 1/2 [H, W]."""
    y, x = np.mgrid[:side, :side]
    return np.cos(2 * np.pi * (ky * y + kx * x) / side + phase)


def with_noise(w, scale, M, seed, law=norm):
    """M realizations of w with independent noise of standard deviation ``scale``."""
    return [w + scale * shuffled(law, seed + m, *w.shape[:2]) for m in range(M)]


def heat(u, D):
    """Fields after the time in which heat spreads by sqrt(2 D) pixels in every direction."""
    return multiplied(u, lambda f: np.exp(-D * (2 * np.pi * f) ** 2))


def white_step(u, rng):
    """Forget the field."""
    return white(rng, u.shape)


def smooth_step(u, rng):
    """Forget the field, but stay smooth."""
    return red(rng, u.shape, 1.5)


def affine_step(u, rng):
    """Mix the channels, spread, shift, add a constant and noise with a uniform part."""
    mixed = 0.7 * u + 0.2 * np.roll(u, 1, axis=-3)
    moved = np.roll(heat(mixed, 0.3), (1, -2), axis=(-2, -1)) + 0.3
    uniform = 0.1 * white(rng, (*u.shape[:-2], 1, 1))
    return moved + 0.4 * white(rng, u.shape) + uniform


def nonlinear_step(u, rng):
    """Products and a bounded function of a local average, with smooth noise."""
    average = u + 0.5 * np.roll(u, 1, axis=-1) - 0.7 * np.roll(u, -1, axis=-2)
    return (
        np.tanh(average)
        + 0.4 * average * np.roll(u, 2, axis=-3) / (1 + u**2)
        + (0.2 * red(rng, u.shape, 1.0))
    )


def offset_step(u, rng):
    """Affine, with channels that lie far from zero and far from each other."""
    offsets = 6.0 * np.arange(1, u.shape[-3] + 1)[:, None, None] * [[[1.0]]]
    return offsets + affine_step(u - u.mean(axis=(-2, -1), keepdims=True), rng)


def slow_step(u, rng):
    """Hardly change at all, as after a short time."""
    return u + 2e-3 * (nonlinear_step(u, rng) + 0.3)


STEPS = {
    "white": white_step,
    "smooth": smooth_step,
    "affine": affine_step,
    "nonlinear": nonlinear_step,
    "offset": offset_step,
    "slow": slow_step,
}


@dataclass(frozen=True)
class Rollout:
    """What to draw; hypothesis reports this line instead of thousands of numbers."""

    kind: str
    shape: tuple[int, ...]
    seed: int

    def trajectories(self):
        """The initial conditions [N, C, H, W] and the fields [N, M, T, C, H, W], float32."""
        rng = np.random.default_rng(self.seed)
        N, M, T, *field = self.shape
        initial = red(rng, (N, *field), 1.0) + 0.2 * white(rng, (N, *field)) + 0.5
        fields = np.empty(self.shape)
        u = np.repeat(initial[:, None], M, axis=1)
        for t in range(T):
            u = STEPS[self.kind](u, rng)
            fields[:, :, t] = u
        return initial.astype(np.float32), fields.astype(np.float32)
