"""The definition of the response features in float64 and plain numpy, as an oracle.

It shares no code with ``spinlock.features`` and is simple: full-plane transforms, one sample, one
realization and one timestep at a time, the stencil as a least-squares problem with an explicit
design matrix. It was written from the definition alone, so agreement with the package is
evidence that both are correct. The three transport columns are not part of it.
"""

import itertools
from functools import cache

import numpy as np

NOISE = ("noise_abs", "noise_rel", "noise_low", "noise_centroid", "noise_uniform", "noise_kurtosis")
BAND_EDGES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # cycles/pixel; 1.0 lies beyond every bin
LOW_FREQUENCY = 1 / 16
RELATIVE_FLOOR = 1e-10
ABSOLUTE_FLOOR = 1e-30
LEAST_BAND_SHARE = 0.01
STENCIL_REACH = 2  # pixels: 5 x 5
MOST_COUPLED_CHANNELS = 8
RIDGE = 1e-3


def column_names(channels):
    """The columns of ``per_timestep`` that this module computes, in order."""
    names = ["persistence", "beta", "innovation", "innovation_abs", "increment"]
    names += [f"band_gain_{b}" for b in range(5)]
    names += ["mean_out", "mean_signed"]
    names += [f"channel_mean_{c}" for c in range(channels)]
    return (*names, "nonlinear_share")


def divergence_columns(timesteps):
    """The columns of ``divergence``: none for one timestep."""
    if timesteps == 1:
        return ()
    return (*(f"divergence_{t}" for t in range(1, timesteps)), "spread_rel")


def half_log(power):
    """Half of the decimal logarithm: the logarithm of an amplitude."""
    return 0.5 * np.log10(power)


def floor_of(*powers):
    """A ten-billionth of the sum of the powers, but never zero."""
    return max(RELATIVE_FLOOR * sum(powers), ABSOLUTE_FLOOR)


def denoised(power, noise, floor):
    """The power without that of the noise, which leaves at least a hundredth of the noise."""
    return max(power - noise, noise / 100, floor)


def channel_means(x):
    """Means [C] of fields [C, H, W]."""
    first = x.mean(axis=(1, 2))
    # The mean of equal numbers may be one rounding off; of the rest, it is exact.
    return first + (x - first[:, None, None]).mean(axis=(1, 2))


def centred(x):
    """Fields [C, H, W] without the means of their channels."""
    return x - channel_means(x)[:, None, None]


@cache
def squared_frequency(H, W):
    """Squared frequency f² [H, W] of every bin of the full plane, (cycles/pixel)²."""
    f2 = np.empty((H, W))
    for i, j in itertools.product(range(H), range(W)):
        ky = i if 2 * i < H else i - H
        kx = j if 2 * j < W else j - W
        f2[i, j] = (ky / H) ** 2 + (kx / W) ** 2
    return f2


def power_spectrum(x):
    """Squared modulus [H, W] of the transform of centred fields, summed over channels, no DC."""
    power = np.zeros(x.shape[1:])
    for channel in centred(x):
        power += np.abs(np.fft.fft2(channel)) ** 2
    power[0, 0] = 0.0
    return power


def band_gains(u, e):
    """The five gains from u to e, fields [C, H, W]."""
    S_u, S_e = power_spectrum(u), power_spectrum(e)
    f2 = squared_frequency(*u.shape[1:])
    chi = floor_of(S_u.sum(), S_e.sum())
    gains = []
    for low, high in itertools.pairwise(BAND_EDGES):
        inside = (f2 >= low**2) & (f2 < high**2) & (f2 > 0)
        before, after = S_u[inside].sum(), S_e[inside].sum()
        if not inside.any() or before < LEAST_BAND_SHARE * S_u.sum():
            before, after = S_u.sum(), S_e.sum()
        gains.append(half_log(max(after, chi) / max(before, chi)))
    return gains


def stencil_power(u, e):
    """The power of e that a regularized 5 x 5 stencil of u explains; both centred [C, H, W]."""
    C = len(u)
    reach = range(-STENCIL_REACH, STENCIL_REACH + 1)
    explained = []
    for o in range(C):
        inputs = range(C) if C <= MOST_COUPLED_CHANNELS else (o,)
        # Rolling by (-dy, -dx) puts u(y + dy, x + dx) at (y, x).
        design = np.stack(
            [
                np.roll(u[c], (-dy, -dx), axis=(0, 1)).ravel()
                for c, dy, dx in itertools.product(inputs, reach, reach)
            ],
            axis=1,
        )
        pixels, regressors = design.shape
        A = design.T @ design / pixels
        b = design.T @ e[o].ravel() / pixels
        ridge = max(RIDGE * A.trace() / regressors, ABSOLUTE_FLOOR)
        x = np.linalg.solve(A + ridge * np.eye(regressors), b)
        explained.append(2 * b @ x - x @ A @ x)
    return np.mean(explained)


