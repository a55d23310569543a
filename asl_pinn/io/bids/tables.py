"""Tables as BIDS has them: tab-separated, with a JSON file that says what each column is."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asl_pinn.errors import InputError
from asl_pinn.io.atomic import json_bytes
from asl_pinn.io.bids.sidecar import check_text_file

MISSING = "n/a"
"""What stands where there is no value."""

_DIGITS = 6


def table_files(
    base: str, rows: Sequence[Mapping[str, Any]], described: Mapping[str, Mapping[str, Any]]
) -> dict[str, bytes]:
    """A table and the JSON file beside it.

    Parameters
    ----------
    base : str
        Name without extension.
    rows : sequence of mapping of str to Any
        Text, numbers, or None; the columns are those of all rows, in the order in which they
        first occur.
    described : mapping of str to mapping
        What is known of columns; those that the table lacks are left out.

    Returns
    -------
    dict of str to bytes
        Contents by name.
    """
    columns = columns_of(rows)
    lines = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL).writerows(
        lines
    )
    known = {column: described[column] for column in columns if column in described}
    return {f"{base}.tsv": text.getvalue().encode(), f"{base}.json": json_bytes(known)}


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Columns of all rows, in the order in which they first occur."""
    return list(dict.fromkeys(column for row in rows for column in row))


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table.

    Parameters
    ----------
    path : Path
        With the names of the columns in its first line.

    Returns
    -------
    list of dict of str to str
        Cells as they stand, but for spaces around them.

    Raises
    ------
    InputError
        If the file cannot be read, or a line has another number of cells than the first.
    """
    try:
        check_text_file(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); repair the file") from None
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(
                f"{path}: line {number} has another number of cells than the first; separate the "
                "cells by tabs, and write n/a where there is no value"
            )
    return [{column.strip(): cell.strip() for column, cell in row.items()} for row in rows]


def as_number(text: str | None) -> float | None:
    """Finite number that a cell holds; None for no cell, text, and what is not finite."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
