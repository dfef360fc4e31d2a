"""Features of simulated samples and of extreme fields are finite and informative."""

import numpy as np
import pytest
import torch

from spinlock.configuration.file_content import StorageConfig
from spinlock.features import (
    AGGREGATED_NAMES,
    FEATURES,
    PER_TIMESTEP_NAMES,
    PER_TRAJECTORY_NAMES,
    extract,
    extract_per_timestep,
)
from spinlock.simulation.simulator import Simulator
from tests.helpers import small_config

from . import oracle
from .helpers import package_extract

pytestmark = pytest.mark.slow


def simulated(config, device="cpu"):
    """All samples of a dataset: initial conditions, fields, and the features made with them."""
    parts = list(Simulator(config, device).samples(0, config.num_samples))
    features = {
        name: torch.cat([getattr(part.features, name) for part in parts]).cpu().numpy()
        for name in ("per_timestep", "per_trajectory", "aggregated")
    }
    initial = torch.cat([part.initial for part in parts]).cpu()
    fields = torch.cat([part.fields for part in parts]).cpu()
    initial_features = torch.cat([part.initial_features for part in parts]).cpu().numpy()
    return initial, fields, features, initial_features


# ------------------------------------------------------------------- agreement with the oracle


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 24, "grid_size": 64, "num_realizations": 2},
        {"num_samples": 8, "num_timesteps": 10, "num_realizations": 3},
        {"num_samples": 4, "num_timesteps": 60, "num_realizations": 1, "channels": 1},
    ],
    ids=["T=1", "T=10", "T=60"],
)
def test_features_of_real_trajectories_agree_with_the_oracle(device, options):
    initial, fields, features, initial_features = simulated(small_config(**options), device)
    u = fields.numpy()
    oracle.assert_agreement(features, oracle.oracle_extract(u), u, "trajectory")
    u0 = initial.numpy()[:, None, None]
    expected = oracle.oracle_extract(u0)
    allowed = oracle.allowed_deviation(u0, expected)
    lines = oracle.disagreements({"per_timestep": initial_features[:, None]}, expected, allowed)
    assert not lines, "\n" + "\n".join(lines)


# ------------------------------------------------------------------------- informative columns


# Pairs that are equal or proportional for a single Gaussian field; see docs/features.md.
REDUNDANT = [
    {"spatial_variance", "spatial_std"},
    {"laplacian_energy", "laplacian_std"},
    {"spatial_std", "spatial_iqr", "spatial_mad"},
    {"laplacian_mean", "laplacian_std"},
    *({f"fft_power_scale_{band}_mean", f"fft_power_scale_{band}_std"} for band in range(5)),
]


def is_redundant(one, other):
    return any({one, other} <= known for known in REDUNDANT)


def too_similar(columns, names):
    """Pairs of columns (samples, K) whose correlation exceeds 0.9999 in modulus."""
    matrix = np.abs(np.corrcoef(columns.astype(np.float64).T))
    rows, others = np.nonzero(np.triu(matrix > 0.9999, 1))
    return [(names[i], names[j]) for i, j in zip(rows, others, strict=True)]


def assert_informative(columns, names):
    """Every column varies, and no two are redundant except the known pairs."""
    assert np.isfinite(columns).all()
    variance = columns.astype(np.float64).var(axis=0)
    assert [name for name, v in zip(names, variance, strict=True) if not v > 0] == []
    assert [pair for pair in too_similar(columns, names) if not is_redundant(*pair)] == []


def test_no_column_is_constant_or_a_copy_of_another():
    """100 samples like the baseline's, but for smaller operators."""
    config = small_config(100, grid_size=64, num_realizations=1, block_size=20)
    _, _, features, initial_features = simulated(config)
    assert_informative(features["per_timestep"][:, 0], PER_TIMESTEP_NAMES)
    assert_informative(initial_features, PER_TIMESTEP_NAMES)


