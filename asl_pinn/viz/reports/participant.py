"""The page about one result: one participant, one method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.estimators.base import Estimator
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.evaluation.prediction import predicted
from asl_pinn.io.bids import desc_label
from asl_pinn.viz import plots
from asl_pinn.viz.regions import Regions, find_regions
from asl_pinn.viz.reports.html import Table, mapping_table, render
from asl_pinn.viz.reports.methods import enumerated, methods_text, software_citation

_STATUS = {
    Status.FITTED: ("fitted within the bounds", ""),
    Status.ON_BOUND: (
        "on or beyond a bound",
        "That of {parameters}: no perfusion, a vessel, too small an M0, or too much noise; do not "
        "trust the value. Counts in the medians of the table of perfusion.",
    ),
    Status.NOT_CONVERGED: (
        "did not converge",
        "The fit ended before it converged; do not trust the value. Counts in the medians of the "
        "table of perfusion.",
    ),
    Status.SKIPPED: (
        "skipped",
        "NaN, infinite data or values beyond all sense, M0 not positive, or T1 below 0.1 s; 0 in "
        "all maps.",
    ),
}
_POOR_FIT = 3.0
_CRUSHING = {None: "not stated", True: "yes", False: "no"}

_CAPTIONS = {
    "maps": "Maps; the line is the outline of the mask. Colours are the same in all reports; "
    "arrows mark values beyond.",
    "histograms": "Distribution over the voxels fitted within the bounds.",
    "uncertainty": "Standard deviations of the maps.",
    "probability": "Probability that a voxel has the component that most voxels lack, from its "
    "own data; how many have it is told by all voxels.",
    "inputs": "M0 and the mean difference; the line is the outline of the mask.",
    "history": "Course of the fit, step by step.",
    "curves": "Mean signal of each region: points are measured, with intervals of 95 % of the mean "
    "where the noise is known; lines are fitted, with the quartiles over the voxels as shades.",
    "status": "What became of each voxel of the mask.",
    "residuals": "Measured minus fitted, in the slice with most brain, volume by volume; below, "
    "medians and quartiles. Structure in the residuals is not noise: motion, vessels, or a model "
    "that does not describe the data.",
}
_FIT = (
    "Top: when each bolus was labelled. Below: data and model in voxels from low to high "
    "{ranked}, each difference where its bolus began.{arrival}{noise}"
)
_ARRIVAL = (
    " A bolus that began left of the dotted line ({symbol}) has begun to arrive before the readout."
)
_NOISE = " Error bars are one standard deviation of the noise."


def report_files(
    data: AslData,
    maps: Maps,
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
    grey_matter: NDArray[np.bool_] | None = None,
    images: FloatArray | None = None,
) -> dict[str, bytes]:
    """Make the picture and the page of a result.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : Maps
        The result.
    provenance, notes
        As for `html_report`.
    grey_matter : ndarray of bool, shape (X, Y, Z), optional
        Grey matter, where it is known.
    images : ndarray, shape (X, Y, Z, D), optional
        What the result predicts, if that is there already [unit of delta_m].

    Returns
    -------
    dict of str to bytes
        Contents by what follows the run's name: '_desc-nlls_maps.png', '_desc-nlls_report.html'.
    """
    title = Path(data.stem).name
    regions = find_regions(data, grey_matter)
    images = predicted(data, maps) if images is None else images
    figures = report_figures(data, maps, images, regions, f"{title}, {maps.method}")
    page = html_report(
        data,
        maps,
        images,
        title=title,
        estimator=get_estimator(maps.method),
        regions=regions,
        figures=figures,
        provenance=provenance,
        notes=notes,
    )
    base = f"_desc-{desc_label(maps.method)}"
    return {f"{base}_maps.png": figures["maps"], f"{base}_report.html": page.encode()}


def report_figures(
    data: AslData, maps: Maps, images: FloatArray, regions: Regions, title: str
) -> dict[str, bytes]:
    """Draw the pictures of a report.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : Maps
        The result.
    images : ndarray, shape (X, Y, Z, D)
        What it predicts, from `asl_pinn.evaluation.prediction.predicted` [unit of delta_m].
    regions : Regions
        By which to summarise.
    title : str
        Heading of the maps.

    Returns
    -------
    dict of str to bytes
        PNG files: 'maps', 'uncertainty' where there are standard deviations, 'probability' where
        the model has a sparse component, 'status',
        'histograms', 'fit', 'curves' and 'residuals' of several delays, as one is fitted
        exactly, 'inputs', and 'history' where the method recorded its course.
    """
    figures = {"maps": plots.map_figure(maps, data.mask, title=title)}
    if maps.sd:
        figures["uncertainty"] = plots.map_figure(
            maps, data.mask, title="Standard deviations", sd=True
        )
    if maps.probability:
        figures["probability"] = plots.probability_figure(maps, data.mask)
    figures["status"] = plots.status_figure(maps, data.mask)
    figures["histograms"] = plots.histogram_figure(maps, regions)
    figures["fit"] = plots.fit_figure(data, maps, images)
    if data.protocol.n_delays > 1:
        figures["curves"] = plots.mean_curve_figure(data, maps, images, regions)
        figures["residuals"] = plots.residual_figure(data, maps, images, regions)
    figures["inputs"] = plots.input_figure(data)
    course = plots.history_figure(maps.history)
    if course is not None:
        figures["history"] = course
    return {name: plots.png(figure) for name, figure in figures.items()}


def html_report(
    data: AslData,
    maps: Maps,
    images: FloatArray,
    *,
    title: str,
    estimator: Estimator,
    regions: Regions,
    figures: Mapping[str, bytes],
    provenance: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """Describe a result for people: numbers, pictures, acquisition, provenance, methods.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : Maps
        The result.
    images : ndarray, shape (X, Y, Z, D)
        What it predicts, from `asl_pinn.evaluation.prediction.predicted` [unit of delta_m].
    title : str
        Heading of the page, such as the participant.
    estimator : Estimator
        What made it.
    regions : Regions
        By which to summarise.
    figures : mapping of str to bytes
        From `report_figures`.
    provenance : mapping of str to Any
        As for `methods_text`, with versions, seed, sources and verdict; a table for each mapping
        in it, and one for what is left.
    notes : sequence of str
        What a reader should know about the data or the result, one sentence each.

    Returns
    -------
    str
        An HTML5 page without scripts or external resources; every text is escaped. Medians
        and quartiles are over the voxels that have an estimate, those on a bound among them.
    """
    n_delays = data.protocol.n_delays
    symbols = enumerated([p.symbol for p in maps.model.parameters])
    delays = f"{n_delays} {'delay' if n_delays == 1 else 'delays'}"
    methods, references = methods_text(data, maps, estimator, provenance)
    return render(
        "participant.html",
        title=title,
        method=maps.method,
        summary=f"{symbols}, method {maps.method}, model {maps.model.name}, {delays}.",
        verdict=provenance.get("Verdict"),
        reasons=provenance.get("VerdictReasons", ()),
        notes=notes,
        perfusion=_perfusion(maps, regions),
        origin=regions.origin,
        choice=_choice(maps),
        uncertainty=_uncertainty(maps, regions) if maps.sd else None,
        voxels=_voxels(data, maps, images),
        figures=figures,
        captions={**_CAPTIONS, "fit": _fit_caption(maps)},
        acquisition=_acquisition(data),
        methods=methods,
        references=references,
        citation=software_citation(),
        provenance=_provenance(provenance),
    )


def _choice(maps: Maps) -> Table | None:
    """The models that the data chose among, and what spoke for each; None where there was one."""
    if maps.choice is None or not maps.choice.compared:
        return None
    rows = [
        [
            each.model,
            "yes" if each.model == maps.choice.model else "",
            f"{each.evidence:.3f}",
            "n/a" if each.prediction is None else f"{each.prediction:.3f}",
            f"{100.0 * each.fraction:.1f}",
        ]
        for each in maps.choice.compared
    ]
    header = [
        "model",
        "chosen",
        "log evidence per voxel",
        "log probability of delays left out, per voxel",
        "% of voxels with arteries",
    ]
    return Table(header, rows)


def _fit_caption(maps: Maps) -> str:
    arrivals = [p.symbol for p in maps.model.parameters if p.kinked and p.unit == "s"]
    return _FIT.format(
        ranked=maps.model.parameters[0].symbol,
        arrival=_ARRIVAL.format(symbol=" or ".join(arrivals)) if arrivals else "",
        noise="" if maps.noise_sd is None else _NOISE,
    )


def _perfusion(maps: Maps, regions: Regions) -> Table:
    """Medians and quartiles over the voxels with an estimate, and how many are on a bound."""
    everywhere = np.ones(maps.status.shape, dtype=bool)
    rows = []
    for region, mask in {"all voxels": everywhere, **regions.masks}.items():
        for p in maps.model.parameters:
            chosen = mask & maps.estimated(p.name)
            numbers = ["n/a"] * 3
            if chosen.any():
                quartiles = np.percentile(maps[p.name][chosen], [25.0, 50.0, 75.0])
                first, median, third = (f"{value:.{p.digits}f}" for value in quartiles)
                on_bound = np.mean(np.asarray(maps.status)[chosen] == Status.ON_BOUND)
                numbers = [median, f"{first} to {third}", f"{100.0 * on_bound:.0f}"]
            rows.append([region, p.heading, *numbers, str(chosen.sum())])
    return Table(["region", "map", "median", "quartiles", "% on a bound", "voxels"], rows)


def _uncertainty(maps: Maps, regions: Regions) -> Table:
    """Median standard deviations."""
    rows = []
    for region, mask in regions.masks.items():
        for p in maps.model.parameters:
            chosen = mask & maps.fitted(p.name)
            numbers = ["n/a"] * 2
            if chosen.any():
                sd = maps.sd[p.name][chosen]
                percent = 100.0 * sd / np.maximum(np.abs(maps[p.name][chosen]), 1e-6)
                numbers = [f"{np.median(sd):.{p.digits}f}", f"{np.median(percent):.0f}"]
            rows.append([region, p.heading, *numbers])
    return Table(["region", "map", "median SD", "median SD [% of the value]"], rows)


def _voxels(data: AslData, maps: Maps, images: FloatArray) -> Table:
    """What became of the voxels of the mask, and why."""
    total = int(np.count_nonzero(data.mask))
    parameters = enumerated([p.symbol for p in maps.model.parameters], "or")
    rows = [
        (meaning, reason.format(parameters=parameters), int((maps.status == status).sum()))
        for status, (meaning, reason) in _STATUS.items()
    ]
    rows.append(("all of the mask", "", total))
    if maps.noise_sd is not None:
        misfit = (data.delta_m - images) / maps.noise_sd * np.sqrt(data.n_averages)
        poor = np.sqrt(np.mean(misfit**2, axis=-1)) > _POOR_FIT
        reason = (
            f"Root mean square residual above {_POOR_FIT:g} noise SDs: the model does not describe "
            "the data there, as in vessels, at edges or after motion. Counted above as well."
        )
        rows.append(("poor fit", reason, int(poor[data.valid].sum())))
    return Table(
        ["outcome", "why, and what it means", "voxels", "% of the mask"],
        [[*texts, str(n), f"{100.0 * n / max(total, 1):.1f}"] for *texts, n in rows],
    )


def _acquisition(data: AslData) -> list[Table]:
    """The delays, and the constants."""
    protocol = data.protocol
    columns = (protocol.label_duration, protocol.pld, protocol.t, data.n_averages)
    delays = [
        [str(i + 1), *(f"{value:.4g}" for value in row)]
        for i, row in enumerate(zip(*columns, strict=True))
    ]
    t1 = data.t1_tissue[data.valid]
    slowest = float(data.readout_delay[data.mask].max(initial=0.0))
    constants = [
        ["labelling", protocol.labeling],
        ["vascular crushing", _CRUSHING[protocol.vascular_crushing]],
        ["T1 of blood [s]", f"{protocol.t1_blood:.4g}"],
        ["T1 of tissue, median [s]", f"{np.median(t1):.4g}" if t1.size else "n/a"],
        ["labelling efficiency", f"{protocol.labeling_efficiency:.4g}"],
        ["partition coefficient [mL/g]", f"{protocol.partition_coefficient:.4g}"],
        ["largest readout delay of a slice [s]", f"{slowest:.4g}"],
    ]
    header = ["volume", "label duration [s]", "post-labelling delay [s]", "t [s]", "averages"]
    return [Table(header, delays, n_text=1), Table(["constant", "value"], constants, n_text=1)]


def _provenance(values: Mapping[str, Any]) -> dict[str, Table]:
    """A table for each mapping, headed by its name, and one for what is left."""
    groups = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    rest = {name: value for name, value in values.items() if name not in groups}
    if rest:
        groups[""] = rest
    return {name: mapping_table(group) for name, group in groups.items() if group}
