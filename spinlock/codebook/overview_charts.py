"""Draws the charts of the head of a codebook's page as SVG."""

from collections.abc import Sequence
from html import escape

import numpy as np

from spinlock.codebook.distributions import Values

_PITCH, _LABEL, _START, _LENGTH = 15, 128, 136, 150
_WIDTH = _START + _LENGTH + 40
_CURVE_WIDTH, _CURVE_HEIGHT = 320, 150
# A curve has fewer pixels than this.
_MOST_POINTS = 500


def bar_chart(names: Sequence[str], values: Values, titles: Sequence[str] = ()) -> str:
    """Return a horizontal bar for each value, which should lie in [0, 1].

    Args:
        names: Labels.
        values: Values; NaN is drawn as "–".
        titles: Tooltips; default: none.
    """
    parts = []
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        y = row * _PITCH + 8
        known = bool(np.isfinite(value))
        length = float(np.clip(value, 0, 1)) * _LENGTH if known else 0.0
        title = f"<title>{escape(titles[row])}</title>" if titles else ""
        parts.append(
            f"<g>{title}"
            f'<text class="k" x="{_LABEL}" y="{y + 4}">{escape(name)}</text>'
            f'<path class="t" d="M{_START} {y}h{_LENGTH}"/>'
            f'<path class="b" d="M{_START} {y}h{length:.1f}"/>'
            f'<text class="v" x="{_START + _LENGTH + 6}" y="{y + 4}">'
            f"{_two_digits(float(value)) if known else '–'}</text></g>"
        )
    height = _PITCH * len(names) + 2
    return f'<svg class="o" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}">{"".join(parts)}</svg>'


def _two_digits(value: float) -> str:
    # Adding zero turns the minus zero of small negative values into zero.
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def share_curves(levels: Sequence[Values]) -> str:
    """Return the shares of tokens in descending order, a curve for each codebook.

    A line marks the share that all codes would have if they were equally frequent. Of more than 500
    codes, 500 at equal distances are drawn, the first and the last among them.

    Args:
        levels: Shares of all K codes of each codebook, including unused ones.
    """
    count = len(levels[0])
    top = max(float(shares.max()) for shares in levels)
    left, right, bottom = 44, 8, 22
    width, height = _CURVE_WIDTH - left - right, _CURVE_HEIGHT - bottom - 8

    def point(rank: float, share: float) -> str:
        x, y = left + rank / count * width, 8 + (1 - share / top) * height
        return f"{x:.1f} {y:.1f}"

    curves = ""
    ranks = np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(np.int64).tolist()
    for shares in levels:
        ordered = np.sort(shares)[::-1]
        points = "L".join(point(rank + 0.5, float(ordered[rank])) for rank in ranks)
        curves += f'<path class="curve" d="M{points}"/>'
    even = f'<path class="even" d="M{point(0, 1 / count)}L{point(count, 1 / count)}"/>'
    axes = f'<path class="axis" d="M{point(0, top)}L{point(0, 0)}L{point(count, 0)}"/>'
    texts = "".join(
        f'<text class="{kind}" x="{x}" y="{y}">{text}</text>'
        for kind, x, y, text in (
            ("k", left - 5, 14, f"{top:.2%}"),
            ("k", left - 5, 8 + height, "0"),
            ("v", left, _CURVE_HEIGHT - 6, "rank 1"),
            ("k", left + width, _CURVE_HEIGHT - 6, str(count)),
        )
    )
    return (
        f'<svg class="o" viewBox="0 0 {_CURVE_WIDTH} {_CURVE_HEIGHT}" width="{_CURVE_WIDTH}">'
        f"{axes}{even}{curves}{texts}</svg>"
    )
