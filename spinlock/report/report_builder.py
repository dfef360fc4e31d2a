"""Builds the report of a dataset file: one self-contained HTML page."""

import base64
import os
from collections.abc import Collection
from pathlib import Path

from spinlock.checks import CheckReport, check_dataset
from spinlock.plots.plot_style import png
from spinlock.report.html_parts import page_start
from spinlock.report.page import render_page
from spinlock.report.plot_data import ReportSource
from spinlock.report.report_plots import report_plots
from spinlock.runtime.output_files import Kind, new_file
from spinlock.runtime.progress import announce
from spinlock.storage.reader import read_info

# First bytes of `render_page`, by which an existing report is recognized.
PAGE = Kind("report of Spinlock", page_start().encode())


def write_report(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    checks: CheckReport | None = None,
    trust: Collection[str] = (),
    force: bool = False,
    progress: bool = True,
) -> CheckReport:
    """Write the report of a dataset file: one HTML page that embeds its plots.

    This is what ``spinlock report FILE --out PAGE`` does. Drawing the plots takes seconds.

    Args:
        path: Path of the dataset file.
        out: Path of the page to write.
        checks: Result of `spinlock.check_dataset`, default: the file is checked.
        trust: Modules whose classes may be imported for replay if the file names them.
        force: Whether to replace an existing report at ``out``. Other files are never replaced.
        progress: Whether to show progress.

    Returns:
        The checks that the page shows.

    Raises:
        DatasetNotFoundError: If the file does not exist.
        DatasetError: If the file is not a dataset, or too damaged for plots.
        ConfigurationError: If ``out`` is refused; this is found before the file is checked.
    """
    path = Path(path)
    info = read_info(path)
    with new_file(out, PAGE, source=path, force=force) as temporary:
        checks = checks or check_dataset(path, trust=trust, progress=progress)
        with ReportSource.open(path) as source:
            plots = list(report_plots(source))
            if progress:
                announce(f"{path.name}: drawing {len(plots)} plots")
            urls = [
                f"data:image/png;base64,{base64.b64encode(png(plot.draw)).decode()}"
                for plot in plots
            ]
        temporary.write_bytes(render_page(info, checks, plots, urls).encode())
    return checks
