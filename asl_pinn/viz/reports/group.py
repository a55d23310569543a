"""The page about all results of one method in a folder of derivatives."""

import dataclasses
import io
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

from asl_pinn import models
from asl_pinn.arrays import FloatArray
from asl_pinn.data import Status
from asl_pinn.errors import InputError, one_line
from asl_pinn.io.atomic import write_bytes
from asl_pinn.io.bids import desc_label, map_base
from asl_pinn.io.bids.images import load_image
from asl_pinn.io.bids.sidecar import read_json
from asl_pinn.io.bids.tables import MISSING, as_number, read_table
from asl_pinn.models import Parameter
from asl_pinn.models.partial_volume import TISSUE_LABELS
from asl_pinn.viz import plots
from asl_pinn.viz.plots.axial import axial_view, framed
from asl_pinn.viz.plots.maps import unite
from asl_pinn.viz.plots.style import COLOURS, STYLE, Picture, colour_ends
from asl_pinn.viz.reports.html import render

_SLICES = (0.3, 0.5, 0.7)
_THUMBNAIL = 330  # pixels
_LEAST_FITTED = 0.8
_OUTLYING = 3.5
_LEAST_GROUP = 5
METRICS = {
    "mean_cbf": "mean CBF [mL/100g/min]",
    "mean_gm_cbf": "mean GM CBF [mL/100g/min]",
    "spatial_cov_gm_cbf": "spatial CoV of GM CBF",
    "ratio_gm_wm_cbf": "CBF of GM over WM",
    "qei_cbf": "QEI",
    "tsnr": "tSNR",
    "explained_variance": "explained variance",
    "percentage_outliers": "outliers [%]",
    "mean_fd": "mean FD [mm]",
}
"""Columns of the tables of quality that the page draws, and what it calls them."""

COMPARED = {
    "mean_gm_cbf": "mean GM CBF\n[mL/100g/min]",
    "mean_gm_att": "mean GM ATT [s]",
}
"""Columns that are drawn against what is known of the participants."""

_BY_PARAMETER = ("Bounds", "Priors", "Fixed")  # keys of a sidecar


@dataclasses.dataclass(frozen=True)
class GroupMember:
    """What the page says about one run.

    Attributes
    ----------
    name : str
        'sub-01_ses-1'.
    report : str or None
        Address of its own page, relative to the folder of the group's.
    parameters : tuple of Parameter
        Of which it has maps.
    quartiles : dict of str to ndarray, shape (3,)
        Of each map over the voxels that have an estimate, in its unit; NaN without any.
    n_voxels : int
        Of the mask.
    fitted : float
        Fraction of them that was fitted within the bounds.
    slices : dict of str to ndarray, shape (R, C)
        A few axial slices of each map side by side, NaN outside the mask.
    aspect : float
        Height of a pixel of them over its width.
    options : dict of str to Any
        Model and options of the estimator that it was made with.
    fault : str
        Why its maps cannot be read; '' where they can.
    quality : dict of str to str
        Row of its table of quality, by column; empty where there is none.
    """

    name: str
    report: str | None
    parameters: tuple[Parameter, ...]
    quartiles: dict[str, FloatArray]
    n_voxels: int
    fitted: float
    slices: dict[str, FloatArray]
    aspect: float
    options: dict[str, Any]
    fault: str = ""
    quality: dict[str, str] = dataclasses.field(default_factory=dict)


def write_group_page(
    output_dir: Path,
    method: str,
    model_name: str = "",
    participants: Mapping[str, Mapping[str, str]] | None = None,
) -> Path:
    """Write the page about all results of a method in a folder of derivatives, if it would differ.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset.
    method : str
        Name of the estimator.
    model_name : str
        Model of the present run, which may be one that is not registered.
    participants : mapping of str to mapping, optional
        What is known of each, by 'sub-01' and column of participants.tsv.

    Returns
    -------
    Path
        The page, `group_desc-<method>_report.html`.

    Raises
    ------
    InputError
        If the page cannot be written.
    """
    label = desc_label(method)
    path = output_dir / f"group_desc-{label}_report.html"
    members = read_group(output_dir, label, model_name)
    page = group_page(members, method, participants).encode()
    if not path.is_file() or path.read_bytes() != page:
        write_bytes(path, page)
    return path


