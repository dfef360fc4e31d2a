"""The report's page: HTML and style sheet, without scripts, fonts or anything else to load."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from spinlock.checks import CheckReport
from spinlock.report.page_style import STYLE
from spinlock.report.report_plots import Picture
from spinlock.storage.reader import DatasetInfo


@dataclass(frozen=True)
class Embedded:
    """A figure as data URLs, for light and for dark pages."""

    picture: Picture
    light: str
    dark: str


def render_page(info: DatasetInfo, checks: CheckReport, figures: Sequence[Embedded]) -> str:
    """The whole page.

    Args:
        info: What the file says of itself.
        checks: What was measured on it.
        figures: The figures, in order; those of a section follow each other.
    """
    grouped = {name: list(rows) for name, rows in groupby(figures, lambda f: f.picture.section)}
    if not info.config.stored_steps:
        notice = "<p class='note'>Fields are not stored in this file: no pictures of them.</p>"
    else:
        notice = ""
    sections = [_section("Checks", _checks(checks))]
    sections += [_section(name, _figures(rows)) for name, rows in grouped.items()]
    sections += [
        _section("Time and size", _definitions(_time_and_size(info))),
        _section("Configuration", _configuration(info)),
    ]
    name = escape(info.path.name)
    headings = ("Checks", *grouped, "Time and size", "Configuration")
    links = " ".join(f'<a href="#{_anchor(h)}">{escape(h)}</a>' for h in headings)
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}: dataset report</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{name}</h1>{_verdict(checks)}{_tiles(info)}<nav>{links}</nav></header>"
        f"<main>{notice}{''.join(sections)}</main>"
        f"<footer>Fingerprint <code>{escape(info.fingerprint)}</code><br>"
        f"Digest <code>{escape(info.digest)}</code></footer></body></html>\n"
    )


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _section(heading: str, content: str) -> str:
    return f'<section id="{_anchor(heading)}"><h2>{escape(heading)}</h2>{content}</section>'


def _verdict(checks: CheckReport) -> str:
    kind = "pass" if checks.passed else "fail"
    return f'<p class="verdict {kind}">{escape(checks.summary())}</p>'


def _tiles(info: DatasetInfo) -> str:
    config = info.config
    tiles = {
        "samples": f"{config.num_samples:,}",
        "operators": f"{-(-config.num_samples // config.probes_per_operator):,}",
        "realizations": str(config.num_realizations),
        "timesteps": str(config.num_timesteps),
        "grid": f"{config.grid_size} × {config.grid_size}",
        "channels": str(config.channels),
        "seed": str(config.seed),
        "file": f"{info.path.stat().st_size / 1e6:,.1f} MB",
    }
    cells = (f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items())
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _checks(checks: CheckReport) -> str:
    parts = []
    for group, grouped in groupby(checks.rows, lambda row: row.group):
        rows = list(grouped)
        passed = sum(row.passed for row in rows)
        failed = sum(row.measurable and not row.passed for row in rows)
        open_rows = sum(not row.measurable for row in rows)
        tally = f"{passed} of {len(rows)} claims hold"
        tally += f", {failed} FAIL" if failed else ""
        tally += f", {open_rows} not measurable" if open_rows else ""
        body = "".join(
            f'<tr class="{row.status.split()[0].lower()}"><td>{row.status}</td>'
            f"<td>{escape(row.claim)}</td><td>{escape(row.target)}</td>"
            f"<td>{escape(row.measured)}</td></tr>"
            for row in rows
        )
        parts.append(
            f"<details{' open' if failed else ''}><summary>{escape(group)}: {tally}</summary>"
            '<div class="scroll"><table><thead><tr><th>status</th><th>claim</th><th>target</th>'
            f"<th>measured</th></tr></thead><tbody>{body}</tbody></table></div></details>"
        )
    return "".join(parts)


def _figures(figures: Sequence[Embedded]) -> str:
    parts = []
    for text, grouped in groupby(figures, lambda figure: figure.picture.text):
        pictures = list(grouped)
        images = "".join(_image(one, text) for one in pictures)
        small = pictures[0].picture.small
        parts.append(
            f"<figure><figcaption>{escape(text)}</figcaption>"
            f'<div class="{"grid" if small else "scroll"}">{images}</div></figure>'
        )
    return "".join(parts)


def _image(figure: Embedded, text: str) -> str:
    kind = ' class="wide"' if figure.picture.wide else ""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{figure.dark}">'
        f'<img{kind} src="{figure.light}" alt="{escape(text)}"></picture>'
    )


def _definitions(rows: dict[str, str]) -> str:
    return (
        '<dl class="rows">'
        + "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items()
        )
        + "</dl>"
    )


def _time_and_size(info: DatasetInfo) -> dict[str, str]:
    run: dict[str, Any] = info.run_summary
    stages: dict[str, float] = run.get("stage_seconds", {})
    total = sum(stages.values()) or 1.0
    shares = sorted(stages.items(), key=lambda item: -item[1])
    megabytes = {name: run.get(name, 0) / 1e6 for name in ("field_bytes", "stored_field_bytes")}
    return {
        "last run": f"{run.get('computed_samples', 0):,} samples in {run.get('seconds', 0):,.1f} s "
        f"({run.get('samples_per_second', 0):.2f} samples/s)",
        "assembly": f"{run.get('assembly_seconds', 0):.1f} s",
        "processor time by stage": ", ".join(f"{n} {s / total:.0%}" for n, s in shares) or "none",
        "peak memory": f"host {run.get('peak_host_bytes', 0) / 1e9:.2f} GB, device "
        f"{run.get('peak_device_bytes', 0) / 1e9:.2f} GB",
        "fields": f"{megabytes['field_bytes']:,.1f} MB, stored in "
        f"{megabytes['stored_field_bytes']:,.1f} MB (ratio {run.get('compression_ratio', 1):.3f})",
        "computed on": _records(info.provenance.get("device", [])),
        "computed with": _records(info.provenance.get("package_versions", [])),
    }


def _records(records: Iterable[dict[str, str]]) -> str:
    return "; ".join(" ".join(f"{k} {v}" for k, v in record.items()) for record in records)


def _configuration(info: DatasetInfo) -> str:
    text = json.dumps(dataclasses.asdict(info.config), indent=2)
    return (
        "<details><summary>generation, as in the file's attribute configuration</summary>"
        f'<div class="scroll"><pre>{escape(text)}</pre></div></details>'
    )
