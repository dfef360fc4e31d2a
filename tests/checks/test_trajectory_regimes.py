"""Regimes of planted trajectories, from their features alone, and what checks say about them."""

import math
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.fill_tables import filled
from spinlock.checks import CheckReport, check_dataset
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.trajectory_checks import FEWEST_TIMESTEPS, RESTING
from spinlock.checks.trajectory_histories import NEEDS, feature_histories, read_trajectories
from spinlock.checks.trajectory_regimes import REGIMES, RULES, SATURATED_RMS, classify, late_share
from spinlock.configuration.file_content import Every, StorageConfig
from spinlock.features import extract, extract_per_timestep
from spinlock.features.response import extract_responses
from spinlock.generation import generate
from spinlock.plots.plot_style import png
from spinlock.report.page import render_page
from spinlock.report.plot_data import ReportSource
from spinlock.report.trajectory_plots import trajectory_plots
from spinlock.storage import read_info, schema
from tests.helpers import small_config

pytestmark = pytest.mark.slow

STEPS, REALIZATIONS, SIDE = 40, 3, 16
GENERATOR = torch.Generator().manual_seed(5)
START = torch.randn(1, 2, SIDE, SIDE, generator=GENERATOR)
START -= START.mean((-2, -1), keepdim=True)
CYCLE = torch.randn(4, 1, 2, SIDE, SIDE, generator=GENERATOR)
BOUNDED = START / START.abs().max()

# Regime -> planted maps (u, t) -> Φ(u), their initial condition, and the noise of a step.
MAPS = {
    "constant": ("near-initial", lambda u, t: u, START, 1e-6),
    "decaying": ("frozen", lambda u, t: 0.7 * u, START, 1e-6),
    "noisy fixed point": ("frozen", lambda u, t: 0.5 * u + CYCLE[0], START, 0.05),
    "cycle": ("periodic", lambda u, t: CYCLE[t % 4], START, 1e-4),
    "travelling": ("periodic", lambda u, t: u.roll(1, -1), START, 1e-4),
    "saturating": ("saturated", lambda u, t: 10 * torch.tanh(0.3 * u), START, 1e-3),
    "residual": ("diverging", lambda u, t: u + 0.1 * START, START, 1e-3),
    "large residual": ("diverging", lambda u, t: u + 0.25 * START, 10 * START, 1e-3),
    "exponential": ("diverging", lambda u, t: 1.05 * u, START, 1e-3),
    # Settles from 1 at a plateau of 3 before the end.
    "plateau": ("other", lambda u, t: START * (1 + 2 / (1 + math.exp(14 - t / 2))), START, 1e-4),
    "early plateau": ("frozen", lambda u, t: START * (3 - 2 * 0.7**t), START, 1e-4),
    # Conjugate to the tent map: its Lyapunov exponent is ln 2.
    "chaotic map": ("chaotic", lambda u, t: 1 - 2 * u.clamp(-1, 1).square(), BOUNDED, 1e-7),
    "noise": ("other", lambda u, t: torch.zeros_like(u), START, 1.0),
}


def planted(step, initial, noise, realizations=REALIZATIONS, scale=1.0, steps=STEPS):
    """Features of a trajectory, as a file stores them, and the histories from them."""
    u, fields = initial.expand(realizations, -1, -1, -1), []
    for t in range(steps):
        u = step(u, t) + noise * torch.randn(u.shape, generator=GENERATOR)
        fields.append(u)
    initial, trajectory = scale * initial, scale * torch.stack(fields, dim=1)[None]
    responses = extract_responses(initial, trajectory)
    arrays = {
        schema.INITIAL_FEATURES: extract_per_timestep(initial[:, None, None])[:, 0],
        schema.PER_TIMESTEP: extract(trajectory).per_timestep,
        schema.RESPONSES: responses.per_timestep,
        schema.NOISE_RESPONSES: responses.noise,
        schema.DIVERGENCE: responses.divergence,
    }
    assert set(arrays) == {*NEEDS}
    arrays = {name: values.double().numpy() for name, values in arrays.items()}
    return trajectory, feature_histories(arrays, np.full((1, steps), scale * noise))


