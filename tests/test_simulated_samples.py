"""Simulated samples depend on every axis, have nominal variances and bands, and are bounded."""

import dataclasses

import numpy as np
import pytest
import torch

from spinlock.configuration.file_content import Every, StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import (
    IntegerRange,
    LogUniformRange,
    ParameterSpaceConfig,
    UniformRange,
)
from spinlock.configuration.parameter_space import ParameterSpace
from spinlock.configuration.variant_mixture import Mixture
from spinlock.features import extract
from spinlock.simulation.convolutional_operator import OUTPUT_BOUND
from spinlock.simulation.initial_conditions import BandLimited
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from tests.helpers import simulate, small_config


def pinned(unit, **forced):
    """A dataset of one operator: every axis pinned to its value at a coordinate of the cube."""
    config = ParameterSpaceConfig(
        base_channels=IntegerRange(8, 24), grid_size=(32,), num_layers=IntegerRange(2, 5)
    )
    row = ParameterSpace(config.base_axes).values(np.asarray(unit)[None])[0]
    kinds = {"UniformRange": UniformRange, "LogUniformRange": LogUniformRange}
    axes = {}
    for axis, allowed in config.base_axes.items():
        value = forced.get(axis, row[axis].item())
        value = value.decode() if isinstance(value, bytes) else value
        kind = type(allowed).__name__
        if kind == "tuple":
            axes[axis] = (value,)
        elif kind == "IntegerRange":
            axes[axis] = IntegerRange(value, value)
        else:
            axes[axis] = kinds[kind](value, value)
    return GenerationConfig(1, parameter_space=ParameterSpaceConfig(**axes), block_size=1)


AXES = [*ParameterSpaceConfig().base_axes]
# An axis of one choice has nothing to change; three act only where design.md says so.
FORCED = {
    "dt": {"update_policy": "residual"},
    "alpha": {"update_policy": "convex"},
    "schedule_period": {"noise_schedule": "periodic"},
}


