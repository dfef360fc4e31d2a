"""Building the report: a dataset file -> one self-contained HTML page."""

import base64
import os
from pathlib import Path

from matplotlib.figure import Figure

from spinlock.checks import CheckReport, check_dataset
from spinlock.plots.style import Theme, png, themed
from spinlock.progress import announce
from spinlock.report.figures import Picture, pictures
from spinlock.report.page import Embedded, render_page
from spinlock.report.sources import ReportSource
from spinlock.storage.layout import open_hdf5
from spinlock.storage.reader import read_info
from spinlock.storage.shards import publish

_THEMES: tuple[Theme, Theme] = ("light", "dark")


def write_report(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    checks: CheckReport | None = None,
    progress: bool = True,
) -> CheckReport:
    """Write the report of a dataset file: one page, figures embedded, that needs no network.

    Args:
        path: The dataset file.
        out: The page; a file of that name is replaced.
        checks: What `check_dataset` found; by default it is run.
        progress: Whether to show progress.

    Returns:
        The checks that the page shows.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If the file is not a dataset, or too damaged for figures.
    """
    path, out = Path(path), Path(out)
    info = read_info(path)
    checks = checks or check_dataset(path, progress=progress)
    with open_hdf5(path) as file:
        wanted = list(pictures(ReportSource(file, info.config)))
        if progress:
            announce(f"{path.name}: drawing {len(wanted)} figures")
        embedded = [_embed(picture) for picture in wanted]
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        temporary.write_text(render_page(info, checks, embedded), encoding="utf-8")
        publish(temporary, out, replace=True)
    finally:
        temporary.unlink(missing_ok=True)
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
