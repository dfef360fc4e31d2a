"""Plots of datasets show the given data, with labels."""

import io

import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib import image

from spinlock.metrics import variance_shares
from spinlock.plots import field_plots as fields, spectrum_plots as spectra
from spinlock.plots.design_plots import distribution_bars, sobol_pairs
from spinlock.plots.dynamics_plots import measured_against_true
from spinlock.plots.feature_plots import correlation_map, feature_histograms, rank_correlations
from spinlock.plots.plot_style import label_colors, png
from spinlock.plots.variance_plots import variance_bars
from spinlock.simulation.initial_conditions import BandLimited

RANDOM = np.random.default_rng(3)
INITIAL = RANDOM.normal(size=(2, 16, 16)).astype(np.float32)
FINAL = RANDOM.normal(size=(3, 2, 16, 16)).astype(np.float32)


def images(plot):
    return [one for axis in plot.axes for one in axis.images]


def texts(plot):
    found = [plot.get_suptitle()]
    for axis in plot.axes:
        found += [axis.get_title(), axis.get_xlabel(), axis.get_ylabel()]
    legends = [*plot.legends, *(axis.get_legend() for axis in plot.axes)]
    found += [text.get_text() for one in legends if one for text in one.get_texts()]
    return [text for text in found if text]


def test_a_sample_is_shown_as_it_is():
    plot = fields.sample_plot(INITIAL, FINAL, step=4, title="a sample")
    shown = [one.get_array() for one in images(plot)]
    # Two rows of u_0, three realizations and their spread.
    assert len(shown) == 10
    np.testing.assert_array_equal(shown[0], INITIAL[0])
    np.testing.assert_array_equal(shown[1], FINAL[0, 0])
    np.testing.assert_array_equal(shown[7], FINAL[1, 1])
    np.testing.assert_allclose(shown[9], FINAL[:, 1].std(axis=0, ddof=1), rtol=1e-5)
    limits = {one.get_clim() for one in images(plot)[:4]}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high
    assert {"a sample", "$u_0$", "$u_{4}$, realization 3", "channel 1", "u (dimensionless)"} <= set(
        texts(plot)
    )


def test_rows_of_tokens_show_fields_and_changes():
    shown = {"token 3\nstable": FINAL[0], "token 1": FINAL[1]}
    plot = fields.token_rows(INITIAL, shown, ["a_b", "c"], step=2, title="tokens")
    drawn = [one.get_array() for one in images(plot)]
    rows = [INITIAL, *(half for each in shown.values() for half in (each, each - INITIAL))]
    np.testing.assert_array_equal(drawn, np.concatenate(rows))
    limits = [one.get_clim()[1] for one in images(plot)]
    # One scale for fields, and one for the changes of each row.
    assert len({limits[k] for k in (0, 1, 2, 3, 6, 7)}) == 1
    assert limits[4] == limits[5] != limits[8] == limits[9]
    expected = {"tokens", "$u_0$", "token 3\nstable", "token 1", "a\nb", "c"}
    assert expected <= set(texts(plot))
    assert "change $u_{2} - u_0$" in {axis.get_title(loc="left") for axis in plot.axes}


def test_the_spread_is_shown_only_of_several_realizations():
    several = fields.sample_plot(INITIAL[:1], FINAL[:, :1], step=1, title="t", realizations=2)
    assert len(images(several)) == 4
    shown = images(several)[3].get_array()
    np.testing.assert_allclose(shown, FINAL[:, 0].std(axis=0, ddof=1), rtol=1e-5)
    alone = fields.sample_plot(INITIAL[:1], FINAL[:1, :1], step=1, title="t")
    assert len(images(alone)) == 2


def test_the_gallery_has_a_column_for_each_variant():
    plot = fields.gallery(FINAL[:, 0], FINAL[:, 1], ["one", "two", "three"], step=1, title="t")
    shown = [one.get_array() for one in images(plot)]
    np.testing.assert_array_equal(shown[:3], FINAL[:, 0])
    np.testing.assert_array_equal(shown[3:], FINAL[:, 1])


