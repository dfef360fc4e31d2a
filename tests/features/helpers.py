"""Seeded fields, and the package with the calling convention of the oracle."""

from dataclasses import dataclass

import numpy as np
import torch

from spinlock.features import extract


def package_extract(fields, device="cpu"):
    """``extract`` on ``device``, brought back as a dict of numpy arrays."""
    record = extract(torch.from_numpy(np.array(fields, dtype=np.float32)).to(device))
    return {
        "per_timestep": record.per_timestep.cpu().numpy(),
        "per_trajectory": record.per_trajectory.cpu().numpy(),
        "aggregated": record.aggregated.cpu().numpy(),
    }


def as_fields(u):
    """One field (H, W) or one trajectory (T, H, W) as [N, M, T, C, H, W] = [1, 1, T, 1, H, W]."""
    u = np.asarray(u)
    u = u[None] if u.ndim == 2 else u
    return u[None, None, :, None]


def white(rng, shape):
    return rng.standard_normal(shape)


def red(rng, shape, decay=2.0):
    """Smooth periodic noise of unit variance: amplitudes fall as frequency to the -decay."""
    H, W = shape[-2:]
    f = np.hypot(np.fft.fftfreq(W)[None, :], np.fft.fftfreq(H)[:, None])
    f[0, 0] = np.inf
    u = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * f**-decay).real
    return u / u.std(axis=(-2, -1), keepdims=True)


def one_field(seed, shape=(16, 12)):
    return red(np.random.default_rng(seed), shape, decay=1.0)


def mixture(rng, shape):
    """A smooth part, a white part and a mean that dwarfs both."""
    mean = rng.uniform(20.0, 60.0, size=(*shape[:-2], 1, 1))
    return mean + red(rng, shape) + 0.1 * white(rng, shape)


def sparse(rng, shape):
    """Mostly zero with a few spikes: heavy tails, and quantiles that coincide."""
    u = np.where(rng.random(shape) < 0.08, 3.0 * rng.standard_normal(shape), 0.0)
    u[..., 2, 5] = rng.uniform(1.0, 2.0, shape[:-2])  # at least one spike: never flat
    return u


def drifting(rng, shape):
    """Red fields that random-walk along the time axis (axis 2), as trajectories do."""
    steps = red(rng, shape)
    steps[:, :, 1:] *= 0.3
    return np.cumsum(steps, axis=2)


KINDS = {"white": white, "red": red, "mixture": mixture, "sparse": sparse, "drifting": drifting}


@dataclass(frozen=True)
class Recipe:
    """What fields to draw; hypothesis reports this line instead of thousands of numbers."""

    kind: str
    shape: tuple[int, ...]
    seed: int

    def fields(self):
        return random_fields(self.kind, self.shape, self.seed)


def random_fields(kind, shape, seed):
    """Reproducible float32 fields of one of the ``KINDS``."""
    return KINDS[kind](np.random.default_rng(seed), shape).astype(np.float32)
