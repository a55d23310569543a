"""The page about all results of one method in a folder of derivatives."""

import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

from asl_pinn.arrays import FloatArray
from asl_pinn.bids import desc_label
from asl_pinn.bids.images import load_image
from asl_pinn.bids.sidecar import read_json
from asl_pinn.data import Status
from asl_pinn.files import write_bytes
from asl_pinn.plots.axial import axial_view, framed
from asl_pinn.plots.style import COLOURS, MAPS, STYLE, png
from asl_pinn.reports import html

_SLICES = (0.3, 0.5, 0.7)
_THUMBNAIL = 330  # pixels
_LEAST_FITTED = 0.8
_OUTLYING = 3.5
_LEAST_GROUP = 5
_HEADER = [
    "",
    "run",
    "CBF, left, and ATT, right",
    "CBF [mL/100g/min]",
    "ATT [s]",
    "voxels",
    "fitted",
]


@dataclasses.dataclass(frozen=True)
class GroupMember:
    """What the page says about one run.

    Attributes
    ----------
    name : str
        'sub-01_ses-1'.
    report : str or None
        Address of its own page, relative to the folder of the group's.
    cbf, att : ndarray, shape (3,)
        Quartiles over the voxels fitted within the bounds [mL/100g/min, s]; NaN without any.
    n_voxels : int
        Of the mask.
    fitted : float
        Share of them that was fitted within the bounds.
    slices : dict of str to ndarray, shape (R, C)
        A few axial slices of 'cbf' and of 'att' side by side, NaN outside the fitted voxels.
    aspect : float
        Height of a pixel of them over its width.
    options : dict of str to Any
        Options of the estimator that it was made with.
    """

    name: str
    report: str | None
    cbf: FloatArray
    att: FloatArray
    n_voxels: int
    fitted: float
    slices: dict[str, FloatArray]
    aspect: float
    options: dict[str, Any]


def write_group_page(output_dir: Path, method: str) -> Path:
    """Write the page about all results of a method in a folder of derivatives, if it would differ.

    Parameters
    ----------
    output_dir : Path
    method : str
        Name of the estimator.

    Returns
    -------
    Path
        The page, `group_desc-<method>_report.html`.

    Raises
    ------
    InputError
        If a map is unreadable or the page cannot be written.
    """
    label = desc_label(method)
    path = output_dir / f"group_desc-{label}_report.html"
    page = group_page(read_group(output_dir, label), method).encode()
    if not path.is_file() or path.read_bytes() != page:
        write_bytes(path, page)
    return path


def read_group(output_dir: Path, label: str) -> list[GroupMember]:
    """Look through the maps of one method in a folder of derivatives.

    Parameters
    ----------
    output_dir : Path
    label : str
        The method's, from `asl_pinn.bids.desc_label`.

    Returns
    -------
    list of GroupMember
        Sorted by name.

    Raises
    ------
    InputError
        If a map is unreadable or has no status beside it.
    """
    ending = f"_desc-{label}_cbf.json"  # written last: all else of the run is there
    paths = sorted(output_dir.glob(f"sub-*/**/perf/*{ending}"), key=lambda path: path.name)
    return [
        _read_member(output_dir, path.parent, path.name.removesuffix(ending), label)
        for path in paths
    ]


def group_page(members: Sequence[GroupMember], method: str) -> str:
    """Page that lists runs with medians, a picture and a link each.

    Parameters
    ----------
    members : sequence of GroupMember
    method : str
        Name of the estimator.

    Returns
    -------
    str
        An HTML5 page like that of `html_report`. Colours are the same for all.
    """
    remarks = _remarks(members)
    ends = {name: _shared_ends(members, name) for name in ("cbf", "att")}
    rows = [
        [
            str(number),
            _name(member),
            html.image(_picture(member, ends), f"CBF and ATT of {member.name}", _THUMBNAIL)
            + html.paragraph("; ".join(said), "aside"),
            *map(html.plain, _numbers(member)),
        ]
        for number, (member, said) in enumerate(zip(members, remarks, strict=True), start=1)
    ]
    n_odd = sum(bool(said) for said in remarks)
    return html.page(
        f"Group: {method}",
        [
            f"<h1>Group: {html.plain(method)}</h1>",
            html.paragraph(
                f"{len(members)} runs, {n_odd} with remarks. Listed are medians and, in brackets, "
                "quartiles over the voxels fitted within the bounds, the voxels of the mask, and "
                "the share of them fitted so."
            ),
            html.section(
                "Overview", html.figure(_overview(members, ends), _CAPTION) if members else ""
            ),
            html.section("Runs", html.raw_table(_HEADER, rows, n_text=3)),
        ],
    )


_CAPTION = (
    "Medians and quartiles of each run, by its number in the list; runs with remarks are hollow. "
    "The bars are the colours of the pictures below."
)


