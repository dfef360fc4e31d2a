"""Parts of a self-contained HTML page: its frame, its style, and lists of facts."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files

_HEAD = (
    "<!DOCTYPE html>\n"
    '<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
)


def page_start(kind: str = "") -> str:
    """Return the beginning of a page, by which an existing page of a kind is recognized.

    Args:
        kind: Kind of the page, which the page states; default: none.
    """
    generator = f'<meta name="generator" content="{escape(kind)}">' if kind else ""
    return f"{_HEAD}{generator}<title>"


def html_page(
    title: str, header: str, content: str, footer: str, *, kind: str = "", style: str = ""
) -> str:
    """Return a page without scripts, fonts or other files to load.

    Args:
        title: Title, text.
        header: HTML of the header.
        content: HTML of the main part.
        footer: HTML of the footer.
        kind: Kind of the page, see `page_start`.
        style: Rules that follow those of all pages; default: none.

    Example:
        >>> page = html_page("a < b", "", "<p>Text.</p>", "")
        >>> "<title>a &lt; b</title>" in page, "<main><p>Text.</p></main>" in page
        (True, True)
    """
    common = files("spinlock.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        f"{page_start(kind)}{escape(title)}</title><style>{common}{style}</style></head><body>"
        f"<header>{header}</header><main>{content}</main><footer>{footer}</footer></body></html>\n"
    )


def definitions(rows: Mapping[str, str], kind: str) -> str:
    """Return a list of names and values.

    Args:
        rows: Texts by name.
        kind: Look of the list: ``tiles`` or ``rows``.

    Example:
        >>> definitions({"samples": "<5"}, "tiles")
        '<dl class="tiles"><div><dt>samples</dt><dd>&lt;5</dd></div></dl>'
    """
    cells = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in rows.items())
    return f'<dl class="{kind}">{"".join(cells)}</dl>'
