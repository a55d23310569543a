"""Pages that need nothing but themselves: no scripts, no requests, legible in print."""

import base64
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2


@dataclasses.dataclass(frozen=True)
class Table:
    """What the macro `table` of the templates draws.

    Attributes
    ----------
    header : sequence of str
        Of the columns.
    rows : sequence of sequences of str
        Cells, as plain text.
    n_text : int
        Columns on the left that hold text; the others hold numbers.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 2


def render(template: str, **values: Any) -> str:
    """Fill a template; every text in `values` is escaped.

    Parameters
    ----------
    template : str
        Name of a file in the folder `templates`.
    **values : Any
        What it shows.

    Returns
    -------
    str
        An HTML5 page whose policy lets a browser fetch nothing.
    """
    return _environment().get_template(template).render(**values)


def mapping_table(values: Mapping[str, Any]) -> Table:
    """Table of names and values, JSON for what is not text."""
    rows = [
        [name, str(value) if isinstance(value, (str, Path)) else _json(value)]
        for name, value in values.items()
    ]
    return Table(["name", "value"], rows)


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _address(png: bytes) -> str:
    """A picture as an address, for inside a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("asl_pinn.viz.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["address"] = _address
    return environment
