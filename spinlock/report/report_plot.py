"""One plot of the report: where it stands, what it shows and how it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class ReportPlot:
    """One plot of the report.

    Attributes:
        section: Heading of the section of the page.
        caption: Caption, shared by consecutive plots.
        draw: Function that draws the plot.
        small: Whether plots stand side by side. Other plots scroll sideways on a phone.
        terms: Terms that the plot uses, with their explanations, listed below it.
    """

    section: str
    caption: str
    draw: Callable[[], Figure]
    small: bool = False
    terms: tuple[tuple[str, str], ...] = ()