def read_group(output_dir: Path, label: str, model_name: str = "") -> list[GroupMember]:
    """Look through the maps of one method in a folder of derivatives.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset.
    label : str
        The method's, from `asl_pinn.io.bids.desc_label`.
    model_name : str
        Model of the present run.

    Returns
    -------
    list of GroupMember
        Sorted by name. A run of a model that is neither registered nor that of the present run has
        no parameters here: a sidecar is data, and code that it names is not imported.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    found = {}
    for desc in (f"_desc-{label}{tissue}_" for tissue in ("", *TISSUE_LABELS)):
        for path in output_dir.glob(f"sub-*/**/perf/*{desc}*.json"):
            try:
                record = read_json(path)
            except InputError:
                continue  # whose it is cannot be told; its own run says so
            if {"Outputs", "Model"} <= record.keys():  # written last: all else of the run is there
                found[path.parent, path.name.split(desc)[0]] = record
    members = [
        _read_or_note(output_dir, folder, name, label, record, model_name)
        for (folder, name), record in found.items()
    ]
    return sorted(members, key=lambda member: member.name)


def group_page(
    members: Sequence[GroupMember],
    method: str,
    participants: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Page that lists runs with medians, a picture and a link each.

    Parameters
    ----------
    members : sequence of GroupMember
        The runs.
    method : str
        Name of the estimator.
    participants : mapping of str to mapping, optional
        What is known of each, by 'sub-01' and column of participants.tsv.

    Returns
    -------
    str
        An HTML5 page like that of `html_report`. Colours are the same for all.
    """
    parameters = unite(member.parameters for member in members)
    remarks = _remarks(members, parameters)
    ends = {p.name: _shared_ends(members, p) for p in parameters}
    verdicts = int(any(_verdict(member) != MISSING for member in members))
    rows = [
        {
            "name": member.name,
            "report": member.report,
            "picture": _picture(member, parameters, ends),
            "remarks": said,
            "numbers": _numbers(member, parameters) + verdicts * [_verdict(member)],
        }
        for member, said in zip(members, remarks, strict=True)
    ]
    remarked = np.array([bool(said) for said in remarks])
    maps = f"maps of {', '.join(p.symbol for p in parameters)}"
    headings = [p.heading for p in parameters]
    overview = _overview(members, parameters, ends, remarked) if parameters else None
    table = [member.quality for member in members]
    spread = plots.distribution_figure(table, remarked, METRICS)
    compared = plots.covariate_figure(table, participants or {}, COMPARED)
    return render(
        "group.html",
        title="Group",
        method=method,
        n_remarked=int(remarked.sum()),
        overview=overview and plots.png(overview),
        spread=spread and plots.png(spread),
        compared=compared and plots.png(compared),
        header=["", "run", maps, *headings, "voxels", "fitted", *verdicts * ["verdict"]],
        width=_THUMBNAIL,
        rows=rows,
    )


def _parameters(name: str, model_name: str) -> tuple[Parameter, ...]:
    registered = models.available()
    if name == model_name or all(part in registered for part in name.split("+")):
        return models.get(name).parameters
    return ()


