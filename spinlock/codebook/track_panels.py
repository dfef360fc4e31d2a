"""Draws the panels of a token as SVG: a track for each column, on which a bar shows its operators.

The full track is the population. A bar extends from the 10 % to the 90 % quantile of the token's
operators, and a mark is at their median. Columns of text are drawn once, as symbols.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from spinlock.codebook.distributions import HIGH, LOW, Values, quantiles
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import Axis, IntegerRange

#: Distance between tracks, place of the labels, and place, length and end of the tracks.
_PITCH, _LABEL, _START, _LENGTH = 11, 95, 100, 106
_VALUE, _WIDTH = _START + _LENGTH + 5, 304
# Bars shorter than this part of the population's are colored.
_NARROW = 0.5
# Nothing is colored for fewer operators, whose bars are often short by chance.
_FEWEST_OPERATORS = 8
# Axes with at most this number of values are drawn as shares of these values.
_FEW = 8


@dataclass(frozen=True, eq=False)
class Track:
    """One column of the panel of a token.

    Args:
        low: Left end of the bar, in [0, 1].
        middle: Place of the mark.
        high: Right end of the bar.
        text: Text beside the track.
        shares: Share of each value of a choice, (k,), which takes the place of the bar; empty
            if the column is no choice.
        operators: Number of operators of the token.
    """

    low: float
    middle: float
    high: float
    text: str
    shares: NDArray[np.float64]
    operators: int

    @property
    def kind(self) -> str:
        """Class of the bar: narrow and low ``l``, high ``h`` or in the middle ``m``; else ``w``.

        Blocks of a choice: ``c`` if one value dominates, else ``d``.
        """
        enough = self.operators >= _FEWEST_OPERATORS
        if self.shares.size:
            return "c" if enough and self.shares.max() >= _dominant(len(self.shares)) else "d"
        if not enough or self.high - self.low > _NARROW * (HIGH - LOW):
            return "w"
        return "l" if self.middle < 1 / 3 else "h" if self.middle > 2 / 3 else "m"


def dynamics_tracks(values: Values, ranks: Values) -> list[Track]:
    """Return tracks of the dynamics of a token's operators.

    Args:
        values: Dynamics, (o, D).
        ranks: Their ranks among all operators, (o, D), so that the population is uniform.
    """
    texts = [
        f"{_number(mean)} ± {_number(deviation)}"
        for mean, deviation in zip(values.mean(axis=0), values.std(axis=0), strict=True)
    ]
    return [
        Track(float(low), float(middle), float(high), text, np.empty(0), len(ranks))
        for (low, middle, high), text in zip(quantiles(ranks).T, texts, strict=True)
    ]


def live_axes(config: GenerationConfig) -> dict[str, Axis]:
    """Return the axes of the parameter space that have more than one value, by name."""
    return {name: axis for name, axis in config.axes.items() if _choices(axis) != 1}


def parameter_tracks(config: GenerationConfig, points: Values) -> list[Track]:
    """Return tracks of the parameters of a token's operators, one for each of `live_axes`.

    Args:
        config: Configuration of the dataset.
        points: Operators as points of the unit cube, (o, A).
    """
    places = quantiles(points)
    ends = config.space.values(places)
    tracks = []
    for name, axis in live_axes(config).items():
        column, count = config.space.names.index(name), _choices(axis)
        low, middle, high = map(float, places[:, column])
        if 0 < count <= _FEW:
            shares = _indicators(points[:, column], count).mean(axis=0)
            text = f"{_value(axis, int(shares.argmax()))} {shares.max():.0%}"
        else:
            shares = np.empty(0)
            text = f"{_number(ends[name][0])} – {_number(ends[name][2])}"
        tracks.append(Track(low, middle, high, text, shares, len(points)))
    return tracks


def parameter_properties(config: GenerationConfig, points: Values) -> list[Values]:
    """Return each of `live_axes` as columns (o, k): its coordinate, or an indicator of each value.

    Args:
        config: Configuration of the dataset.
        points: Operators as points of the unit cube, (o, A).
    """
    properties = []
    for name, axis in live_axes(config).items():
        values, count = points[:, config.space.names.index(name)], _choices(axis)
        few = 0 < count <= _FEW
        properties.append(_indicators(values, count) if few else values[:, None])
    return properties


def _indicators(coordinates: Values, count: int) -> Values:
    """Return 1 for the value that each coordinate stands for, and 0 for the others, (o, count)."""
    values = np.minimum((coordinates * count).astype(np.int64), count - 1)
    return np.eye(count)[values]


def _choices(axis: Axis) -> int:
    """Return the number of values of an axis; 0 if it is continuous."""
    if isinstance(axis, tuple):
        return len(axis)
    if isinstance(axis, IntegerRange):
        return axis.high - axis.low + 1
    return 0 if axis.high > axis.low else 1


def _value(axis: Axis, position: int) -> str:
    return str(axis[position] if isinstance(axis, tuple) else int(axis.low) + position)


def _number(value: float) -> str:
    text = f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    return text.replace("e-0", "e-").replace("-", "−")


def symbol(name: str, labels: Sequence[str]) -> str:
    """Return the part of a panel that all tokens share: labels and empty tracks.

    Args:
        name: Identifier of the symbol.
        labels: Names of the columns.
    """
    texts = "".join(
        f'<text x="{_LABEL}" y="{_y(row) + 3}">{escape(label)}</text>'
        for row, label in enumerate(labels)
    )
    tracks = "".join(f"M{_START} {_y(row)}h{_LENGTH}" for row in range(len(labels)))
    return (
        f'<symbol id="{name}" overflow="visible"><g class="k">{texts}</g>'
        f'<path class="t" d="{tracks}"/></symbol>'
    )


def panel(name: str, tracks: Sequence[Track]) -> str:
    """Return the panel of a token.

    Args:
        name: Identifier of the symbol with the labels.
        tracks: Tracks in the order of the labels.
    """
    paths: dict[str, str] = {}
    texts = []
    for row, track in enumerate(tracks):
        y = _y(row)
        if track.shares.size:
            width = _LENGTH / len(track.shares)
            bars = "".join(
                f"M{_START + place * width:.0f} {y + 4}v{-8 * share:.1f}h{width - 1:.0f}"
                f"v{8 * share:.1f}z"
                for place, share in enumerate(track.shares)
                if share >= 0.05
            )
        else:
            start, middle, stop = (
                _START + place * _LENGTH for place in (track.low, track.middle, track.high)
            )
            length = max(stop - start, 2)
            bars = f"M{start:.0f} {y}h{length:.0f}"
            paths["x"] = paths.get("x", "") + f"M{middle:.0f} {y - 4}v8"
        paths[track.kind] = paths.get(track.kind, "") + bars
        texts.append(f'<text x="{_VALUE}" y="{y + 3}">{escape(track.text)}</text>')
    # Marks come last, above the bars.
    drawn = "".join(f'<path class="{kind}" d="{paths[kind]}"/>' for kind in sorted(paths))
    return (
        f'<svg class="p" viewBox="0 0 {_WIDTH} {_PITCH * len(tracks) + 2}" width="{_WIDTH}">'
        f'<use href="#{name}"/>{drawn}<g class="v">{"".join(texts)}</g></svg>'
    )


def _dominant(count: int) -> float:
    """Return the share from which one of some values dominates."""
    return (1 + 1 / count) / 2


def _y(row: int) -> int:
    return row * _PITCH + 6
