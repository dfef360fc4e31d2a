"""``spinlock plot``: one sample as a picture."""

from argparse import ArgumentParser
from pathlib import Path

from spinlock.errors import ConfigurationError, DatasetError
from spinlock.runtime.output_files import PNG, new_file
from spinlock.storage.layout import open_hdf5
from spinlock.storage.reader import read_info


def run(arguments: list[str]) -> None:
    """Save the picture."""
    parser = ArgumentParser(
        prog="spinlock plot",
        allow_abbrev=False,
        description="Save one sample of a dataset file as a PNG: its initial condition, "
        "realizations at the last stored timestep, and their spread, channel by channel.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--sample", type=int, required=True, metavar="I", help="index of the sample"
    )
    parser.add_argument("--out", type=Path, help="the PNG; by default FILE-sample-I.png")
    parser.add_argument("--force", action="store_true", help="replace an existing PNG")
    given = parser.parse_args(arguments)
    out = given.out or Path(f"{given.file.stem}-sample-{given.sample}.png")
    plot_sample(given.file, given.sample, out, force=given.force)
    print(out)


def plot_sample(path: Path, sample: int, out: Path, *, force: bool = False) -> None:
    """Save one sample as a PNG.

    Args:
        path: The dataset file.
        sample: The index of the sample.
        out: The picture to write.
        force: Whether an existing PNG of that name is replaced. Any other file is left as it is.

    Raises:
        ConfigurationError: If there is no such sample, or ``out`` is refused.
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
    # Imported here: no other command needs matplotlib.
    from spinlock.plots.field_plots import sample_figure
    from spinlock.plots.plot_style import png, themed
    from spinlock.report.plot_data import ReportSource

    with new_file(out, PNG, source=path, force=force) as temporary, open_hdf5(path) as file:
        source = ReportSource(file, config)
        with themed("light"):
            figure = sample_figure(
                source.initial(sample),
                source.trajectory(sample)[:, -1],
                step=config.stored_steps[-1],
                title=f"{source.variants[sample]}: {source.describe(sample)}",
            )
            temporary.write_bytes(png(figure, dpi=150))
