"""Renders the page of the report: HTML without scripts, fonts or other files to load."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from spinlock.checks import CheckReport
from spinlock.generation.run_summary import describe_origin
from spinlock.report.html_parts import definitions, html_page
from spinlock.report.report_plot import ReportPlot
from spinlock.storage.reader import DatasetInfo


def render_page(
    info: DatasetInfo, checks: CheckReport, plots: Sequence[ReportPlot], urls: Sequence[str]
) -> str:
    """Return the HTML of the page.

    Args:
        info: Description of the file.
        checks: Result of checking the file.
        plots: Plots in the order of the page; those of a section are consecutive.
        urls: Data URL of each plot.
    """
    sections = {"Checks": _checks(checks)}
    pairs = zip(plots, urls, strict=True)
    for name, grouped in groupby(pairs, lambda pair: pair[0].section):
        sections[name] = _plots(grouped)
    sections["Time and size"] = definitions(describe_origin(info), "rows")
    sections["Configuration"] = _configuration(info)
    links = " ".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in sections)
    content = "".join(
        f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>{text}</section>'
        for name, text in sections.items()
    )
    name, verdict = info.path.name, "pass" if checks.passed else "fail"
    return html_page(
        f"{name}: dataset report",
        f'<h1>{escape(name)}</h1><p class="verdict {verdict}">{escape(checks.summary())}</p>'
        f"{definitions(_overview(info), 'tiles')}<nav>{links}</nav>",
        f"{_notice(info)}{content}",
        f"Fingerprint <code>{escape(info.fingerprint)}</code><br>"
        f"Digest <code>{escape(info.digest)}</code>",
    )


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _notice(info: DatasetInfo) -> str:
    if info.config.stored_steps:
        return ""
    return '<p class="note">This file does not store fields, so the page has no plots of them.</p>'


def _overview(info: DatasetInfo) -> dict[str, str]:
    config = info.config
    return {
        "samples": f"{config.num_samples:,}",
        "operators": f"{-(-config.num_samples // config.probes_per_operator):,}",
        "realizations": str(config.num_realizations),
        "timesteps": str(config.num_timesteps),
        "grid": f"{config.grid_size} × {config.grid_size}",
        "channels": str(config.channels),
        "seed": str(config.seed),
        "file": f"{info.path.stat().st_size / 1e6:,.1f} MB",
    }


def _checks(checks: CheckReport) -> str:
    parts = []
    for group, grouped in groupby(checks.rows, lambda row: row.group):
        rows = list(grouped)
        part = CheckReport(tuple(rows))
        tally = f"{sum(row.passed for row in rows)} of {len(rows)} claims hold"
        tally += f", {len(part.failures)} FAIL" if part.failures else ""
        tally += f", {len(part.not_measurable)} not measurable" if part.not_measurable else ""
        body = "".join(
            f'<tr class="{row.status.split()[0].lower()}"><td>{row.status}</td>'
            f"<td>{escape(row.claim)}</td><td>{escape(row.target)}</td>"
            f"<td>{escape(row.measured)}</td></tr>"
            for row in rows
        )
        parts.append(
            f"<details{' open' if part.failures else ''}><summary>{escape(group)}: {tally}"
            '</summary><div class="scroll"><table><thead><tr><th>status</th><th>claim</th>'
            "<th>target</th><th>measured</th></tr></thead>"
            f"<tbody>{body}</tbody></table></div></details>"
        )
    return "".join(parts)


def _plots(pairs: Iterable[tuple[ReportPlot, str]]) -> str:
    parts = []
    for (caption, small, terms), grouped in groupby(pairs, _grouping):
        alt = escape(caption)
        explained = definitions(dict(terms), "rows") if terms else ""
        images = "".join(f'<img src="{url}" alt="{alt}">' for _, url in grouped)
        parts.append(
            f"<figure><figcaption>{alt}</figcaption>"
            f'<div class="{"grid" if small else "scroll"}">{images}</div>{explained}</figure>'
        )
    return "".join(parts)


def _grouping(pair: tuple[ReportPlot, str]) -> tuple[str, bool, tuple[tuple[str, str], ...]]:
    plot = pair[0]
    return plot.caption, plot.small, plot.terms


def _configuration(info: DatasetInfo) -> str:
    text = json.dumps(dataclasses.asdict(info.config), indent=2)
    return (
        "<details><summary>attribute configuration of the file</summary>"
        f'<div class="scroll"><pre>{escape(text)}</pre></div></details>'
    )