@pytest.mark.repeated
def test_no_temporal_column_is_constant_or_a_copy_of_another():
    config = small_config(80, num_timesteps=12, num_realizations=2, block_size=10)
    _, _, features, _ = simulated(config)
    assert_informative(features["per_trajectory"][:, 0], PER_TRAJECTORY_NAMES)
    assert_informative(features["aggregated"], AGGREGATED_NAMES)


def test_the_comparison_of_columns_notices():
    columns = np.random.default_rng(0).standard_normal((500, 3))
    names = ("spatial_mean", "spatial_max", "spatial_min")
    assert_informative(columns, names)
    for wrong in (np.zeros(500), -2 * columns[:, 1] + 1, np.full(500, np.nan)):
        with pytest.raises(AssertionError):
            assert_informative(np.column_stack([columns[:, :2], wrong]), names)


@pytest.mark.repeated
def test_temporal_features_are_finite_for_every_operator():
    """T = 50 at 64x64."""
    storage = StorageConfig(fields="none", shard_size=6)
    config = small_config(
        6, grid_size=64, num_timesteps=50, num_realizations=1, block_size=6, storage=storage
    )
    _, _, features, initial_features = simulated(config)
    for values in (*features.values(), initial_features):
        assert np.isfinite(values).all()


# ------------------------------------------------------------------------------- extreme fields


def extreme_fields(amplitude, grid=(16, 12)):
    """[8, H, W]: constant, zero, one pixel, checkerboard; stripes, a step, noise, tiny on large."""
    i, j = np.mgrid[: grid[0], : grid[1]]
    pixel = ((i == 3) & (j == 0)).astype(float)
    noise = np.random.default_rng(0).uniform(-1, 1, grid)
    shapes = [
        np.ones(grid),
        np.zeros(grid),
        pixel,
        (-1.0) ** (i + j),
        (-1.0) ** j,
        np.where(i < 5, 1.0, -0.5),
        noise,
        0.99 + 0.01 * noise,
    ]
    return amplitude * np.stack(shapes)


def motions(T):
    """[6, T]: factors that keep a field, flip it, let it grow, die, come late, or vanish once."""
    t = np.arange(T)
    fade = np.exp(-30.0 * t / T)
    late, once = (t == T - 1).astype(float), (t != T // 2).astype(float)
    return np.stack([np.ones(T), (-1.0) ** t, fade[::-1], fade, late, once])


@pytest.mark.parametrize("T", [1, 2, 3, 4, 50, 500])
@pytest.mark.parametrize("amplitude", [1e-6, 1e-3, 1.0, 1e4])
def test_extreme_fields_have_finite_features_wherever_they_are_defined(device, amplitude, T):
    """NaN where a trajectory is too short, and nowhere else; nothing beyond its stated range."""
    u = np.einsum("shw,mt->smthw", extreme_fields(amplitude), motions(T))[:, :, :, None]
    fields = torch.from_numpy(u.astype(np.float32)).to(device)
    features = package_extract(fields.cpu().numpy(), device)
    assert np.isfinite(features["per_timestep"]).all()
    short = np.array([f.min_timesteps > T for f in FEATURES if f.group == "temporal"])
    for row in features["per_trajectory"].reshape(-1, 13):
        np.testing.assert_array_equal(np.isfinite(row), ~short)
        np.testing.assert_array_equal(np.isnan(row), short)
    for row in features["aggregated"]:
        np.testing.assert_array_equal(np.isfinite(row), ~np.tile(short, 3))
    alone = extract_per_timestep(fields).cpu().numpy()
    np.testing.assert_array_equal(alone, features["per_timestep"])


@pytest.mark.parametrize("grid", [(8, 8), (9, 11), (64, 64), (129, 128)])
@pytest.mark.parametrize("amplitude", [1e-6, 1e4])
def test_extreme_fields_on_any_grid(device, amplitude, grid):
    u = np.repeat(extreme_fields(amplitude, grid)[:, None, None, None], 4, axis=2)
    record = extract(torch.from_numpy(u.astype(np.float32)).to(device))
    for values in (record.per_timestep, record.per_trajectory, record.aggregated):
        assert torch.isfinite(values).all()