def step_columns(u, w, n=0.0, n_tot=0.0):
    """The columns of one step from u to w, fields [C, H, W], and how they amplify rounding.

    The second dict holds, for the logarithms of the power of a difference, how many times larger
    than the relative errors of the fields and of the powers that enter is that of the result.
    """
    u1, w1 = centred(u), centred(w)
    mu_u, mu_w = channel_means(u), channel_means(w)
    P_u, P_w = np.mean(u1**2), np.mean(w1**2)
    phi = floor_of(P_u, P_w)
    square = np.mean(w**2)
    psi = floor_of(np.mean(u**2), square)

    beta = np.mean(u1 * w1) / max(P_u, phi)
    e = w1 - beta * u1
    P_e = np.mean(e**2)
    innovation = denoised(P_e, n, phi)
    change = np.mean((w - u) ** 2)
    increment = denoised(change, n_tot, psi)
    E5 = stencil_power(u1, e)
    unexplained = max(P_e - n - E5, n / 100, phi)

    columns = {
        "persistence": np.mean(u1 * w1) / np.sqrt(max(P_u, phi) * max(P_w, phi)),
        "beta": beta,
        "innovation": half_log(innovation / max(P_w, phi)),
        "innovation_abs": half_log(innovation),
        "increment": half_log(increment / max(np.mean(u**2), psi)),
        "mean_out": np.sqrt(np.mean(mu_w**2) / max(square, psi)),
        "mean_signed": np.mean(mu_w) / np.sqrt(max(square, psi)),
        "nonlinear_share": half_log(unexplained / max(P_w, phi)),
    }
    for c in range(len(u)):
        columns[f"channel_mean_{c}"] = (mu_w[c] - beta * mu_u[c]) / np.sqrt(max(square, psi))
    # An error d of a field x changes the power of a difference e by 2 <e d>.
    of_e = P_e + n + np.sqrt(P_e * (P_u + P_w))
    of_change = change + n_tot + np.sqrt(change * (np.mean(u**2) + square))
    amplification = {
        "innovation": of_e / innovation,
        "innovation_abs": of_e / innovation,
        "increment": of_change / increment,
        "nonlinear_share": (of_e + E5) / unexplained,
    }
    for b, gain in enumerate(band_gains(u1, e)):
        columns[f"band_gain_{b}"] = gain
        amplification[f"band_gain_{b}"] = 1 / 10**gain
    return columns, amplification


def spread(realizations):
    """Unbiased mean square of the realizations [M, C, H, W] about their mean."""
    M = len(realizations)
    mean = sum(realizations) / M
    return sum(np.mean((one - mean) ** 2) for one in realizations) / (M - 1)


def noise_columns(first):
    """The noise group of the realizations [M, C, H, W] of the first timestep."""
    M, _, H, W = first.shape
    if M == 1:
        return dict.fromkeys(NOISE, np.nan)
    w = sum(first) / M
    V_tot = spread(first)
    V = spread(np.stack([centred(one) for one in first]))
    square = np.mean(w**2)
    psi2 = floor_of(V_tot, square)
    columns = dict.fromkeys(NOISE, 0.0)
    columns["noise_abs"] = half_log(max(V_tot, ABSOLUTE_FLOOR))
    columns["noise_rel"] = half_log(max(V_tot, psi2) / max(square, psi2))
    if V_tot > ABSOLUTE_FLOOR:
        columns["noise_uniform"] = (V_tot - V) / V_tot
    r = np.stack([centred(one - w) for one in first])
    second = np.mean(r**2)
    if second > ABSOLUTE_FLOOR:
        columns["noise_kurtosis"] = np.mean(r**4) / second**2 - 3
    p = sum(power_spectrum(one) for one in r)
    f2 = squared_frequency(H, W)
    if p.sum() > ABSOLUTE_FLOOR:
        columns["noise_low"] = p[f2 < LOW_FREQUENCY**2].sum() / p.sum()
        columns["noise_centroid"] = (p * np.sqrt(f2)).sum() / p.sum()
    return columns


def divergence_values(fields):
    """The divergence columns of realizations [M, T, C, H, W], in order."""
    M, T = fields.shape[:2]
    if T == 1:
        return []
    if M == 1:
        return [np.nan] * T
    V = [spread(fields[:, t]) for t in range(T)]
    values = [
        half_log(max(V[t + 1], ABSOLUTE_FLOOR) / max(V[t], ABSOLUTE_FLOOR)) for t in range(T - 1)
    ]
    square = np.mean(fields[:, -1] ** 2)
    psi3 = floor_of(V[-1], square)
    return [*values, half_log(max(V[-1], psi3) / max(square, psi3))]


def oracle_responses(initial, fields):
    """All groups for initial conditions [N, C, H, W] and fields [N, M, T, C, H, W].

    Returns:
        ``per_timestep`` [N, T, 13 + C], ``noise`` [N, 6], ``divergence`` [N, T] or [N, 0], and
        ``amplification`` [N, T, 13 + C], zero where a column is no logarithm of a difference.
    """
    initial = np.asarray(initial, dtype=np.float64)
    fields = np.asarray(fields, dtype=np.float64)
    N, M, T, C = fields.shape[:4]
    names = column_names(C)
    rows, amplifications = np.empty((2, N, T, len(names)))
    for i, t in itertools.product(range(N), range(T)):
        if t == 0:
            first = fields[i, :, 0]
            n_tot = spread(first) / M if M > 1 else 0.0
            n = spread(np.stack([centred(one) for one in first])) / M if M > 1 else 0.0
            steps = [step_columns(initial[i], sum(first) / M, n, n_tot)]
        else:
            steps = [step_columns(fields[i, m, t - 1], fields[i, m, t]) for m in range(M)]
        for k, name in enumerate(names):
            rows[i, t, k] = np.mean([columns[name] for columns, _ in steps])
            amplifications[i, t, k] = np.mean([errors.get(name, 0.0) for _, errors in steps])
    return {
        "per_timestep": rows,
        "noise": np.array([list(noise_columns(fields[i, :, 0]).values()) for i in range(N)]),
        "divergence": np.array([divergence_values(fields[i]) for i in range(N)]).reshape(N, -1),
        "amplification": amplifications,
    }