def _read_or_note(output_dir: Path, folder: Path, name: str, *others: Any) -> GroupMember:
    """A member; of outputs that are damaged, one without maps that says what is wrong."""
    try:
        return _read_member(output_dir, folder, name, *others)
    except (InputError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        fault = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return GroupMember(name, None, (), {}, 0, 0.0, {}, 1.0, {}, fault=one_line(fault))


def _read_member(
    output_dir: Path,
    folder: Path,
    name: str,
    label: str,
    record: Mapping[str, Any],
    model_name: str,
) -> GroupMember:
    base = f"{name}_desc-{label}"
    paths = {
        p: folder / f"{map_base(base, p)}.nii.gz"
        for p in _parameters(record["Model"], model_name)
        if f"{map_base(base, p)}.nii.gz" in record["Outputs"]  # held parameters have no map
    }
    images = {p.name: load_image(path) for p, path in paths.items()}
    status_image = load_image(folder / f"{base}Status_dseg.nii.gz")
    status, affine = status_image.values, status_image.affine
    mask, fitted = status != Status.OUTSIDE, status == Status.FITTED
    estimated = mask & (status != Status.SKIPPED)
    report = folder / f"{base}_report.html"
    view = axial_view(mask, affine)
    with_brain = np.flatnonzero(view.slices.any(axis=(1, 2)))
    shown = [with_brain[int(place * len(with_brain))] for place in _SLICES] if mask.any() else []

    def side_by_side(values: FloatArray) -> FloatArray:
        if not shown:
            return np.full((1, 1), np.nan)
        volume = axial_view(np.where(mask, values, np.nan), affine).slices
        return np.concatenate(list(framed(volume, view.slices)[sorted(set(shown))]), axis=1)

    def quartiles(p: Parameter) -> FloatArray:
        values = images[p.name].values
        told = estimated
        if p.tissue or p.sparse or p.lower > 0.0:
            told = told & (values != 0.0)  # else there is none of the tissue, or of the component
        return np.percentile(values[told], [25.0, 50.0, 75.0]) if told.any() else _NONE

    return GroupMember(
        name=name,
        report=report.relative_to(output_dir).as_posix() if report.is_file() else None,
        parameters=tuple(paths),
        quartiles={p.name: quartiles(p) for p in paths},
        n_voxels=int(mask.sum()),
        fitted=float(fitted.sum() / max(mask.sum(), 1)),
        slices={key: side_by_side(image.values) for key, image in images.items()},
        aspect=view.aspect,
        options=_options(record),
        quality=_quality(folder / f"{base}_qc.tsv"),
    )


def _quality(table: Path) -> dict[str, str]:
    """Row of the table of quality of a run; none of one that an earlier version made."""
    rows = read_table(table) if table.is_file() else []
    return rows[0] if rows else {}


def _options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Model and options that a sidecar states, each under a name of its own."""
    options = {"Model": record["Model"], **record.get("Options", {})}
    for key in _BY_PARAMETER:
        options |= {f"{key} of {name}": value for name, value in record.get(key, {}).items()}
    return options


_NONE = np.full(3, np.nan)


def _remarks(members: Sequence[GroupMember], parameters: Sequence[Parameter]) -> list[list[str]]:
    """What is odd about each run."""
    remarks: list[list[str]] = [[] for _ in members]
    for other, said in zip(_other_options(members), remarks, strict=True):
        if other:
            said.append(f"made with other options than most: {', '.join(other)}")
    for member, said in zip(members, remarks, strict=True):
        if member.fault:
            said.append(f"its outputs are damaged: {member.fault}")
            continue
        if not member.parameters:
            said.append("its model is not registered here, so that its maps are not shown")
        if member.fitted < _LEAST_FITTED:
            said.append(
                f"only {100.0 * member.fitted:.0f} % of the voxels fitted within the bounds"
            )
    numbers = {p.symbol: _quartiles(members, p)[:, 1] for p in parameters} | {
        label: np.array([as_number(m.quality.get(column)) for m in members], np.float64)
        for column, label in METRICS.items()
    }
    for label, values in numbers.items():
        for side, said in zip(_far(values), remarks, strict=True):
            if side:
                said.append(f"{label.partition(' [')[0]} is far {side} the others")
    return remarks


def _far(values: FloatArray) -> list[str]:
    """On which side of the others each value is an outlier: 'above', 'below', or ''."""
    known = values[np.isfinite(values)]
    if len(known) < _LEAST_GROUP:
        return [""] * len(values)
    centre = np.median(known)
    # 1.4826: the median absolute deviation of a normal distribution over its SD
    far = _OUTLYING * 1.4826 * np.median(np.abs(known - centre))
    return [
        "" if not abs(value - centre) > far else "above" if value > centre else "below"
        for value in values
    ]


def _quartiles(members: Sequence[GroupMember], parameter: Parameter) -> FloatArray:
    """Quartiles of a parameter in each run, NaN where it has none, shape (N, 3)."""
    return np.array([member.quartiles.get(parameter.name, _NONE) for member in members])


def _other_options(members: Sequence[GroupMember]) -> list[list[str]]:
    """Options of each run that are not those of most runs."""
    options = [{f"{name}={value}" for name, value in m.options.items()} for m in members]
    counts = Counter(each for chosen in options for each in chosen)
    return [sorted(s for s in chosen if 2 * counts[s] < len(members)) for chosen in options]


def _shared_ends(members: Sequence[GroupMember], parameter: Parameter) -> tuple[float, float]:
    """Ends of the colours of all pictures of a map: medians of those of each run."""
    name = parameter.name
    ends = [
        colour_ends(parameter, member.slices[name], 98.0)
        for member in members
        if np.isfinite(member.quartiles.get(name, _NONE)).all()
    ]
    low, high = np.median(ends, axis=0) if ends else (0.0, 1.0)
    return float(low), float(high)


def _picture(
    member: GroupMember,
    parameters: Sequence[Parameter],
    ends: Mapping[str, tuple[float, float]],
) -> bytes:
    """The maps side by side, blank where there is none; one pixel a voxel, of square pixels."""
    blank = np.full_like(next(iter(member.slices.values()), np.zeros((1, 1))), np.nan)
    parts = [] if parameters else [np.ones((1, 1, 4))]
    for p in parameters:
        colours = matplotlib.colormaps[p.colours].with_extremes(bad="white")
        low, high = ends[p.name]
        scaled = (member.slices.get(p.name, blank)[::-1] - low) / (high - low)
        parts.append(colours(np.ma.masked_invalid(scaled)))
    rgba = np.concatenate(parts, axis=1)
    rows = max(1, round(rgba.shape[0] * member.aspect))
    nearest = np.minimum((np.arange(rows) / rows * rgba.shape[0]).astype(int), rgba.shape[0] - 1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, rgba[nearest], format="png")
    return buffer.getvalue()


def _overview(
    members: Sequence[GroupMember],
    parameters: Sequence[Parameter],
    ends: Mapping[str, tuple[float, float]],
    remarked: np.ndarray,
) -> Figure:
    """Medians and quartiles of all runs, with the colours of the pictures beside them."""
    places = np.arange(1, len(members) + 1)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(8.5, 2.0 * len(parameters)), layout="constrained")
        axes = figure.subplots(len(parameters), 1, sharex=True, squeeze=False)[:, 0]
        for ax, p, colour in zip(axes, parameters, itertools.cycle(COLOURS), strict=False):
            first, median, third = _quartiles(members, p).T
            ax.vlines(places, first, third, color=colour, linewidth=1.0)
            filled, hollow = {"markersize": 4.0}, {"markersize": 6.0, "fillstyle": "none"}
            for chosen, style in ((~remarked, filled), (remarked, hollow)):
                ax.plot(places[chosen], median[chosen], "o", color=colour, **style)
            ax.set_ylabel(p.heading)
            if ends[p.name][0] == 0.0:
                ax.set_ylim(bottom=0.0)
            shades = matplotlib.cm.ScalarMappable(
                matplotlib.colors.Normalize(*ends[p.name]), matplotlib.colormaps[p.colours]
            )
            figure.colorbar(shades, ax=ax, label=p.heading, pad=0.01)
        ax.set_xlabel("run")
        ax.set_xlim(0.5, len(members) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
        return figure


def _numbers(member: GroupMember, parameters: Sequence[Parameter]) -> list[str]:
    cells = []
    for p in parameters:
        values = member.quartiles.get(p.name, _NONE)
        if np.isfinite(values).all():
            first, median, third = (f"{value:.{p.digits}f}" for value in values)
            cells.append(f"{median} ({first} to {third})")
        else:
            cells.append(MISSING)
    return [*cells, str(member.n_voxels), f"{100.0 * member.fitted:.0f} %"]


def _verdict(member: GroupMember) -> str:
    return member.quality.get("verdict", MISSING)
