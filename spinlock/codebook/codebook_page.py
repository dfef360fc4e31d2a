"""Renders the page about a codebook: a head, and a row for each token."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np

from spinlock.codebook.distributions import entropy, explained_share
from spinlock.codebook.overview_charts import bar_chart, share_curves
from spinlock.codebook.prototype_pictures import Pictures
from spinlock.codebook.token_groups import Codebook, TokenGroup
from spinlock.codebook.track_panels import (
    dynamics_tracks,
    live_axes,
    panel,
    parameter_properties,
    parameter_tracks,
    symbol,
)
from spinlock.report.html_parts import definitions, html_page
from spinlock.simulation.dynamics_columns import DYNAMICS

#: What the page states that it is.
KIND = "spinlock codebook"
_DYNAMICS, _PARAMETERS = "dyn", "par"
_GUIDE = (
    "Each row shows one token. Its <b>pictures</b> have a row for each prototype, a training "
    "operator that the token stands for, nearest first, and a column for each of the initial "
    "conditions above them: the field at the last timestep (channel 0, one realization), and to "
    "the right its change from the initial condition. All fields have one color scale, the "
    "changes of each prototype have their own, and all runs have the same noise. The <b>bars</b> "
    "compare the operators of the token with all operators, which fill the track: a bar goes from "
    "10 % to 90 % of the token's operators, with a mark at their median. A short bar is a property "
    'that the token fixes: <span class="key low"></span>low, <span class="key mid"></span>medium, '
    '<span class="key high"></span>high, <span class="key"></span>not fixed. Nothing has these '
    "colors if the token has fewer than 8 operators, whose bars are often short by chance. The "
    "<b>words</b> are for dynamics whose mean normal score, over the token's operators, is 0.5 and "
    "3 standard errors away from the mean of all operators. "
    "Dynamics are placed by rank among all operators, with mean ± standard deviation beside them; "
    "parameters by their place on the axis, with the range of the bar beside them. Blocks are the "
    "shares of the values of a choice, with the most frequent one beside them."
)


class CodebookPage:
    """Page about a codebook.

    Args:
        codebook: Tokens and operators.
        shown: Tokens with a row of their own.
        pictures: Fields of their prototypes.
        num_prototypes: Largest number of prototypes in a row.
    """

    def __init__(
        self,
        codebook: Codebook,
        shown: Sequence[TokenGroup],
        pictures: Pictures,
        num_prototypes: int,
    ) -> None:
        self._codebook, self._shown, self._pictures = codebook, shown, pictures
        self._num_prototypes = num_prototypes
        self._names = codebook.dynamics_names
        self._used = Counter(group.level for group in codebook.groups)
        # Groups are sorted by share, so the first one of a codebook has the largest.
        self._largest = {group.level: group.share for group in reversed(codebook.groups)}
        self._words = [codebook.words(group) for group in shown]

    def html(self) -> str:
        """Return the page."""
        style = files("spinlock.codebook").joinpath("codebook.css").read_text(encoding="utf-8")
        tokens = self._codebook.tokens
        name = escape(self._codebook.dataset)
        return html_page(
            f"{self._codebook.dataset}: codebook",
            f"<h1>Codebook of {escape(tokens.model)} <small>on {name}</small></h1>"
            f"{definitions(self._overview(), 'tiles')}{self._charts()}"
            f'<p class="guide">{_GUIDE}</p>',
            self._symbols()
            + self._index()
            + "".join(map(self._level, range(len(self._codebook.levels)))),
            f"Tokens <code>{escape(tokens.path.name)}</code><br>"
            f"Dataset <code>{name}</code>, fingerprint "
            f"<code>{escape(self._codebook.config.fingerprint)}</code>",
            kind=KIND,
            style=style,
        )

    def _shares(self) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
        size = self._codebook.tokens.codebook_size
        return [np.bincount(level, minlength=size) / len(level) for level in self._codebook.levels]

    def _overview(self) -> dict[str, str]:
        book, shares = self._codebook, self._shares()
        training = book.tokens.training
        several = "" if len(shares) == 1 else f"{len(shares)} × "
        rows = {
            "codes": f"{several}{book.tokens.codebook_size}",
            "used": ", ".join(f"{(each > 0).mean():.0%}" for each in shares),
            "perplexity": ", ".join(f"{np.exp(entropy(each)):.0f}" for each in shares),
            "operators": f"{len(book.operator):,}",
            "tokenized samples": f"{len(book.place) * book.num_pooled:,}",
        }
        if book.num_pooled > 1:
            rows["samples of a token"] = f"{book.num_pooled} pooled"
        if training is not None:
            rows["training share"] = f"{training.mean():.0%}"
        config = book.config
        rows["grid"] = f"{config.grid_size} × {config.grid_size}"
        rows["timesteps"] = str(config.num_timesteps)
        return rows

    def _charts(self) -> str:
        charts = [
            (
                share_curves(self._shares()),
                "Share of the samples, tokens sorted by share; dashed: all codes equally frequent.",
            )
        ]
        book = self._codebook
        # One row for each operator: its probes would count as independent evidence.
        _, first = np.unique(book.place, return_index=True)
        tokens = np.unique(book.levels[:, first], axis=1, return_inverse=True)[1].reshape(-1)
        if self._names:
            titles = {column.name: f"{column.formula} ({column.unit})" for column in DYNAMICS}
            shares = explained_share([score[:, None] for score in book.scores.T], tokens)
            described = [titles.get(name, name) for name in self._names]
            charts.append(
                (
                    bar_chart(self._names, shares, described),
                    "Share of the variance of each column "
                    "of the dynamics (ranks) that the token explains, over all operators, adjusted "
                    "for the number of tokens: 0 on average, so negative too, if they are random.",
                )
            )
        axes = tuple(live_axes(book.config))
        shares = explained_share(parameter_properties(book.config, book.params), tokens)
        charts.append(
            (
                bar_chart(axes, shares),
                "The same for the parameters. A token can say only what "
                "shows in the responses of the operator.",
            )
        )
        figures = "".join(
            f"<figure><figcaption>{caption}</figcaption>{chart}</figure>"
            for chart, caption in charts
        )
        return f'<div class="charts">{figures}</div>'

    def _symbols(self) -> str:
        content = symbol(_PARAMETERS, tuple(live_axes(self._codebook.config)))
        content += symbol(_DYNAMICS, self._names) if self._names else ""
        return f'<svg width="0" height="0" style="position:absolute">{content}</svg>'

    def _index(self) -> str:
        """Return a list of the words, each with links to its tokens."""
        found: dict[str, list[str]] = {}
        for group, words in zip(self._shown, self._words, strict=True):
            for word in words:
                found.setdefault(word, []).append(self._codebook.name(group))
        rows = "".join(
            f"<div><dt>{escape(word)} ({len(names)})</dt><dd>"
            + " ".join(f'<a href="#token-{name}">{name}</a>' for name in names)
            + "</dd></div>"
            for word, names in sorted(found.items(), key=lambda item: -len(item[1]))
        )
        if not rows:
            return ""
        return (
            "<details><summary>Find tokens by what is particular about their dynamics</summary>"
            f'<dl class="rows index">{rows}</dl></details>'
        )

    def _level(self, level: int) -> str:
        count = len(self._codebook.levels)
        pairs = zip(self._shown, self._words, strict=True)
        groups = [(group, words) for group, words in pairs if group.level == level]
        used = self._used[level]
        title = "Tokens" if count == 1 else f"Tokens of codebook {level + 1} of {count}"
        note = ""
        if used > len(groups):
            note = f'<p class="note">The {len(groups)} most frequent of {used} tokens.</p>'
        rows = "".join(self._row(group, words) for group, words in groups)
        head = f"<h2>{title}</h2>{note}{self._columns() if groups else ''}"
        return f'<section id="codebook-{level}">{head}{rows}</section>'

    def _columns(self) -> str:
        pictures = self._pictures
        labels = "".join(
            f"<span>{escape(family.replace('_', ' '))}</span>" for family in pictures.families
        )
        side = f"--side:{pictures.side}px"
        alt = escape(f"initial conditions of samples {pictures.samples}")
        dynamics = "<div><b>dynamics</b> of its operators</div>" if self._names else ""
        return (
            f'<div class="columns {self._layout()}"><div><b>token</b>, share of samples</div>'
            f'<div class="fields"><div><div class="families" style="{side}">{labels}</div>'
            f'<img src="{pictures.head()}" alt="{alt}"></div><div>change</div></div>'
            f"{dynamics}<div><b>parameters</b> of its operators</div></div>"
        )

    def _layout(self) -> str:
        return "row" if self._names else "row short"

    def _row(self, group: TokenGroup, said: list[str]) -> str:
        book, operators = self._codebook, group.operators
        shown = group.prototypes[: self._num_prototypes]
        name = self._codebook.name(group)
        words, dynamics = "", ""
        if self._names:
            items = "".join(f"<li>{escape(word)}</li>" for word in said or ["no clear difference"])
            words = f'<ul class="words">{items}</ul>'
            ranks = book.population.ranks[operators]
            tracks = dynamics_tracks(book.dynamics[operators], ranks)
            dynamics = f"<div>{panel(_DYNAMICS, tracks)}</div>"
        parameters = panel(_PARAMETERS, parameter_tracks(book.config, book.params[operators]))
        listed = ", ".join(map(str, shown))
        width = group.share / self._largest[group.level]
        picture = "<p>no training operators</p>"
        if shown:
            alt = escape(f"fields of operators {listed}")
            picture = f'<img src="{self._pictures.row(shown)}" alt="{alt}">'
        return (
            f'<article class="{self._layout()}" id="token-{name}">'
            f"<div><h3>{name}</h3>"
            f'<div class="share"><i style="width:{width:.1%}"></i></div>{words}'
            f"<p>{group.share:.2%}, {len(operators)} operators</p>"
            f"<p>prototypes {listed or '–'}</p></div>"
            f"<div>{picture}</div>{dynamics}<div>{parameters}</div></article>"
        )
