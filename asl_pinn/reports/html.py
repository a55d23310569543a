"""Pages that need nothing but themselves: no scripts, no requests, legible in print."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_CSS = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ccc; text-align: left;
  vertical-align: top; font-variant-numeric: tabular-nums; }
td.number, th.number { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0; break-inside: avoid; } img { max-width: 100%; height: auto; }
td img { max-width: none; image-rendering: pixelated; display: block; }
td a { white-space: nowrap; } td p { margin: .2rem 0; }
figcaption, .aside { color: #555; font-size: .9rem; }
.paste { border-left: 3px solid #999; padding-left: 1rem; }
a { color: #0b57a4; }
@media print { body { font-size: 10pt; margin: 0; max-width: none; }
  tr, .paste { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .wide { overflow: visible; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """HTML5 page of some blocks; its policy lets a browser fetch nothing.

    Parameters
    ----------
    title : str
        Of the window.
    body : iterable of str
        Blocks of HTML, already escaped.

    Returns
    -------
    str
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def plain(text: str) -> str:
    """Text as HTML."""
    return escape(text)


def link(address: str, text: str) -> str:
    """Link to a page beside this one."""
    return f'<a href="{escape(quote(address))}">{escape(text)}</a>'


def section(heading: str, *blocks: str) -> str:
    """Section with a heading; nothing where all its blocks are empty."""
    content = "\n".join(block for block in blocks if block)
    return f"<section><h2>{escape(heading)}</h2>\n{content}</section>" if content else ""


def paragraph(text: str, kind: str = "") -> str:
    """Paragraph of plain text; `kind` is 'aside' or 'paste' or empty."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>" if text else ""


def bullets(lines: Sequence[str], tag: str = "ul") -> str:
    """List of lines of plain text, 'ul' or numbered 'ol'; nothing where there are none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<{tag}>{items}</{tag}>" if items else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], n_text: int = 2) -> str:
    """Table of plain text whose columns after the first `n_text` hold numbers."""
    return raw_table(header, ([escape(cell) for cell in row] for row in rows), n_text)


def raw_table(header: Sequence[str], rows: Iterable[Sequence[str]], n_text: int = 2) -> str:
    """`table` whose cells are HTML, already escaped; its header is plain text."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ["" if i < n_text else ' class="number"' for i in range(len(cells))]
        return "".join(
            f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )

    head = line("th", [escape(cell) for cell in header])
    body = "".join(f"<tr>{line('td', row)}</tr>\n" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'
        "</div>"
    )


def mapping_table(values: Mapping[str, Any], header: Sequence[str] = ("name", "value")) -> str:
    """Table of names and values, JSON for what is not text; nothing where there are none."""
    rows = [
        [name, str(value) if isinstance(value, (str, Path)) else _json(value)]
        for name, value in values.items()
    ]
    return table(header, rows) if rows else ""


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def figure(png: bytes, caption: str) -> str:
    """Picture inside the page, with its caption."""
    return f"<figure>{image(png, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def image(png: bytes, text: str, width: int | None = None) -> str:
    """Picture inside the page, `width` pixels wide, with a text for those who cannot see it."""
    size = "" if width is None else f' width="{width}"'
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return f'<img src="{source}" alt="{escape(text)}"{size}>'
