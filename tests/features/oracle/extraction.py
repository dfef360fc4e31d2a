"""The feature arrays of whole arrays of fields."""

import math

import numpy as np

from .columns import PER_TIMESTEP, PER_TRAJECTORY
from .fields import spatial_features, spectral_features
from .trajectories import temporal_features


def oracle_extract(fields):
    """The three feature arrays of ``fields`` [N, M, T, C, H, W], in float64.

    The input may be float32 (what the package sees) or float64 (to check the oracle itself).
    """
    u = np.asarray(fields, dtype=np.float64)
    N, M, T, C = u.shape[:4]
    per_field = np.empty((N, M, T, C, len(PER_TIMESTEP)))
    for index in np.ndindex(N, M, T, C):
        values = spatial_features(u[index]) | spectral_features(u[index])
        per_field[index] = [values[name] for name in PER_TIMESTEP]
    per_channel = np.empty((N, M, C, len(PER_TRAJECTORY)))
    for n, m, c in np.ndindex(N, M, C):
        values = temporal_features(u[n, m, :, c])
        per_channel[n, m, c] = [values[name] for name in PER_TRAJECTORY]
    per_trajectory = per_channel.mean(axis=2)
    return {
        "per_timestep": per_field.mean(axis=(1, 3)),
        "per_trajectory": per_trajectory,
        "aggregated": aggregate(per_trajectory),
    }


def aggregate(per_trajectory):
    """[N, M, 13] to [N, 39]: means, population stds and capped coefficients of variation."""
    m = per_trajectory.mean(axis=1)
    v = per_trajectory.std(axis=1)
    v[np.ptp(per_trajectory, axis=1) == 0] = 0.0  # equal realizations: no rounding residue
    cv = np.empty_like(m)
    for index in np.ndindex(m.shape):
        if math.isnan(m[index]):
            cv[index] = math.nan
        elif v[index] == 0:
            cv[index] = 0.0
        elif m[index] == 0:
            cv[index] = 100.0
        else:
            cv[index] = min(v[index] / abs(m[index]), 100.0)
    return np.concatenate([m, v, cv], axis=1)