def _read_member(output_dir: Path, folder: Path, name: str, label: str) -> GroupMember:
    base = f"{name}_desc-{label}"
    cbf = load_image(folder / f"{base}_cbf.nii.gz")
    att = load_image(folder / f"{base}_att.nii.gz")
    status = load_image(folder / f"{base}Status_dseg.nii.gz").values
    mask, fitted = status != Status.OUTSIDE, status == Status.FITTED
    report = folder / f"{base}_report.html"
    view = axial_view(mask, cbf.affine)
    with_brain = np.flatnonzero(view.slices.any(axis=(1, 2)))
    shown = [with_brain[int(share * len(with_brain))] for share in _SLICES] if mask.any() else []

    def side_by_side(values: FloatArray) -> FloatArray:
        if not shown:
            return np.full((1, 1), np.nan)
        volume = axial_view(np.where(mask, values, np.nan), cbf.affine).slices
        return np.concatenate(list(framed(volume, view.slices)[sorted(set(shown))]), axis=1)

    def quartiles(values: FloatArray) -> FloatArray:
        return np.percentile(values[fitted], [25.0, 50.0, 75.0]) if fitted.any() else _NONE

    return GroupMember(
        name,
        report.relative_to(output_dir).as_posix() if report.is_file() else None,
        quartiles(cbf.values),
        quartiles(att.values),
        int(mask.sum()),
        float(fitted.sum() / max(mask.sum(), 1)),
        {"cbf": side_by_side(cbf.values), "att": side_by_side(att.values)},
        view.aspect,
        read_json(folder / f"{base}_cbf.json").get("Options", {}),
    )


_NONE = np.full(3, np.nan)


def _remarks(members: Sequence[GroupMember]) -> list[list[str]]:
    """What is odd about each run."""
    remarks: list[list[str]] = [[] for _ in members]
    for other, said in zip(_other_options(members), remarks, strict=True):
        if other:
            said.append(f"made with other options than most: {', '.join(other)}")
    for member, said in zip(members, remarks, strict=True):
        if member.fitted < _LEAST_FITTED:
            said.append(
                f"only {100.0 * member.fitted:.0f} % of the voxels fitted within the bounds"
            )
    for name, symbol in (("cbf", "CBF"), ("att", "ATT")):
        medians = np.array([getattr(member, name)[1] for member in members])
        known = medians[np.isfinite(medians)]
        if len(known) < _LEAST_GROUP:
            continue
        centre = np.median(known)
        spread = 1.4826 * np.median(np.abs(known - centre))
        for median, said in zip(medians, remarks, strict=True):
            if abs(median - centre) > _OUTLYING * spread:
                said.append(f"{symbol} is far {'above' if median > centre else 'below'} the others")
    return remarks


def _other_options(members: Sequence[GroupMember]) -> list[list[str]]:
    """Options of each run that are not those of most runs."""
    settings = [{f"{name}={value}" for name, value in m.options.items()} for m in members]
    counts = Counter(setting for each in settings for setting in each)
    return [sorted(s for s in each if 2 * counts[s] < len(members)) for each in settings]


def _shared_ends(members: Sequence[GroupMember], name: str) -> tuple[float, float]:
    """Ends of the colours of all pictures of a map."""
    tops = [np.nanpercentile(m.slices[name], 98.0) for m in members if m.cbf[1] == m.cbf[1]]
    top = float(np.median(tops)) if tops else 1.0
    return 0.0, top if top > 0.0 else 1.0


def _picture(member: GroupMember, ends: dict[str, tuple[float, float]]) -> bytes:
    """CBF and ATT side by side, one pixel a voxel, of square pixels."""
    parts = []
    for name, values in member.slices.items():
        colours = matplotlib.colormaps[MAPS[name][1]].with_extremes(bad="white")
        low, high = ends[name]
        parts.append(colours(np.ma.masked_invalid((values[::-1] - low) / (high - low))))
    rgba = np.concatenate(parts, axis=1)
    rows = max(1, round(rgba.shape[0] * member.aspect))
    nearest = np.minimum((np.arange(rows) / rows * rgba.shape[0]).astype(int), rgba.shape[0] - 1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, rgba[nearest], format="png")
    return buffer.getvalue()


def _overview(members: Sequence[GroupMember], ends: dict[str, tuple[float, float]]) -> bytes:
    """Medians and quartiles of all runs, with the colours of the pictures beside them."""
    odd = np.array([bool(said) for said in _remarks(members)])
    places = np.arange(1, len(members) + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.0), layout="constrained")
        for ax, name, colour in zip(
            figure.subplots(2, 1, sharex=True), ends, COLOURS, strict=False
        ):
            first, median, third = np.array([getattr(m, name) for m in members]).T
            ax.vlines(places, first, third, color=colour, linewidth=1.0)
            ax.plot(places[~odd], median[~odd], "o", color=colour, markersize=4.0)
            ax.plot(places[odd], median[odd], "o", color=colour, markersize=6.0, fillstyle="none")
            label, colours = MAPS[name]
            ax.set_ylabel(label)
            ax.set_ylim(bottom=0.0)
            shades = matplotlib.cm.ScalarMappable(
                matplotlib.colors.Normalize(*ends[name]), matplotlib.colormaps[colours]
            )
            figure.colorbar(shades, ax=ax, label=label, pad=0.01)
        ax.set_xlabel("run")
        ax.set_xlim(0.5, len(members) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
        return png(figure)


def _name(member: GroupMember) -> str:
    name = html.plain(member.name)
    return name if member.report is None else html.link(member.report, member.name)


def _numbers(member: GroupMember) -> list[str]:
    cells = []
    for values, digits in ((member.cbf, 1), (member.att, 2)):
        if np.isfinite(values).all():
            first, median, third = (f"{value:.{digits}f}" for value in values)
            cells.append(f"{median} ({first} to {third})")
        else:
            cells.append("n/a")
    return [*cells, str(member.n_voxels), f"{100.0 * member.fitted:.0f} %"]
