"""How figures look: themes for light and dark pages, colours, and their bytes.

Figures are made without pyplot, so that nothing is kept alive and no window is ever opened.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Theme = Literal["light", "dark"]
Color = tuple[float, float, float, float]

#: Colours of fields: diverging about 0; and of magnitudes.
FIELD_COLORS, MAGNITUDE_COLORS = "RdBu_r", "viridis"

_INK = {"light": ("#1b1f24", "#ffffff", "#d5d9de"), "dark": ("#e6e8eb", "#16191d", "#3a4048")}


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Figures made inside have the colours of a light or a dark page."""
    ink, paper, line = _INK[theme]
    # Matplotlib types the names of its settings one by one.
    settings: Any = {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "legend.fontsize": 8,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "figure.facecolor": paper,
        "savefig.facecolor": paper,
        "axes.facecolor": paper,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": line,
        "legend.facecolor": paper,
        "legend.edgecolor": line,
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out so that nothing overlaps."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, *, dpi: int = 130) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def label_colors(labels: Sequence[str]) -> dict[str, Color]:
    """A colour for each label, distinct for up to twenty."""
    palette = colormaps["tab10" if len(labels) <= 10 else "tab20"]
    return {label: palette(i % palette.N) for i, label in enumerate(labels)}
