"""Regimes of planted trajectories, from their features alone, and what checks say about them."""

import numpy as np
import pytest
import torch

from spinlock.checks import check_dataset
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.trajectory_histories import NEEDS, feature_histories, sample_regimes
from spinlock.checks.trajectory_regimes import REGIMES, RULES, classify, late_share
from spinlock.configuration.file_content import StorageConfig
from spinlock.features import extract, extract_per_timestep
from spinlock.features.response import extract_responses
from spinlock.generation import generate
from spinlock.plots.plot_style import png
from spinlock.report.plot_data import ReportSource
from spinlock.report.trajectory_plots import trajectory_plots
from spinlock.storage import schema
from tests.helpers import small_config

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
    # Conjugate to the tent map: its Lyapunov exponent is ln 2.
    "chaotic map": ("chaotic", lambda u, t: 1 - 2 * u.clamp(-1, 1).square(), BOUNDED, 1e-7),
    "noise": ("other", lambda u, t: torch.zeros_like(u), START, 1.0),
}


def planted(step, initial, noise, realizations=REALIZATIONS, scale=1.0):
    """Features of a trajectory, as a file stores them, and the histories from them."""
    u, fields = initial.expand(realizations, -1, -1, -1), []
    for t in range(STEPS):
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
    return trajectory, feature_histories(arrays, np.full((1, STEPS), scale * noise))


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


def test_one_realization_cannot_tell_cycles_from_chaos():
    for name in ("cycle", "chaotic map", "noise"):
        assert REGIMES[classify(planted(*MAPS[name][1:], realizations=1)[1])[0]] == "other"
    assert REGIMES[classify(planted(*MAPS["decaying"][1:], realizations=1)[1])[0]] == "frozen"


def test_every_regime_is_planted_and_has_a_rule():
    assert {regime for regime, *_ in MAPS.values()} == {*REGIMES} == {*RULES}


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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same trajectories with all fields and with none."""
    folder = tmp_path_factory.mktemp("trajectories")
    for fields in ("all", "none"):
        storage = StorageConfig(fields=fields, shard_size=16)
        config = small_config(
            16, num_realizations=2, num_timesteps=8, block_size=8, channels=2, storage=storage
        )
        generate(config, folder / f"{fields}.h5", progress=False)
    return folder


def test_checks_report_trajectories_with_and_without_fields(files):
    reports = {}
    for fields in ("all", "none"):
        report = check_dataset(files / f"{fields}.h5", replay=0, progress=False)
        reports[fields] = {row.name: row for row in report.rows if row.group == "trajectories"}
        assert [*reports[fields]] == ["regimes", "second half", "saturated"]
        assert all(row.passed for row in reports[fields].values())
    stored, bounded = reports["all"], reports["none"]
    assert stored["regimes"].measured == bounded["regimes"].measured
    assert stored["second half"].value == bounded["second half"].value > 0
    assert bounded["saturated"].measured.startswith("at most")
    with CheckSource.open(files / "all.h5") as source:
        last = np.abs(source.file[schema.OUTPUTS][:, :, -1])
        share = ((last > 9).mean((1, 2, 3, 4)) > 0.1).mean()
        found = sample_regimes(source, 100)
    assert stored["saturated"].value == share <= bounded["saturated"].value
    for regime, count in zip(REGIMES, np.bincount(found, minlength=len(REGIMES)), strict=True):
        assert (f"{regime} {count / 16:.1%}" in stored["regimes"].measured) == (count > 0)


@pytest.mark.parametrize("fields", ["all", "none"])
def test_the_report_shows_regimes_and_examples_of_stored_fields(files, fields):
    with ReportSource.open(files / f"{fields}.h5") as source:
        found = sample_regimes(source, 100)
        shares, *examples = trajectory_plots(source)
        plot = shares.draw()
        assert all(png(example.draw, dpi=20) for example in examples)
        policies = source.parameter_values()["update_policy"]
        titles = [example.draw().get_suptitle() for example in examples]
    names = {REGIMES[place] for place in found}
    expected = [name for name in REGIMES if name in names] if fields == "all" else []
    assert [title.split(":")[0] for title in titles] == expected
    axes = plot.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "all (16)"
    widths = np.reshape([bar.get_width() for bar in axes.patches], (len(REGIMES), -1))
    np.testing.assert_allclose(widths.sum(axis=0), 1)
    np.testing.assert_allclose(widths[:, 0] * 16, np.bincount(found, minlength=len(REGIMES)))
    row = next(place for place, label in enumerate(labels) if label.startswith("convex"))
    chosen = found[policies == b"convex"]
    assert labels[row] == f"convex ({len(chosen)})"
    np.testing.assert_allclose(
        widths[:, row] * len(chosen), np.bincount(chosen, minlength=len(REGIMES)), atol=1e-9
    )


def test_short_trajectories_have_no_claims(pristine):
    report = check_dataset(pristine, replay=0, progress=False)
    assert not [row for row in report.rows if row.group == "trajectories"]