@pytest.mark.parametrize("axis", [axis for axis in AXES if axis != "grid_size"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_axis_is_live_at_one_timestep(axis, seed):
    """Changing one coordinate alone changes u_1 by much more than rounding."""
    unit = np.random.default_rng(seed).uniform(0.2, 0.8, 15)
    unit[AXES.index("noise_scale")] = 0.9
    forced = FORCED.get(axis, {})
    outputs = []
    for coordinate in (0.1, 0.5, 0.9):
        unit[AXES.index(axis)] = coordinate
        outputs.append(simulate(pinned(unit, **forced), 0, 1)["fields"])
    distinct = 2 if axis == "noise_type" else 3
    count = len({output.tobytes() for output in outputs})
    assert count == distinct, f"{count} different outputs for {distinct} values of {axis}"
    change = np.sqrt(np.mean((outputs[2] - outputs[0]) ** 2))
    assert change > 1e-6, f"{axis} changes the output by {change:g} only"


@pytest.mark.parametrize(
    ("axis", "silencing"),
    [
        ("dt", {"update_policy": "convex"}),
        ("alpha", {"update_policy": "residual"}),
        ("schedule_period", {"noise_schedule": "annealing"}),
    ],
)
def test_axes_act_only_where_they_mean_something(axis, silencing):
    unit = np.full(15, 0.4)
    outputs = set()
    for coordinate in (0.1, 0.9):
        unit[AXES.index(axis)] = coordinate
        outputs.add(simulate(pinned(unit, **silencing), 0, 1)["fields"].tobytes())
    assert len(outputs) == 1


@pytest.fixture(scope="module")
def four_hundred():
    """Names of the variants and initial conditions of 400 samples."""
    config = small_config(400, grid_size=64)
    variant, drawn = make_design(config).variant, Simulator(config, "cpu").initial_conditions
    fields = drawn.fields(config.seed, torch.arange(400), variant, config.channels, 64)
    return np.array(Mixture(config.initial_conditions).names)[variant], fields.double().numpy()


def test_variances_of_400_samples_are_nominal(four_hundred):
    names, initial = four_hundred
    variance = initial.var(axis=(1, 2, 3))
    for name in set(names):
        nominal = float(name.rsplit("_", 1)[1]) if name.startswith("gaussian_noise") else 1.0
        np.testing.assert_allclose(variance[names == name], nominal, rtol=1e-4, err_msg=name)


def test_bands_of_400_samples_keep_their_power(four_hundred):
    names, initial = four_hundred
    f = np.fft.fftfreq(64)
    squared = f[:, None] ** 2 + f[None, :] ** 2
    for band, (low, high) in BandLimited.PASSBANDS.items():
        fields = initial[names == f"band_limited_{band}"]
        assert len(fields) > 20
        power = np.abs(np.fft.fft2(fields)) ** 2
        inside = power[..., (squared >= low**2) & (squared <= high**2)].sum(axis=(1, 2))
        assert (inside / power.sum(axis=(1, 2, 3)) > 0.9999).all(), band


@pytest.mark.slow
def test_200_samples_are_finite_bounded_and_different():
    config = small_config(200, block_size=16, num_realizations=2)
    samples = simulate(config, 0, 200)
    assert np.isfinite(samples["fields"]).all()
    # Autoregressive output is F + forcing; the others mix it with u_0. Forcing is unbounded in
    # principle, so the bound is checked where it is negligible, and loosely everywhere.
    values = make_design(config).values
    quiet = (values["noise_scale"] < 1e-3) & (values["update_policy"] == b"autoregressive")
    assert quiet.sum() > 15
    assert np.abs(samples["fields"][quiet]).max() <= OUTPUT_BOUND + 0.02
    assert np.abs(samples["fields"]).max() < 30
    assert len({field.tobytes() for field in samples["fields"].reshape(400, -1)}) == 400


@pytest.mark.repeated
def test_fifty_steps_of_40_samples_stay_finite_and_bounded(device):
    config = small_config(40, base_channels=(2, 3), num_timesteps=50, num_realizations=1)
    config = dataclasses.replace(config, channels=1)
    samples = simulate(config, 0, 40, device)
    assert samples["fields"].shape == (40, 1, 50, 1, 32, 32)
    assert np.isfinite(samples["fields"]).all()
    values = make_design(config).values
    steps = np.arange(51)
    for sample, row in enumerate(values):
        # |F| <= 10, so every policy obeys |u_t| <= |u_0| + (10 + |forcing|) * (its own gain).
        gain = row["dt"] * steps[-1] if row["update_policy"] == b"residual" else 1.0
        initial = np.abs(samples["initial"][sample]).max()
        forcing = 1.5 * row["noise_scale"] * 15
        bound = initial + (OUTPUT_BOUND + forcing) * max(gain, 1.0)
        assert np.abs(samples["fields"][sample]).max() <= bound
    for name in ("per_timestep", "per_trajectory", "aggregated"):
        assert np.isfinite(samples[name]).all(), name


@pytest.mark.parametrize(
    ("fields", "kept"), [("all", [0, 1, 2, 3]), ("last", [3]), (Every(2), [1, 3]), ("none", [])]
)
def test_stored_steps_are_those_asked_for(fields, kept):
    everything = simulate(small_config(3, num_timesteps=4), 0, 3)
    config = small_config(3, num_timesteps=4, storage=StorageConfig(fields=fields))
    some = simulate(config, 0, 3)
    np.testing.assert_array_equal(some["fields"], everything["fields"][:, :, kept])
    np.testing.assert_array_equal(some["per_trajectory"], everything["per_trajectory"])


def test_features_are_those_of_the_fields():
    samples = simulate(small_config(3, num_timesteps=4), 0, 3)
    features = extract(torch.from_numpy(samples["fields"]))
    np.testing.assert_allclose(features.per_timestep, samples["per_timestep"], rtol=1e-4, atol=1e-5)
    initial = extract(torch.from_numpy(samples["initial"][:, None, None])).per_timestep[:, 0]
    np.testing.assert_allclose(initial, samples["initial_features"], rtol=1e-4, atol=1e-5)
    assert np.isnan(simulate(small_config(1), 0, 1)["per_trajectory"]).all()


def test_realizations_share_the_start_and_differ_by_noise():
    samples = simulate(small_config(12, num_realizations=3), 0, 12)
    spread = samples["fields"].std(axis=1).mean(axis=(1, 2, 3, 4))
    assert (spread > 0).all()
