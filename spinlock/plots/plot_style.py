"""Common style of all plots: size, colors and PNG encoding.

Plots are made without pyplot, which would keep them in memory and could open windows.
"""

import io
from collections.abc import Callable, Sequence

import matplotlib.style
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Color = tuple[float, float, float, float]

#: Color maps of fields (diverging about 0) and of magnitudes.
FIELD_COLORS, MAGNITUDE_COLORS = "RdBu_r", "viridis"


def new_plot(width: float, height: float) -> Figure:
    """Return an empty plot whose layout avoids overlaps.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    plot = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(plot)
    return plot


def png(draw: Callable[[], Figure], *, dpi: int = 130) -> bytes:
    """Draw a plot in the package's style and return it as a PNG.

    The plot has dark text on a white background, whatever style the caller has set.

    Args:
        draw: Function that returns the plot.
        dpi: Resolution in pixels per inch.

    Example:
        >>> png(lambda: new_plot(1, 1), dpi=20)[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    with matplotlib.style.context(["default", {"font.size": 8, "axes.titlesize": "medium"}]):
        draw().savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def label_colors(labels: Sequence[str]) -> dict[str, Color]:
    """Return a color for each label; up to twenty labels have distinct colors."""
    palette = colormaps["tab10" if len(labels) <= 10 else "tab20"]
    return {label: palette(i % palette.N) for i, label in enumerate(labels)}
