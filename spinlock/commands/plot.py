"""``spinlock plot`` saves a plot of one sample."""

from functools import partial
from pathlib import Path

from spinlock.commands.file_parser import file_parser, path_argument
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.runtime.output_files import PNG, new_file
from spinlock.storage.reader import read_info


def run(arguments: list[str]) -> None:
    """Save the plot and print its path."""
    parser = file_parser(
        "plot",
        "Save a plot of one sample of a dataset file as a PNG: for each channel, its "
        "initial condition, its realizations at the last stored timestep, and their spread.",
    )
    parser.add_argument(
        "--sample", type=int, required=True, metavar="I", help="index of the sample"
    )
    parser.add_argument("--out", type=path_argument, help="the PNG (default: FILE-sample-I.png)")
    parser.add_argument("--force", action="store_true", help="replace an existing PNG")
    given = parser.parse_args(arguments)
    out = given.out or Path(f"{given.file.stem}-sample-{given.sample}.png")
    plot_sample(given.file, given.sample, out, force=given.force)
    print(out)


def plot_sample(path: Path, sample: int, out: Path, *, force: bool = False) -> None:
    """Save a plot of one sample as a PNG.

    Args:
        path: Dataset file.
        sample: Index of the sample.
        out: PNG to write.
        force: Whether to replace an existing PNG; default: False. A file of another kind is never
            replaced.

    Raises:
        ConfigurationError: If the sample does not exist, or ``out`` is refused.
        DatasetError: If the file stores no fields.
    """
    config = read_info(path).config
    if not 0 <= sample < config.num_samples:
        raise ConfigurationError(
            f"sample: {path} holds the samples 0..{config.num_samples - 1}, got {sample}"
        )
    if not config.stored_steps:
        raise DatasetError(
            f"{path} stores no fields (storage.fields: none), so there is nothing to plot"
        )
    # Imported here because other commands do not need matplotlib.
    from spinlock.plots.field_plots import sample_plot
    from spinlock.plots.plot_style import png
    from spinlock.report.plot_data import ReportSource

    with (
        new_file(out, PNG, source=path, force=force) as temporary,
        ReportSource.open(path) as source,
    ):
        draw = partial(
            sample_plot,
            source.initial(sample),
            source.trajectory(sample)[:, -1],
            step=config.stored_steps[-1],
            title=f"{source.variants[sample]}: {source.describe(sample)}",
        )
        temporary.write_bytes(png(draw, dpi=150))
