"""Building the report: a dataset file -> one self-contained HTML page."""

import base64
import os
from collections.abc import Collection
from pathlib import Path

from matplotlib.figure import Figure

from spinlock.checks import CheckReport, check_dataset
from spinlock.plots.plot_style import Theme, png, themed
from spinlock.report.page import Embedded, render_page
from spinlock.report.plot_data import ReportSource
from spinlock.report.report_plots import Picture, pictures
from spinlock.runtime.output_files import Kind, new_file
from spinlock.runtime.progress import announce
from spinlock.storage.layout import open_hdf5
from spinlock.storage.reader import read_info

# How `render_page` begins: another page is not taken for a report.
PAGE = Kind(
    "report of Spinlock",
    b'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    b'<meta name="viewport" content="width=device-width, initial-scale=1">'
    b'<meta name="color-scheme" content="light dark"><title>',
)
_THEMES: tuple[Theme, Theme] = ("light", "dark")


def write_report(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    checks: CheckReport | None = None,
    trust: Collection[str] = (),
    force: bool = False,
    progress: bool = True,
) -> CheckReport:
    """Write the report of a dataset file: one page, figures embedded, that needs no network.

    Args:
        path: The dataset file.
        out: The page to write.
        checks: What `check_dataset` found; by default it is run.
        trust: Modules of which the classes that the file names may be imported, for replay.
        force: Whether an existing report of that name is replaced. Any other file is left as it is.
        progress: Whether to show progress.

    Returns:
        The checks that the page shows.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If the file is not a dataset, or too damaged for figures.
        ConfigurationError: If ``out`` is refused; before anything is checked.
    """
    path = Path(path)
    info = read_info(path)
    with new_file(out, PAGE, source=path, force=force) as temporary:
        checks = checks or check_dataset(path, trust=trust, progress=progress)
        with open_hdf5(path) as file:
            wanted = list(pictures(ReportSource(file, info.config)))
            if progress:
                announce(f"{path.name}: drawing {len(wanted)} figures")
            embedded = [_embed(picture) for picture in wanted]
        temporary.write_bytes(render_page(info, checks, embedded).encode())
    return checks


def _embed(picture: Picture) -> Embedded:
    urls = []
    for theme in _THEMES:
        with themed(theme):
            urls.append(_data_url(picture.draw()))
    light, dark = urls
    return Embedded(picture, light, dark)


def _data_url(drawn: Figure | bytes) -> str:
    if isinstance(drawn, bytes):
        kind, content = "gif", drawn
    else:
        kind, content = "png", png(drawn)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