@pytest.mark.parametrize(("stored", "shown"), [(3, 3), (20, 8)])
def test_film_strips_begin_and_end_with_the_trajectory(stored, shown):
    film = RANDOM.normal(size=(2, stored, 8, 8)).astype(np.float32)
    steps = [5 * (i + 1) for i in range(stored)]
    plot = fields.film_strip(film, steps, title="t")
    panels = images(plot)
    assert len(panels) == 2 * shown
    np.testing.assert_array_equal(panels[0].get_array(), film[0, 0])
    np.testing.assert_array_equal(panels[shown].get_array(), film[1, 0])
    np.testing.assert_array_equal(panels[-1].get_array(), film[1, -1])
    titles = [axis.get_title() for axis in plot.axes[:shown]]
    assert (titles[0], titles[-1]) == ("t = 5", f"t = {5 * stored}")


def test_radial_spectra_of_known_fields():
    size = 32
    x = np.arange(size)
    wave = np.sqrt(2) * np.cos(2 * np.pi * 5 * x / size)[None, None] * np.ones((1, size, 1))
    frequency, power = spectra.radial_spectrum(wave)
    assert frequency[0] == 1 / size
    # Two modes of unit variance in all among those of radius 5 +- 1/2.
    k = np.fft.fftfreq(size, 1 / size)
    modes = (np.hypot(k[:, None], k).round() == 5).sum()
    assert power[4] == pytest.approx(size**2 / modes)
    assert np.delete(power, 4).max() < 1e-20 * power[4] + 1e-20
    white = RANDOM.normal(scale=1.5, size=(40, size, size))
    _, flat = spectra.radial_spectrum(white)
    np.testing.assert_allclose(flat[:20], 2.25, rtol=0.2)


def test_spectra_show_the_passbands():
    samples = {"noise": RANDOM.normal(size=(2, 1, 16, 16)), "other": np.ones((1, 1, 16, 16))}
    plot = spectra.radial_spectra(samples)
    shown = texts(plot)
    assert {*(f"passband {band}" for band in BandLimited.PASSBANDS), "noise", "other"} <= set(shown)
    assert "frequency (cycles/pixel)" in shown
    (axis,) = plot.axes
    assert axis.get_xscale() == axis.get_yscale() == "log"


def test_bars_are_shares():
    plot = distribution_bars(["a", "b"], [0.3, 0.7], [0.25, 0.75], 0.02, title="t")
    (axis,) = plot.axes
    assert [patch.get_width() for patch in axis.patches] == pytest.approx([30, 70])
    assert [text.get_text().strip() for text in axis.texts] == ["30.00 %", "70.00 %"]
    assert {"share of samples (%)", "target and tolerance", "t"} <= set(texts(plot))


def test_pairs_show_every_point_once():
    points = RANDOM.uniform(size=(50, 3))
    families = ["x"] * 20 + ["y"] * 30
    plot = sobol_pairs(points, ["a", "b", "c"], families, [("a", "b"), ("c", "a")])
    for axis, columns in zip(plot.axes, ([0, 1], [2, 0]), strict=False):
        drawn = np.concatenate([one.get_offsets() for one in axis.collections])
        np.testing.assert_allclose(drawn, points[:, columns])
    assert {"x", "y", "a", "b", "c"} <= set(texts(plot))


def test_rank_correlations_are_those_of_scipy():
    from scipy.stats import spearmanr

    values = RANDOM.normal(size=(60, 4)) @ RANDOM.normal(size=(4, 4))
    values[:, 3] = values[:, 0].round()
    np.testing.assert_allclose(rank_correlations(values), spearmanr(values).statistic, atol=1e-12)
    values[:, 1] = 2
    assert (rank_correlations(values)[1] == 0).all()
    assert (rank_correlations(values[:1]) == 0).all()


def test_features_without_values_are_drawn():
    values = RANDOM.normal(size=(30, 3))
    values[:, 1], values[4, 2] = np.nan, np.inf
    values[:, 0] = 2
    plot = feature_histograms(values, ["constant", "missing", "infinite"], title="t")
    heights = [sum(patch.get_height() for patch in axis.patches) for axis in plot.axes[:3]]
    assert heights[:2] == [30, 0]
    assert 27 <= heights[2] <= 29
    assert {"constant", "missing", "infinite"} <= set(texts(plot))
    found = correlation_map(values[:, [0, 2]], ["constant", "infinite"], title="t")
    assert "29 samples" in found.get_suptitle()


