"""How far an implementation may lie from the oracle, by section 8 of features.md."""

import numpy as np

from .columns import COLUMNS, DEAD_BAND, EXPONENT, PER_TIMESTEP, PER_TRAJECTORY
from .fields import is_flat
from .trajectories import energies, floored_log, static_threshold


def allowed_deviation(fields, expected):
    """How far an implementation may lie from ``expected`` (a dict of arrays) on ``fields``.

    1e-3 relative, plus 1e-5 of the field's own scale (1e-4 for dimensionless features), the
    scales being averaged over realizations and channels as the features are. Infinite where
    section 8 compares nothing (a cv about a vanishing mean).

    Two places need more than section 8 grants, for reasons of arithmetic and not of leniency:

    * The std over a band's bins is a difference of nearly equal S whenever the band holds a few
      equal bins; S reaches n·s², so float32 resolves that difference to 1e-7 of the band's
      largest S and not to 1e-5·s². It gets 1e-6 of the band's maximum on top.
    * A cv cannot be nearer than the mean and the std it is the quotient of, so it gets what
      follows from theirs. (That aggregated follows from per_trajectory is tested apart.)
    """
    u = np.asarray(fields, dtype=np.float64)
    N, M, T, C = u.shape[:4]
    mu = u.mean(axis=(-2, -1))
    s = np.zeros((N, M, T, C))
    for index in np.ndindex(N, M, T, C):
        s[index] = 0.0 if is_flat(u[index]) else u[index].std()
    by_exponent = {
        0: np.full((N, T), 1e-4),
        1: 1e-5 * (np.abs(mu) + s).mean(axis=(1, 3)),
        2: 1e-5 * (s**2).mean(axis=(1, 3)),
    }
    timestep = np.stack([by_exponent[EXPONENT[name]] for name in PER_TIMESTEP], axis=-1)
    for b in range(5):
        peak, std = (PER_TIMESTEP.index(f"fft_power_scale_{b}_{which}") for which in ("max", "std"))
        timestep[..., std] += 1e-6 * expected["per_timestep"][..., peak]

    sigma = np.empty((N, M, C))
    switch = np.zeros((N, M, C))
    for n, m, c in np.ndindex(N, M, C):
        trajectory = u[n, m, :, c]
        sigma[n, m, c] = static_threshold(trajectory)[0]
        if T >= 3:
            steps = np.abs(np.diff(floored_log(energies(trajectory))))
            if np.any(np.abs(steps - DEAD_BAND) <= 1e-6):
                switch[n, m, c] = 1 / (T - 2)
    temporal_scale = {
        0: np.full((N, M), 1e-4),
        1: 1e-5 * sigma.mean(axis=2),
        2: 1e-5 * (sigma**2).mean(axis=2),
    }
    trajectory = np.stack([temporal_scale[EXPONENT[name]] for name in PER_TRAJECTORY], axis=-1)
    trajectory[..., PER_TRAJECTORY.index("regime_switches")] += switch.mean(axis=2)

    k = len(PER_TRAJECTORY)
    mean = np.abs(expected["aggregated"][:, :k])
    dimensionless = np.array([EXPONENT[name] == 0 for name in PER_TRAJECTORY])
    std = 1e-5 * (dimensionless + mean)
    std[:, PER_TRAJECTORY.index("regime_switches")] += switch.mean(axis=2).max(axis=1)
    cv = propagated_to_cv(expected["aggregated"], trajectory.mean(axis=1), std)
    aggregated = np.concatenate([trajectory.mean(axis=1), std, cv], axis=1)
    scales = {"per_timestep": timestep, "per_trajectory": trajectory, "aggregated": aggregated}
    return {key: 1e-3 * np.abs(expected[key]) + scales[key] for key in scales}


def propagated_to_cv(aggregated, mean_scale, std_scale):
    """How far v/|m| may move when m and v move within their own tolerances (plus 1e-4)."""
    k = len(PER_TRAJECTORY)
    m, v, cv = np.abs(aggregated[:, :k]), aggregated[:, k : 2 * k], aggregated[:, 2 * k :]
    m_error, v_error = 1e-3 * m + mean_scale, 1e-3 * v + std_scale
    compared = (m > 1e-5) & (m > 2 * m_error)
    safe = np.where(compared, m - m_error, 1.0)
    return np.where(compared, 1e-4 + (v_error + cv * m_error) / safe, np.inf)


def disagreements(actual, expected, allowed, label=""):
    """One line for every column of any of the three arrays that lies too far from ``expected``."""
    lines = []
    for key, names in COLUMNS.items():
        if key not in actual:
            continue
        a, b, tolerance = (np.asarray(x[key], np.float64) for x in (actual, expected, allowed))
        if a.shape != b.shape:
            lines.append(f"{label} {key}: shape {a.shape}, expected {b.shape}")
            continue
        nan_differs = np.isnan(a) != np.isnan(b)
        difference = np.where(np.isnan(a) | np.isnan(b), 0.0, np.abs(a - b))
        tolerance = np.nan_to_num(tolerance, nan=0.0, posinf=1e30)  # 1e30: not compared
        wrong = nan_differs | np.isinf(a) | (difference > tolerance)
        for column in np.flatnonzero(wrong.any(axis=tuple(range(wrong.ndim - 1)))):
            excess = np.where(nan_differs, np.inf, difference - tolerance)[..., column]
            worst = np.unravel_index(np.argmax(excess), excess.shape)
            at = (*worst, column)
            lines.append(
                f"{label} {key}.{names[column]}{[int(i) for i in worst]}: got {a[at]:.9g}, "
                f"expected {b[at]:.9g}, allowed ±{tolerance[at]:.3g} "
                f"({int(wrong[..., column].sum())} of {wrong[..., column].size} rows)"
            )
    return lines


def assert_agreement(actual, expected, fields, label=""):
    """Fail with every disagreeing column named, by the tolerance of section 8 on ``fields``."""
    lines = disagreements(actual, expected, allowed_deviation(fields, expected), label)
    assert not lines, "\n" + "\n".join(lines)
