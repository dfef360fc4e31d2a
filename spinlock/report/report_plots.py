"""The plots of the report: their order, captions and data."""

from collections.abc import Iterator
from functools import partial

from matplotlib.figure import Figure

from spinlock.checks.initial_condition_checks import (
    FAMILY_TOLERANCE,
    VARIANT_TOLERANCE,
    share_tolerance,
)
from spinlock.plots.design_plots import distribution_bars, sobol_pairs
from spinlock.plots.dynamics_plots import measured_against_true
from spinlock.plots.feature_plots import correlation_map, feature_histograms
from spinlock.plots.field_plots import sample_plot
from spinlock.plots.spectrum_plots import radial_spectra
from spinlock.plots.variance_plots import variance_bars
from spinlock.report.plot_data import ReportSource
from spinlock.report.report_plot import ReportPlot
from spinlock.report.trajectory_plots import trajectory_plots
from spinlock.storage import schema

#: Pairs of axes to plot: the numerical axes, and neighbors in the Sobol sequence.
PAIRS = (
    ("dropout_rate", "noise_scale"),
    ("noise_scale", "spatial_correlation"),
    ("alpha", "dt"),
    ("num_layers", "base_channels"),
    ("schedule_period", "alpha"),
    ("kernel_size", "dt"),
)


def report_plots(source: ReportSource) -> Iterator[ReportPlot]:
    """Yield the plots of a dataset in the order of the page."""
    steps = source.config.stored_steps
    if steps:
        yield from _gallery(source)
    yield from _distribution(source)
    if steps:
        yield ReportPlot(
            "Spectra",
            "Mean power over up to 24 samples of each variant and over all channels. The power of "
            "band-limited variants falls to float32 rounding outside their passbands.",
            lambda: radial_spectra(source.spectrum_samples()),
        )
    points, families = source.points()
    yield ReportPlot(
        "Design",
        "Operators in six pairs of axes. The grid divides each axis into thirds, whose "
        "counts the checks of the design compare.",
        lambda: sobol_pairs(points, source.config.space.names, families, PAIRS),
    )
    yield from _features(source)
    yield from _variance(source)
    yield from _dynamics(source)
    yield from trajectory_plots(source)


def _gallery(source: ReportSource) -> Iterator[ReportPlot]:
    def draw(name: str) -> Figure:
        row = source.example(name)
        return sample_plot(
            source.initial(row)[:1],
            source.trajectory(row)[:, -1, :1],
            step=source.config.stored_steps[-1],
            title=f"{name}: {source.describe(row)}",
            realizations=2,
        )

    for name in source.present:
        yield ReportPlot(
            "Gallery",
            "First channel of one sample of each variant: the initial condition, the output of the "
            "operator for two noise realizations, and the standard deviation over all "
            "realizations. The sample is the one whose noise_scale is closest to 0.3.",
            partial(draw, name),
            small=True,
        )


def _distribution(source: ReportSource) -> Iterator[ReportPlot]:
    families: dict[str, float] = {}
    for family, weight in zip(
        source.config.mixture.families, source.config.mixture.weights, strict=True
    ):
        families[family] = families.get(family, 0.0) + float(weight)
    variants = dict(
        zip(source.config.mixture.names, source.config.mixture.weights.tolist(), strict=True)
    )
    for what, weights, labels, tolerance in (
        ("families", families, source.families, FAMILY_TOLERANCE),
        ("variants", variants, source.variants, VARIANT_TOLERANCE),
    ):
        yield ReportPlot(
            "Distribution",
            "Measured shares of samples (bars), with the weights of the configuration and the "
            "allowed deviations.",
            partial(
                distribution_bars,
                list(weights),
                [float((labels == name).mean()) for name in weights],
                list(weights.values()),
                share_tolerance(source.config, tolerance),
                title=f"Initial conditions: {what}",
            ),
            small=True,
        )


def _features(source: ReportSource) -> Iterator[ReportPlot]:
    steps = source.config.num_timesteps
    arrays = {schema.PER_TIMESTEP: f"Features of u_{steps}"}
    if steps >= 4:
        arrays[schema.AGGREGATED] = f"Features of trajectories of {steps} timesteps"
    for name, title in arrays.items():
        values, names = source.features(name)
        yield ReportPlot(
            "Features",
            f"{title}, averaged over realizations and channels, of up to 5,000 samples. Units are "
            "listed in docs/features.md and in the file's attribute features.",
            partial(feature_histograms, values, names, title=title),
        )
        yield ReportPlot(
            "Features",
            f"{title}: correlations between features.",
            partial(correlation_map, values, names, title=title),
        )


def _variance(source: ReportSource) -> Iterator[ReportPlot]:
    if shares := source.variance():
        yield ReportPlot(
            "Variance",
            "Shares of the variance of each column that operators, variants of the initial "
            "condition and neither of them explain, after a transformation to normal ranks. Lines "
            "are 95 % confidence intervals of the share of the operator. Samples of up to 10,000 "
            "operators.",
            partial(variance_bars, shares, title="Variance of features by operator and variant"),
        )


def _dynamics(source: ReportSource) -> Iterator[ReportPlot]:
    if schema.DYNAMICS not in source.specs:
        return
    values, names = source.features(schema.DYNAMICS)
    title = "Dynamics of operators"
    yield ReportPlot(
        "Dynamics",
        "Dynamics of up to 5,000 operators, measured without forcing on fields of their own. "
        "Definitions and units are listed in docs/dynamics.md.",
        partial(feature_histograms, values, names, title=title, over="operators"),
    )
    pairs = {name: f"true_{name}" for name in names if f"true_{name}" in names}
    if pairs:
        columns = dict(zip(names, values.T, strict=True))
        yield ReportPlot(
            "Dynamics",
            "Measured transport and growth against the true values of the operators' axes, colored "
            "by heterogeneity, the share of the Jacobian that depends on the state. The measured "
            "values contain the transport and the gain of the network, which are strong in "
            "nonlinear operators. Values far outside the range of the true ones are drawn at the "
            "edge.",
            partial(
                measured_against_true,
                {name: (columns[name], columns[true]) for name, true in pairs.items()},
                columns["heterogeneity"],
                color_label="heterogeneity",
                title="Transport of operators: measured and true",
            ),
        )
