"""Functions behind the checks, compared with independent calculations."""

import math

import h5py
import numpy as np
import pytest

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.design_checks import quality_targets
from spinlock.checks.feature_checks import bounds
from spinlock.checks.field_statistics import band_shares
from spinlock.checks.initial_condition_checks import share_tolerance
from spinlock.checks.liveness import expected_spread
from spinlock.features import FEATURES
from spinlock.features.response import RESPONSE_FEATURES
from spinlock.simulation.dynamics_columns import DYNAMICS
from spinlock.simulation.initial_conditions import BandLimited
from spinlock.storage.stored_configuration import read_configuration
from tests.helpers import parameter_values, small_config


@pytest.mark.parametrize("size", [16, 17, 32])
def test_band_shares_are_those_of_the_full_plane(size):
    fields = np.random.default_rng(size).normal(size=(2, 3, size, size)) + 0.3
    power = np.abs(np.fft.fft2(fields)) ** 2
    f = np.fft.fftfreq(size)
    radius = np.hypot(f[:, None], f)
    for band, (low, high) in enumerate(BandLimited.PASSBANDS.values()):
        inside = (radius >= low - 1e-12) & (radius <= high + 1e-12)
        expected = power[..., inside].sum(axis=-1) / power.sum(axis=(-2, -1))
        np.testing.assert_allclose(band_shares(fields)[..., band], expected, rtol=1e-12)


def test_every_range_of_the_registry_is_understood():
    for feature in (*FEATURES, *RESPONSE_FEATURES, *DYNAMICS):
        low, high = bounds(feature.range, 128, 50)
        assert low < high
        if feature.range != "ℝ":
            assert math.isfinite(low), feature
    assert bounds("[−½ side, ½ side]", 16, 1) == (-8, 8)
    assert bounds("[0, 0.71·side]", 100, 1) == (0, 71)
    assert bounds("[−√n, √n]", 128, 50) == (-128, 128)
    assert bounds("[−2, n)", 128, 50) == (-2, 16384)
    assert bounds("(0, 1], 0 if flat", 128, 50) == (0, 1)
    assert bounds("[1/T, ½], 0 if static", 128, 50) == (0, 0.5)
    assert bounds("(0.3, T]", 128, 50) == (0.3, 50)
    assert bounds("[1e-6, 1e6]", 128, 50) == (1e-6, 1e6)
    assert bounds("ℝ", 128, 50) == bounds("about [1, 2]", 1, 1) == (-math.inf, math.inf)
    assert bounds("[a, b]", 1, 1) == (-math.inf, math.inf)


def test_targets_at_the_promised_size_are_the_promised_ones():
    targets = quality_targets(10_000, 15)
    assert targets["centered_l2_discrepancy"] == pytest.approx(0.00052)
    assert targets["max_abs_correlation"] == pytest.approx(0.0025)
    assert targets["min_stratum_count"] == pytest.approx(10_000 / 3 - 5)
    assert targets["min_pair_stratum_count"] == pytest.approx(10_000 / 9 - 25)


@pytest.mark.parametrize("points", [8, 100, 500, 3000, 10_000, 100_000])
def test_targets_exclude_random_points(points):
    """Hickernell's expectation for independent points, and where their counts fall."""
    targets = quality_targets(points, 15)
    random = ((5 / 4) ** 15 - (13 / 12) ** 15) / points
    assert targets["centered_l2_discrepancy"] <= random
    if points >= 3000:
        assert targets["centered_l2_discrepancy"] < 0.5 * random
        # The largest of 105 correlations of independent axes is beyond 2.5 / sqrt(N).
        assert targets["max_abs_correlation"] < 2.5 / math.sqrt(points)


def test_tolerances_of_shares_shrink_to_the_promised_ones():
    assert share_tolerance(small_config(10_000), 0.01) == 0.01
    assert share_tolerance(small_config(100), 0.01) == 0.03
    assert share_tolerance(small_config(100, probes_per_operator=4), 0.01) == 0.12


def test_the_spread_that_noise_gives(pristine):
    with h5py.File(pristine) as file:
        source = CheckSource(file, read_configuration(file))
        values = parameter_values(file)
        found = expected_spread(source, np.arange(160), 1)
    period = 2 * math.pi / values["schedule_period"]
    schedule = {b"constant": 1, b"annealing": 1 - 1 / 5, b"periodic": 1 + 0.5 * np.sin(period)}
    policy = {b"autoregressive": 1, b"residual": values["dt"], b"convex": 1 - values["alpha"]}
    expected = values["noise_scale"].copy()
    for name, factors in (("noise_schedule", schedule), ("update_policy", policy)):
        for label, factor in factors.items():
            rows = values[name] == label
            expected[rows] *= np.broadcast_to(factor, 160)[rows]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("count", [10, 40, 160, 500])
def test_chosen_samples_are_of_every_variant_in_proportion(count, pristine):
    with h5py.File(pristine) as file:
        source = CheckSource(file, read_configuration(file))
        chosen = source.choose(count)
        assert chosen.tolist() == sorted(set(chosen.tolist())) == source.choose(count).tolist()
        assert len(chosen) == min(count, 160)
        # Not the first ones, which one shard may have computed.
        assert (chosen.max() > 1.2 * count) == (count < 100)
        for variant in np.unique(source.variants):
            share = (source.variants == variant).mean()
            assert abs((source.variants[chosen] == variant).sum() - share * len(chosen)) <= 1