@pytest.mark.parametrize("name", MAPS)
def test_the_regime_of_a_planted_trajectory_is_found(name):
    regime, *rest = MAPS[name]
    fields, histories = planted(*rest)
    assert REGIMES[classify(histories)[0]] == regime
    # The histories are those of the fields.
    start = rest[1]
    fields = torch.cat([start.expand(1, REALIZATIONS, 1, -1, -1, -1), fields], dim=2).double()
    rms = fields.square().mean((1, 3, 4, 5)).sqrt()
    np.testing.assert_allclose(histories.rms, rms, rtol=0.02, atol=1e-5)
    step = fields.diff(dim=2).square().mean((1, 3, 4, 5)).sqrt()
    # Increments have a floor of 1e-5 of the field.
    np.testing.assert_allclose(histories.step, step, rtol=0.05, atol=2e-5)
    spread = fields[:, :, 1:].var(1).mean((2, 3, 4)).sqrt()
    np.testing.assert_allclose(histories.spread, spread, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MAPS if name != "saturating"])
def test_only_saturation_depends_on_the_unit_of_the_field(name):
    regime, *rest = MAPS[name]
    assert REGIMES[classify(planted(*rest, scale=0.1)[1])[0]] == regime
    assert REGIMES[classify(planted(*rest, scale=1e3)[1])[0]] in (regime, "saturated")


