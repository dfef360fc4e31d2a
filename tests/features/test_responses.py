"""The response features agree with the float64 oracle, and change only where they should."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from spinlock.features.response import (
    NOISE_NAMES,
    TRANSPORT_NAMES,
    divergence_names,
    response_names,
)

from . import response_oracle as oracle
from .response_cases import STEPS, Rollout, by_name, package_responses

SPATIAL_AXES = (-2, -1)
# Bounds on rounding. ROUNDING is that of a mean power in float32, relative: 2⁻²³, and a few of
# them for the transforms. In the logarithm of the power of a difference it counts as many times
# as the oracle's ``amplification`` says.
ROUNDING = 1e-6
LOGARITHM, RATIO = 2e-5, 1e-5
PIXELS, DIFFUSION = 5e-3, 2e-2

# The device fixture holds for a whole test, as intended.
few = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def rollouts(draw, realizations=(1, 2, 5)):
    """Recipes of small trajectories."""
    side, M = draw(st.sampled_from([16, 24, 32])), draw(st.sampled_from(realizations))
    shape = (1, M, draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 3])), side, side)
    return Rollout(draw(st.sampled_from(list(STEPS))), shape, draw(st.integers(0, 2**32 - 1)))


def tolerance(name, amplification=0.0):
    """How far two float32 evaluations of a column may lie apart."""
    if name in ("transport_x", "transport_y"):
        return PIXELS
    if name == "transport_diffusion":
        return DIFFUSION
    logarithmic = ("innovation", "increment", "band_gain", "nonlinear", "noise_abs", "noise_rel")
    if name.startswith((*logarithmic, "divergence", "spread")):
        return LOGARITHM + 0.5 / np.log(10) * ROUNDING * amplification
    return RATIO


def assert_columns_agree(found, expected, amplification):
    """Compare dicts of columns by name; one that is missing in ``expected`` is not compared."""
    for name, values in expected.items():
        allowed = tolerance(name, amplification.get(name, 0.0))
        if name in ("beta", "noise_kurtosis") or name.startswith("channel_mean"):
            allowed = allowed * (1 + np.abs(values))
        assert np.array_equal(np.isnan(found[name]), np.isnan(values)), name
        excess = np.nan_to_num(np.abs(found[name] - values) / allowed)
        assert excess.max(initial=0) <= 1, f"{name}: {excess.max():.3g} times the tolerance"


def assert_agreement(initial, fields, device):
    """Compare the package with the oracle, every column but the transport columns."""
    channels, timesteps = initial.shape[1], fields.shape[2]
    found = by_name(package_responses(initial, fields, device), channels)
    judge = oracle.oracle_responses(initial, fields)
    rows = dict(zip(oracle.column_names(channels), judge["per_timestep"].T, strict=True))
    # .T of [N, T, R] is [R, T, N].
    expected = {name: values.T for name, values in rows.items()}
    expected |= zip(oracle.NOISE, judge["noise"].T, strict=True)
    expected |= zip(oracle.divergence_columns(timesteps), judge["divergence"].T, strict=True)
    factors = zip(oracle.column_names(channels), judge["amplification"].T, strict=True)
    assert_columns_agree(found, expected, {name: values.T for name, values in factors})


# -------------------------------------------------------------------------------------- oracle


def test_names_and_shapes():
    assert response_names(3) == oracle.column_names(3)
    assert response_names(1) == oracle.column_names(1)
    assert NOISE_NAMES == oracle.NOISE
    for timesteps in (1, 2, 5):
        assert divergence_names(timesteps) == oracle.divergence_columns(timesteps)
    for T, columns in ((1, 0), (3, 3)):
        record = package_responses(*Rollout("affine", (2, 2, T, 3, 16, 16), 0).trajectories())
        assert record["per_timestep"].shape == (2, T, 16)
        assert record["transport"].shape == (2, T, 5)
        assert record["noise"].shape == (2, 6)
        assert record["divergence"].shape == (2, columns)
        assert all(values.dtype == np.float32 for values in record.values())


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize(
    "shape",
    [
        (3, 1, 1, 1, 32, 32),
        (3, 5, 1, 3, 32, 32),
        (2, 2, 3, 1, 32, 32),
        (2, 1, 3, 3, 32, 32),
        (1, 3, 2, 2, 24, 40),
        (2, 1, 1, 1, 128, 128),
        (1, 5, 1, 3, 128, 128),
    ],
    ids=lambda shape: "x".join(map(str, shape)),
)
def test_agreement_with_the_oracle(device, kind, shape):
    assert_agreement(*Rollout(kind, shape, 1).trajectories(), device)


def test_agreement_of_large_trajectories(device):
    assert_agreement(*Rollout("nonlinear", (1, 2, 3, 3, 128, 128), 1).trajectories(), device)


@pytest.mark.parametrize(("kind", "M", "C"), [("affine", 5, 1), ("nonlinear", 1, 3)])
def test_agreement_of_long_trajectories(device, kind, M, C):
    assert_agreement(*Rollout(kind, (1, M, 50, C, 32, 32), 2).trajectories(), device)


@pytest.mark.parametrize("channels", [8, 9])
def test_many_channels_have_stencils_of_their_own(device, channels):
    """Up to 8 channels a stencil reads all of them; from 9 on, its own channel only."""
    assert_agreement(*Rollout("affine", (1, 2, 1, channels, 32, 32), 3).trajectories(), device)


@pytest.mark.parametrize("size", [1e-4, 1e3])
def test_agreement_at_other_sizes(device, size):
    initial, fields = Rollout("nonlinear", (2, 3, 2, 2, 32, 32), 4).trajectories()
    assert_agreement(np.float32(size) * initial, np.float32(size) * fields, device)


@pytest.mark.parametrize("values", [(0, 0), (0.7, 0.7), (0.7, -0.3), (0, 0.7), (0.7, 0)])
@pytest.mark.parametrize("constant", ["initial", "fields", "both"])
def test_agreement_for_constant_fields(device, values, constant):
    """Nothing varies, so the floors decide, even where a mean in float32 is inexact."""
    initial, fields = Rollout("affine", (2, 3, 2, 2, 32, 32), 5).trajectories()
    if constant in ("initial", "both"):
        initial[:] = values[0]
    if constant in ("fields", "both"):
        fields[:] = values[1]
    assert_agreement(initial, fields, device)


def test_samples_of_different_sizes_do_not_mix(device):
    """Floors belong to one sample, not to a batch."""
    initial, fields = Rollout("nonlinear", (4, 2, 2, 2, 32, 32), 6).trajectories()
    for i, size in enumerate((1e-5, 1.0, 0.0, 1e4)):
        initial[i] *= size
        fields[i] *= size
    assert_agreement(initial, fields, device)


# ----------------------------------------------------------------------------------------- NaN


@pytest.mark.parametrize("timesteps", [1, 3])
@pytest.mark.parametrize("kind", ["affine", "constant", "zero", "constant initial condition"])
def test_undefined_values(device, timesteps, kind):
    """One realization has no spread: its noise and divergence are NaN, and nothing else is."""
    initial, fields = Rollout("affine", (2, 5, timesteps, 3, 16, 16), 7).trajectories()
    if kind == "constant initial condition":
        initial[:] = 1.3
    elif kind != "affine":
        initial[:], fields[:] = (0.0, 0.0) if kind == "zero" else (1.3, -2.9)
    several = package_responses(initial, fields, device)
    assert all(np.isfinite(values).all() for values in several.values())
    one = package_responses(initial, fields[:, :1], device)
    assert np.isfinite(one["per_timestep"]).all()
    assert np.isnan(one["noise"]).all()
    assert np.isnan(one["divergence"]).all()
    assert one["divergence"].shape == several["divergence"].shape


# --------------------------------------------------------------------------------- invariances


def responses_of(initial, fields, device):
    """Columns of the package by name."""
    return by_name(package_responses(initial, fields, device), initial.shape[1])


def assert_same(found, expected, initial, fields, transport=False):
    """Compare all columns within the rounding that these fields allow."""
    judge = oracle.oracle_responses(initial, fields)
    names = oracle.column_names(initial.shape[1])
    factors = zip(names, judge["amplification"].T, strict=True)
    # Both sides are rounded.
    amplification = {name: 2 * values.T for name, values in factors}
    compared = {k: v for k, v in expected.items() if transport or k not in TRANSPORT_NAMES}
    assert_columns_agree(found, compared, amplification)


@few
@given(rollout=rollouts(), rows=st.integers(-40, 40), columns=st.integers(-40, 40))
def test_translation_changes_nothing(device, rollout, rows, columns):
    trajectories = rollout.trajectories()
    moved = [np.roll(x, (rows, columns), axis=SPATIAL_AXES) for x in trajectories]
    expected = responses_of(*trajectories, device)
    # A peak to find: elsewhere rounding decides between equally poor displacements.
    found = responses_of(*moved, device)
    assert_same(found, expected, *trajectories, transport=rollout.kind in ("affine", "offset"))


@few
@given(rollout=rollouts(), axis=st.sampled_from(SPATIAL_AXES))
def test_reflection_changes_nothing_but_the_displacement(device, rollout, axis):
    trajectories = rollout.trajectories()
    expected = responses_of(*trajectories, device)
    expected["transport_x" if axis == -1 else "transport_y"] *= -1
    found = responses_of(*(np.flip(x, axis) for x in trajectories), device)
    assert_same(found, expected, *trajectories, transport=rollout.kind in ("affine", "offset"))


@few
@given(rollout=rollouts(), turns=st.sampled_from([1, 2, 3]))
def test_rotation_turns_the_displacement(device, rollout, turns):
    trajectories = rollout.trajectories()
    expected = responses_of(*trajectories, device)
    for _ in range(turns):
        # numpy turns the last axis towards the first one, against it: (x, y) -> (y, -x).
        x, y = expected["transport_x"], expected["transport_y"]
        expected["transport_x"], expected["transport_y"] = y, -x
    found = responses_of(*(np.rot90(x, turns, axes=SPATIAL_AXES) for x in trajectories), device)
    assert_same(found, expected, *trajectories, transport=rollout.kind in ("affine", "offset"))


@few
@given(rollout=rollouts())
def test_sign_flips_the_signed_means(device, rollout):
    initial, fields = rollout.trajectories()
    expected = responses_of(initial, fields, device)
    for name in expected:
        if name == "mean_signed" or name.startswith("channel_mean"):
            expected[name] *= -1
    found = responses_of(-initial, -fields, device)
    assert_same(found, expected, initial, fields, transport=rollout.kind in ("affine", "offset"))


@few
@given(rollout=rollouts(), octaves=st.integers(-13, 10))
def test_scaling_moves_the_absolute_columns(device, rollout, octaves):
    """By a power of two, which float32 fields are scaled by without rounding."""
    initial, fields = rollout.trajectories()
    expected = responses_of(initial, fields, device)
    for name in ("innovation_abs", "noise_abs"):
        expected[name] += octaves * np.log10(2)
    a = np.float32(2.0**octaves)
    found = responses_of(a * initial, a * fields, device)
    assert_same(found, expected, initial, fields, transport=rollout.kind in ("affine", "offset"))


@few
@given(rollout=rollouts(realizations=(2, 5)), order=st.randoms(use_true_random=False))
def test_order_of_realizations_does_not_matter(device, rollout, order):
    initial, fields = rollout.trajectories()
    places = list(range(fields.shape[1]))
    order.shuffle(places)
    expected = responses_of(initial, fields, device)
    found = responses_of(initial, fields[:, places], device)
    assert_same(found, expected, initial, fields, transport=rollout.kind in ("affine", "offset"))
