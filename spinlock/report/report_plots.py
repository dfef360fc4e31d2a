"""The report's figures: which there are, what each shows, and how it is drawn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from matplotlib.figure import Figure

from spinlock.checks.initial_condition_checks import (
    FAMILY_TOLERANCE,
    VARIANT_TOLERANCE,
    share_tolerance,
)
from spinlock.plots import field_plots as fields
from spinlock.plots import spectrum_plots as spectra
from spinlock.plots.design_plots import distribution_bars, sobol_pairs
from spinlock.plots.feature_plots import correlation_map, feature_histograms
from spinlock.report.plot_data import ReportSource
from spinlock.simulation.parameter_space import PARAMETER_NAMES
from spinlock.storage import schema

#: Pairs of axes that are shown: the numbers among them, and neighbours in the sequence.
PAIRS = (
    ("dropout_rate", "noise_scale"),
    ("noise_scale", "spatial_correlation"),
    ("alpha", "dt"),
    ("num_layers", "base_channels"),
    ("schedule_period", "alpha"),
    ("kernel_size", "dt"),
)


@dataclass(frozen=True)
class Picture:
    """One figure of the page.

    Attributes:
        section: Heading that it stands under.
        text: What it shows.
        draw: Makes it, in the current theme; GIF bytes if it moves.
        wide: Whether it is too wide for a phone and scrolls there in its own frame.
        small: Whether several stand side by side.
    """

    section: str
    text: str
    draw: Callable[[], Figure | bytes]
    wide: bool = False
    small: bool = False


def pictures(source: ReportSource) -> Iterator[Picture]:
    """The figures of a dataset, in the order of the page."""
    if source.has_fields:
        yield from _gallery(source)
    yield from _distribution(source)
    if source.has_fields:
        yield Picture(
            "Spectra",
            "Mean over up to 24 samples and all channels of each variant, on logarithmic axes. "
            "Band-limited variants fall to float32 rounding outside of their passbands.",
            lambda: spectra.radial_spectra(source.spectrum_samples()),
            wide=True,
        )
    points, families = source.points()
    yield Picture(
        "Design",
        "Pairs of the 15 axes; lines divide each axis into thirds, by which stratification is "
        "measured.",
        lambda: sobol_pairs(points, PARAMETER_NAMES, families, PAIRS),
        wide=True,
    )
    yield from _features(source)
    if source.config.num_timesteps > 1 and len(source.config.stored_steps) > 1:
        yield from _trajectories(source)


def _gallery(source: ReportSource) -> Iterator[Picture]:
    step = source.config.stored_steps[-1]
    for name in source.present:
        row = source.example(name)

        def draw(row: int = row, name: str = name) -> Figure:
            final = source.trajectory(row)[:, -1, 0]
            title = f"{name}: {source.describe(row)}"
            return fields.gallery_row(source.initial(row)[0], final, step=step, title=title)

        yield Picture(
            "Gallery",
            "The first channel of one sample of each variant: the initial condition, two noise "
            "realizations of what the operator makes of it, and the standard deviation over all "
            "realizations. Of a variant's samples the one whose noise_scale is nearest to 0.3.",
            draw,
            small=True,
        )


def _distribution(source: ReportSource) -> Iterator[Picture]:
    mixture = source.mixture
    text = "Measured shares of samples (bars) against the weights of the configuration, and by how "
    text += "much they may differ."
    families = tuple(dict.fromkeys(mixture.families))
    weights = [
        float(sum(w for f, w in zip(mixture.families, mixture.weights, strict=True) if f == name))
        for name in families
    ]
    for what, names, held, targets, allowed in (
        ("families", families, source.families, weights, FAMILY_TOLERANCE),
        ("variants", mixture.names, source.variants, mixture.weights.tolist(), VARIANT_TOLERANCE),
    ):
        tolerance = share_tolerance(source.config, allowed)
        shares = [float((held == name).mean()) for name in names]

        def draw(
            names: tuple[str, ...] = tuple(names),
            shares: list[float] = shares,
            targets: list[float] = targets,
            tolerance: float = tolerance,
            title: str = f"Initial conditions: {what}",
        ) -> Figure:
            allowed = [tolerance] * len(names)
            return distribution_bars(names, shares, targets, title=title, tolerances=allowed)

        yield Picture("Distribution", text, draw, small=True)


def _features(source: ReportSource) -> Iterator[Picture]:
    step = source.config.num_timesteps
    arrays = {schema.PER_TIMESTEP: f"Features of u_{step}"}
    if step >= 4:
        arrays[schema.AGGREGATED] = f"Features of trajectories of {step} steps"
    for name, title in arrays.items():
        values, names = source.features(name)
        yield Picture(
            "Features",
            f"{title}, mean over realizations and channels, of up to 5,000 samples; units are in "
            "docs/features.md and in the file's attribute features.",
            lambda v=values, n=names, t=title: feature_histograms(v, n, title=t),  # type: ignore[misc]
            wide=True,
        )
        yield Picture(
            "Features",
            f"{title}: which of them go together.",
            lambda v=values, n=names, t=title: correlation_map(v, n, title=t),  # type: ignore[misc]
            wide=True,
        )


def _trajectories(source: ReportSource) -> Iterator[Picture]:
    steps = source.config.stored_steps
    row = source.example(source.present[-1], policy="convex")
    title = f"{source.variants[row]}, channel 0, {source.describe(row)}"
    text = "One sample over time, two noise realizations of the same operator and beginning."
    yield Picture(
        "Trajectories",
        text,
        lambda: fields.film_strip(source.trajectory(row)[:, :, 0], steps, title=title),
        wide=True,
    )
    yield Picture(
        "Trajectories",
        "The same, moving.",
        lambda: fields.animation(source.trajectory(row)[:, :, 0], steps, title="channel 0"),
        small=True,
    )