def test_bars_of_variance_are_the_shares_in_order():
    operator, variant = torch.arange(120) // 3, torch.arange(120) % 4
    noise = torch.from_numpy(RANDOM.normal(size=(120, 3)))
    columns = torch.stack([variant, operator, 0 * operator], dim=1) + 0.3 * noise
    shares = variance_shares(columns, variant, operator, resamples=20)
    groups = {"one": (["v", "o", "n"], shares), "two": (["V", "O", "N"], shares)}
    plot = variance_bars(groups, title="t")
    assert [axis.get_title() for axis in plot.axes] == ["one", "two"]
    axis = plot.axes[0]
    ticks = [label.get_text() for label in axis.get_yticklabels()]
    assert ticks[0] == "o"
    order = ["von".index(name) for name in ticks]
    bars = np.array([[bar.get_width() for bar in part] for part in axis.containers])
    assert {"operator", "variant", "rest", "t"} <= set(texts(plot))
    np.testing.assert_allclose(bars[0], shares.operator[order].clamp(0, 1), atol=1e-12)
    np.testing.assert_allclose(bars.sum(axis=0), 1, atol=0.05)
    assert bars[1][ticks.index("v")] > 0.8
    lines = axis.collections[0].get_segments()
    np.testing.assert_allclose(
        [[line[0][0], line[1][0]] for line in lines],
        shares.operator_interval[order].clamp(0, 1),
        atol=1e-12,
    )
    assert len(variance_bars({"one": groups["one"]}, title="t").axes) == 1


def test_measured_values_stand_above_true_ones():
    true = RANDOM.uniform(size=20)
    measured = true + 0.1
    measured[3] = 50
    color = RANDOM.uniform(size=20)
    plot = measured_against_true(
        {"a": (measured, true), "b": (true, true)}, color, color_label="c", title="t"
    )
    points = plot.axes[0].collections[0]
    np.testing.assert_allclose(points.get_offsets()[:, 0], true)
    np.testing.assert_allclose(
        points.get_offsets()[:, 1], np.minimum(measured, true.max() + 0.5 * np.ptp(true))
    )
    np.testing.assert_allclose(points.get_array(), color)
    assert {"a", "b", "true", "measured", "c", "t"} <= set(texts(plot))


def test_plots_look_the_same_in_every_style_and_leave_matplotlib_alone():
    def draw():
        return distribution_bars(["a"], [1.0], [1.0], 0.1, title="t")

    expected = png(draw, dpi=40)
    assert image.imread(io.BytesIO(expected))[0, 0, :3].sum() == 3, "the background is white"
    with matplotlib.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        assert png(draw, dpi=40) == expected
        assert dict(matplotlib.rcParams) == before


def test_colors_are_distinct():
    assert len(set(label_colors([str(i) for i in range(10)]).values())) == 10
    assert len(set(label_colors([str(i) for i in range(20)]).values())) == 20


def test_plots_leave_no_pyplot_state():
    fields.sample_plot(INITIAL, FINAL, step=1, title="t")
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="part of matplotlib")
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("values", "decades"),
    [
        (RANDOM.normal(size=2000), False),
        (RANDOM.laplace(size=2000), False),
        (1000 + RANDOM.normal(size=2000), False),
        (np.zeros(20), False),
        (10 ** RANDOM.uniform(-3, 2, 2000), True),
        (RANDOM.choice([-1, 1], 2000) * 10 ** RANDOM.uniform(-3, 2, 2000), True),
        (np.r_[np.zeros(1500), 10 ** RANDOM.uniform(-3, 2, 500)], True),
    ],
    ids=["normal", "laplace", "offset", "zero", "positive", "both signs", "sparse"],
)
def test_histograms_are_logarithmic_where_values_span_decades(values, decades):
    plot = feature_histograms(values[:, None], ["one"], title="t")
    axes = plot.axes[0]
    assert axes.get_xscale() == ("asinh" if decades else "linear")
    counts = [bar.get_height() for bar in axes.patches]
    low, high = np.quantile(values, [0.005, 0.995])
    assert sum(counts) == ((values >= low) & (values <= high)).sum()
    # The widths of the bars on the page are equal, and no bar other than that of 0 hides the rest.
    ends = axes.transData.transform([(bar.get_x(), 0) for bar in axes.patches])[:, 0]
    np.testing.assert_allclose(np.diff(ends), np.diff(ends).mean(), rtol=1e-6)
    if decades:
        assert sorted(counts)[-2] < 0.1 * np.count_nonzero(values)
        assert 2 <= len(axes.get_xticks()) <= 5
