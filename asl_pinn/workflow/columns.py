"""Tables as lines of text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns in line.

    Parameters
    ----------
    rows : sequence of sequences of str
        Of one length; the header first.

    Returns
    -------
    list of str
        A line each.

    Examples
    --------
    >>> aligned([["volume", "type"], ["1", "label"]])
    ['volume  type', '1       label']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
