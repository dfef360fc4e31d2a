"""Symmetries of section 5 of features.md: the package on transformed fields against itself."""

import numpy as np
from hypothesis import given, strategies as st

from . import oracle
from .helpers import package_extract, random_fields
from .strategies import few, fields_of, seeds

SPATIAL_AXES = (-2, -1)
T_AXIS = 2
SWAPPED_BY_TRANSPOSITION = ("gradient_{}_mean", "dominant_freq_{}", "spectral_centroid_{}")
UNCHANGED_BY_A_STATIC_BACKGROUND = (
    "temporal_freq_dominant",
    "oscillation_amplitude",
    "oscillation_period",
    "autocorr_decay_time",
    "lyapunov_approx",
    "trajectory_smoothness",
    "trend_strength",
    "detrended_variance",
)


def on_a_lattice(fields):
    """Round to multiples of 2⁻⁸ within ±128, so that adding such multiples is exact in float32."""
    return (np.round(np.clip(fields, -128, 128) * 256) / 256).astype(np.float32)


def copy(features):
    return {key: value.astype(np.float64) for key, value in features.items()}


def per_timestep_columns(*names):
    return [oracle.PER_TIMESTEP.index(name) for name in names]


def trajectory_columns(*names):
    return [oracle.PER_TRAJECTORY.index(name) for name in names]


@few
@given(sample=fields_of(), rows=st.integers(-40, 40), columns=st.integers(-40, 40))
def test_periodic_roll_changes_nothing(device, sample, rows, columns):
    u = sample.fields()
    rolled = np.roll(u, (rows, columns), axis=SPATIAL_AXES)
    oracle.assert_agreement(package_extract(rolled, device), package_extract(u, device), rolled)


@few
@given(sample=fields_of(), axis=st.sampled_from(SPATIAL_AXES))
def test_reflection_changes_nothing(device, sample, axis):
    u = sample.fields()
    mirrored = np.flip(u, axis=axis)
    oracle.assert_agreement(package_extract(mirrored, device), package_extract(u, device), mirrored)


def with_x_and_y_swapped(features):
    swapped = copy(features)
    rows = features["per_timestep"]
    for pattern in SWAPPED_BY_TRANSPOSITION:
        x, y = per_timestep_columns(pattern.format("x"), pattern.format("y"))
        swapped["per_timestep"][..., x] = rows[..., y]
        swapped["per_timestep"][..., y] = rows[..., x]
    return swapped


@few
@given(sample=fields_of())
def test_transposition_swaps_x_and_y(device, sample):
    u = sample.fields()
    transposed = np.swapaxes(u, -1, -2)
    expected = with_x_and_y_swapped(package_extract(u, device))
    oracle.assert_agreement(package_extract(transposed, device), expected, transposed)


@few
@given(sample=fields_of(), turns=st.sampled_from([1, 2, 3]))
def test_rotation_by_right_angles(device, sample, turns):
    u = sample.fields()
    rotated = np.rot90(u, turns, axes=SPATIAL_AXES)
    expected = package_extract(u, device)
    if turns % 2:
        expected = with_x_and_y_swapped(expected)
    oracle.assert_agreement(package_extract(rotated, device), expected, rotated)


@few
@given(sample=fields_of())
def test_sign_flip(device, sample):
    u = sample.fields()
    before = package_extract(u, device)
    expected = copy(before)
    odd = per_timestep_columns("spatial_mean", "spatial_skewness")
    low, high = per_timestep_columns("spatial_min", "spatial_max")
    expected["per_timestep"][..., odd] *= -1
    expected["per_timestep"][..., low] = -before["per_timestep"][..., high]
    expected["per_timestep"][..., high] = -before["per_timestep"][..., low]
    oracle.assert_agreement(package_extract(-u, device), expected, -u)


@few
@given(sample=fields_of(), decades=st.floats(-6, 2))
def test_scaling_follows_the_exponents(device, sample, decades):
    u = sample.fields()
    scaled = (10.0**decades * u).astype(np.float32)
    a = np.float64(10.0**decades)
    expected = copy(package_extract(u, device))
    powers = np.array([oracle.EXPONENT[name] for name in oracle.PER_TIMESTEP])
    expected["per_timestep"] *= a**powers
    powers = np.array([oracle.EXPONENT[name] for name in oracle.PER_TRAJECTORY])
    expected["per_trajectory"] *= a**powers
    expected["aggregated"] *= a ** np.concatenate([powers, powers, 0 * powers])
    oracle.assert_agreement(package_extract(scaled, device), expected, scaled, f"a={a:g}")


@few
@given(sample=fields_of(), steps=st.integers(-(2**18), 2**18))
def test_additive_constant(device, sample, steps):
    """Only the "+c" rows move, by c. Exact in float32, up to |c| = 1024 on fields of order one."""
    u = on_a_lattice(sample.fields())
    c = steps / 256
    expected = copy(package_extract(u, device))
    expected["per_timestep"][..., per_timestep_columns(*oracle.SHIFTED_BY_A_CONSTANT)] += c
    shifted = u + np.float32(c)
    lines = oracle.disagreements(
        {"per_timestep": package_extract(shifted, device)["per_timestep"]},
        expected,
        oracle.allowed_deviation(shifted, expected),
        f"c={c:g}",
    )
    # A field is flat relative to its own mean: far from zero a quiet field may become flat.
    assert not any(oracle.is_flat(field) for field in shifted.reshape(-1, *u.shape[-2:]))
    assert not lines, "\n" + "\n".join(lines)


@few
@given(sample=fields_of(lengths=st.integers(2, 9)), seed=seeds, height=st.sampled_from([1.0, 30.0]))
def test_time_constant_background(device, sample, seed, height):
    """Whatever does not move is invisible to eight temporal features."""
    u = on_a_lattice(sample.fields())
    background = height * random_fields("red", (2, 2, 1, u.shape[3], *u.shape[-2:]), seed)
    total = u + (np.round(np.clip(background, -512, 512) * 256) / 256).astype(np.float32)
    before, after = package_extract(u, device), package_extract(total, device)
    columns = trajectory_columns(*UNCHANGED_BY_A_STATIC_BACKGROUND)
    # Compare these columns, and the means over M that follow from them.
    expected = copy(after)
    expected["per_trajectory"][..., columns] = before["per_trajectory"][..., columns]
    expected["aggregated"][..., columns] = before["aggregated"][..., columns]
    oracle.assert_agreement(after, expected, u)


@few
@given(sample=fields_of(lengths=st.integers(2, 9), channels=st.just(1)))
def test_time_reversal(device, sample):
    u = sample.fields()
    before = package_extract(u, device)["per_trajectory"].astype(np.float64)
    backwards = np.flip(u, axis=T_AXIS)
    after = package_extract(backwards, device)
    odd = trajectory_columns("energy_growth_rate", "variance_growth_rate", "lyapunov_approx")
    ratio = trajectory_columns("final_to_initial_ratio")
    before[..., odd] *= -1
    before[..., ratio] = 1 / before[..., ratio]  # holds for one channel, not for a mean over some
    expected = {
        "per_timestep": package_extract(u, device)["per_timestep"][:, ::-1],
        "per_trajectory": before,
        "aggregated": oracle.aggregate(before),
    }
    oracle.assert_agreement(after, expected, backwards)
