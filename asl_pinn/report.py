"""One self-contained HTML page about one result."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asl_pinn.data import AslData, PerfusionMaps, Status

_CSS = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ccc; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
td.number, th.number { text-align: right; }
figure { margin: 1rem 0; break-inside: avoid; } img { max-width: 100%; }
figcaption { color: #555; font-size: .9rem; }
@media print { body { font-size: 10pt; margin: 0; max-width: none; } tr { break-inside: avoid; } }
"""
_STATUS = {
    Status.FITTED: "fitted within the bounds",
    Status.ON_BOUND: "ended on a bound",
    Status.NOT_CONVERGED: "did not converge",
    Status.SKIPPED: "skipped: NaN or infinite data, M0 not positive, or T1 below 0.1 s",
}


def html_report(
    data: AslData,
    maps: PerfusionMaps,
    *,
    title: str,
    method: str,
    figures: Mapping[str, bytes],
    provenance: Mapping[str, Any],
    notes: Sequence[str],
    grey_matter: NDArray[np.bool_] | None = None,
) -> str:
    """Describe a result for people: numbers, pictures, acquisition and provenance.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : PerfusionMaps
        The result.
    title : str
        Heading of the page, such as the participant.
    method : str
        Name of the estimator.
    figures : mapping of str to bytes
        PNG files by their captions, in the order to show them.
    provenance : mapping of str to Any
        Options, version, seed and sources; what is not text is written as JSON.
    notes : sequence of str
        What a reader should know about the data or the result, one sentence each.
    grey_matter : ndarray of bool, shape (X, Y, Z), optional
        Voxels to summarise beside all fitted ones.

    Returns
    -------
    str
        An HTML5 page without scripts or external resources; every text is escaped. Medians
        and quartiles are over the voxels that were fitted within the bounds.
    """
    regions = {"all voxels": np.ones_like(data.mask, dtype=bool)}
    if grey_matter is not None:
        regions["grey matter"] = grey_matter
    sections = [
        ("Perfusion", _perfusion(maps, regions)),
        ("Voxels", _voxels(data, maps)),
        ("Notes", "<ul>" + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ul>"),
        ("Pictures", "".join(_figure(png, caption) for caption, png in figures.items())),
        ("Acquisition", _acquisition(data)),
        ("Options and provenance", _table(["name", "value"], _texts(provenance))),
    ]
    absent = {"Notes": not notes, "Pictures": not figures, "Options and provenance": not provenance}
    body = "\n".join(
        f"<section><h2>{name}</h2>{content}</section>"
        for name, content in sections
        if not absent.get(name)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}: {escape(method)}</title>\n<style>{_CSS}</style></head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n<p>CBF and ATT from time-encoded pCASL, "
        f"method <b>{escape(method)}</b>.</p>\n{body}\n</body>\n</html>\n"
    )


def _perfusion(maps: PerfusionMaps, regions: Mapping[str, NDArray[np.bool_]]) -> str:
    """Table of medians and quartiles over the voxels fitted within the bounds."""
    rows = []
    for region, where in regions.items():
        chosen = where & (maps.status == Status.FITTED)
        for name, volume, unit, digits in (
            ("CBF", maps.cbf, "mL/100g/min", 1),
            ("ATT", maps.att, "s", 2),
        ):
            numbers = ["n/a"] * 2
            if chosen.any():
                first, median, third = np.percentile(volume[chosen], [25.0, 50.0, 75.0])
                numbers = [f"{median:.{digits}f}", f"{first:.{digits}f} to {third:.{digits}f}"]
            rows.append([region, f"{name} [{unit}]", *numbers, str(chosen.sum())])
    return _table(["region", "map", "median", "quartiles", "voxels"], rows, n_text=2)


def _voxels(data: AslData, maps: PerfusionMaps) -> str:
    """Table of what became of the voxels of the mask."""
    total = int(np.count_nonzero(data.mask))
    counts = {meaning: int((maps.status == status).sum()) for status, meaning in _STATUS.items()}
    rows = [
        [meaning, str(count), f"{100.0 * count / max(total, 1):.1f}"]
        for meaning, count in counts.items()
    ]
    return _table(
        ["outcome", "voxels", "% of the mask"], rows + [["mask", str(total), "100.0"]], n_text=1
    )


def _acquisition(data: AslData) -> str:
    """Tables of the delays and of the constants."""
    protocol = data.protocol
    columns = (protocol.label_duration, protocol.pld, protocol.t, data.n_averages)
    delays = [
        [str(i + 1), *(f"{value:.4g}" for value in row)]
        for i, row in enumerate(zip(*columns, strict=True))
    ]
    t1 = data.t1_tissue[data.valid]
    slowest = float(data.readout_delay[data.mask].max(initial=0.0))
    constants = [
        ["T1 of blood [s]", f"{protocol.t1_blood:.4g}"],
        ["T1 of tissue, median [s]", f"{np.median(t1):.4g}" if t1.size else "n/a"],
        ["labelling efficiency", f"{protocol.labeling_efficiency:.4g}"],
        ["partition coefficient [mL/g]", f"{protocol.partition_coefficient:.4g}"],
        ["largest readout delay of a slice [s]", f"{slowest:.4g}"],
    ]
    header = ["delay", "label duration [s]", "post-labelling delay [s]", "t [s]", "averages"]
    return _table(header, delays, n_text=1) + _table(["constant", "value"], constants)


def _texts(values: Mapping[str, Any]) -> list[list[str]]:
    """Rows of names and values, JSON for what is not text."""
    return [
        [name, value if isinstance(value, str) else json.dumps(value, default=str)]
        for name, value in values.items()
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], n_text: int = 2) -> str:
    """Table whose columns after the first `n_text` hold numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ["" if i < n_text else ' class="number"' for i in range(len(cells))]
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{line('th', header)}</tr></thead><tbody>\n{body}</tbody></table>"


def _figure(png: bytes, caption: str) -> str:
    """Picture inside the page, with its caption."""
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="{source}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