@pytest.mark.parametrize("noise", [1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("steps", [8, 12, 16, 24, 32])
def test_chaos_is_not_periodic_before_realizations_are_far_apart(steps, noise):
    _, step, start, _ = MAPS["chaotic map"]
    histories = planted(step, start, noise, steps=steps)[1]
    # Distances double at every step, so they exceed the accumulated forcing by far.
    assert REGIMES[classify(histories)[0]] in ("chaotic", "other")
    if steps == 32:
        assert REGIMES[classify(histories)[0]] == "chaotic"


def test_without_forcing_periodic_motion_is_not_claimed():
    """Realizations are equal then, whatever the map does."""
    for name in ("cycle", "chaotic map"):
        _, step, start, _ = MAPS[name]
        assert REGIMES[classify(planted(step, start, 0.0)[1])[0]] == "other"


def test_a_gaussian_field_is_saturated_from_the_rms_of_the_rule_on():
    field = np.random.default_rng(0).normal(size=100_000)
    for rms, expected in ((0.97 * SATURATED_RMS, False), (1.03 * SATURATED_RMS, True)):
        assert ((np.abs(rms * field) > 9).mean() > 0.1) == expected


def test_one_realization_cannot_tell_cycles_from_chaos():
    for name in ("cycle", "chaotic map", "noise"):
        assert REGIMES[classify(planted(*MAPS[name][1:], realizations=1)[1])[0]] == "other"
    assert REGIMES[classify(planted(*MAPS["decaying"][1:], realizations=1)[1])[0]] == "frozen"


def test_every_regime_is_planted_and_has_a_rule():
    assert {regime for regime, *_ in MAPS.values()} == {*REGIMES} == {*RULES}


def test_the_table_of_the_rules_is_up_to_date():
    page = (Path(__file__).parents[2] / "docs" / "dynamics.md").read_text(encoding="utf-8")
    assert filled(page) == page, "out of date: run python scripts/fill_tables.py"
    assert "<!-- table: regimes -->" in page


def test_the_late_share_is_that_of_the_variance_after_half_the_time():
    """Samples with the variance 1 of their means, and with the variance v over time after T/2."""
    random = np.random.default_rng(0)
    for variance in (0.0, 0.5, 3.0):
        means = random.normal(size=(2000, 1, 1))
        late = means + np.sqrt(variance) * random.normal(size=(2000, 50, 1))
        values = np.concatenate([means.repeat(50, 1), late], axis=1)
        total = 1 + variance / 2
        found = late_share(np.exp(values))
        np.testing.assert_allclose(found, variance * 49 / 50 / total, atol=0.06)
    assert np.isnan(late_share(np.ones((3, 4, 2)))).all()


def trajectories(path, fields, steps):
    """A file of 12 samples whose regimes differ."""
    options = {"grid_size": 22, "base_channels": (4, 4), "block_size": 12, "channels": 2}
    storage = StorageConfig(fields=fields, shard_size=12)
    config = small_config(12, num_realizations=2, num_timesteps=steps, storage=storage, **options)
    generate(config, path, progress=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same trajectories with some fields and with none."""
    folder = tmp_path_factory.mktemp("trajectories")
    for name, fields in {"some": Every(8), "none": "none"}.items():
        trajectories(folder / f"{name}.h5", fields, FEWEST_TIMESTEPS)
    return folder


def test_saturation_is_counted_on_the_last_timestep(tmp_path):
    trajectories(tmp_path / "last.h5", "last", 8)
    with CheckSource.open(tmp_path / "last.h5") as source:
        found = read_trajectories(source, 100)
        last = np.abs(source.file[schema.OUTPUTS][:, :, 0])
    saturated = (last > 9).mean((1, 2, 3, 4)) > 0.1
    np.testing.assert_array_equal(found.saturated, saturated)
    assert 0 < saturated.sum() < 12
    assert (found.possible | ~saturated).all()


def test_checks_report_trajectories_with_and_without_fields(files):
    reports = {}
    for fields in ("some", "none"):
        report = check_dataset(files / f"{fields}.h5", replay=0, progress=False)
        reports[fields] = {row.name: row for row in report.rows if row.group == "trajectories"}
        assert [*reports[fields]] == ["regimes", "second half", "saturated"]
        assert all(row.passed for row in reports[fields].values())
    stored, bounded = reports["some"], reports["none"]
    assert stored["second half"].value == bounded["second half"].value > 0
    with CheckSource.open(files / "some.h5") as source:
        last = np.abs(source.file[schema.OUTPUTS][:, :, -1])
        saturated = (last > 9).mean((1, 2, 3, 4)) > 0.1
        found = read_trajectories(source, 100)
        values = source.column(schema.PER_TIMESTEP)
    np.testing.assert_array_equal(found.saturated, saturated)
    assert 0 < saturated.sum() < 12
    assert stored["saturated"].value == saturated.mean()
    assert bounded["saturated"].measured.startswith(f"at most {found.possible.mean():.1%}; by")
    # One definition: the regime has the saturated samples to which no earlier rule applies.
    regime = found.regimes == REGIMES.index("saturated")
    earlier = np.isin(found.regimes, [REGIMES.index("near-initial"), REGIMES.index("diverging")])
    np.testing.assert_array_equal(regime, saturated & ~earlier)
    counts = np.bincount(found.regimes, minlength=len(REGIMES))
    for name, count in zip(REGIMES, counts, strict=True):
        assert (f"{name} {count / 12:.1%}" in stored["regimes"].measured) == (count > 0)
    moving = values[~np.isin(found.regimes, [REGIMES.index(name) for name in RESTING])]
    assert 0 < len(moving) < 12
    expected = f"{np.nanmean(late_share(moving)):.1%} without near-initial and frozen ones"
    assert expected in stored["second half"].measured


@pytest.mark.parametrize("fields", ["some", "none"])
def test_the_report_shows_regimes_and_examples_of_stored_fields(files, fields):
    with ReportSource.open(files / f"{fields}.h5") as source:
        found = read_trajectories(source, 100).regimes
        shares, *examples = trajectory_plots(source)
        plot = shares.draw()
        assert all(png(example.draw, dpi=20) for example in examples)
        policies = source.parameter_values()["update_policy"]
        titles = [example.draw().get_suptitle() for example in examples]
    page = render_page(read_info(files / f"{fields}.h5"), CheckReport(()), [shares], ["data:,"])
    for name, rule in RULES.items():
        assert f"<dt>{name}</dt><dd>{escape(rule)}</dd>" in page
    names = {REGIMES[place] for place in found}
    expected = [name for name in REGIMES if name in names] if fields == "some" else []
    assert [title.split(":")[0] for title in titles] == expected
    axes = plot.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "all (12)"
    widths = np.reshape([bar.get_width() for bar in axes.patches], (len(REGIMES), -1))
    np.testing.assert_allclose(widths.sum(axis=0), 1)
    np.testing.assert_allclose(widths[:, 0] * 12, np.bincount(found, minlength=len(REGIMES)))
    row = next(place for place, label in enumerate(labels) if label.startswith("convex"))
    chosen = found[policies == b"convex"]
    assert labels[row] == f"convex ({len(chosen)})"
    np.testing.assert_allclose(
        widths[:, row] * len(chosen), np.bincount(chosen, minlength=len(REGIMES)), atol=1e-9
    )


def test_short_trajectories_have_no_claims(pristine):
    report = check_dataset(pristine, replay=0, progress=False)
    assert not [row for row in report.rows if row.group == "trajectories"]
