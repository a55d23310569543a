"""The page about one result: one participant, one method."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asl_pinn import plots
from asl_pinn.arrays import FloatArray
from asl_pinn.bids import AslRun, desc_label, read_grey_matter
from asl_pinn.data import AslData, PerfusionMaps, Status
from asl_pinn.estimators import get_estimator
from asl_pinn.reports import html
from asl_pinn.reports.methods import methods_text, software_citation
from asl_pinn.residuals import predicted
from asl_pinn.tissue import Tissues, find_tissues

_STATUS = {
    Status.FITTED: ("fitted within the bounds", ""),
    Status.ON_BOUND: (
        "ended on a bound",
        "CBF or ATT is no estimate but the limit of its range: no perfusion, a vessel, an M0 that "
        "is too small, or too much noise. Left out of the medians here.",
    ),
    Status.NOT_CONVERGED: (
        "did not converge",
        "The solver ran out of steps; do not trust the value. Left out of the medians here.",
    ),
    Status.SKIPPED: (
        "skipped",
        "NaN or infinite data, M0 not positive, or T1 below 0.1 s; 0 in all maps.",
    ),
}
_POOR_FIT = 3.0
_MAPS = (("cbf", "CBF", "mL/100g/min", 1), ("att", "ATT", "s", 2))


def report_files(
    run: AslRun,
    data: AslData,
    maps: PerfusionMaps,
    method: str,
    provenance: Mapping[str, Any],
    notes: Sequence[str],
) -> dict[str, bytes]:
    """Make the picture and the page of a result.

    Parameters
    ----------
    run : AslRun
        What was quantified; its derivatives may tell grey matter.
    data : AslData
        Read from it.
    maps : PerfusionMaps
        The result.
    method : str
        Name of the estimator.
    provenance, notes
        As for `html_report`.

    Returns
    -------
    dict of str to bytes
        Contents by what follows the run's name: '_desc-nlls_maps.png', '_desc-nlls_report.html'.
    """
    estimator = get_estimator(method)
    tissues = find_tissues(data, read_grey_matter(run, data))
    images = predicted(data, maps)
    figures = report_figures(data, maps, images, tissues, f"{run.stem}, {method}")
    page = html_report(
        data,
        maps,
        images,
        title=run.stem,
        method=method,
        description=estimator.describe(provenance["Options"]),
        references=estimator.references,
        tissues=tissues,
        figures=figures,
        provenance=provenance,
        notes=notes,
    )
    base = f"_desc-{desc_label(method)}"
    return {f"{base}_maps.png": figures["maps"], f"{base}_report.html": page.encode()}


def report_figures(
    data: AslData, maps: PerfusionMaps, images: FloatArray, tissues: Tissues, title: str
) -> dict[str, bytes]:
    """Draw the pictures of a report.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : PerfusionMaps
        The result.
    images : ndarray, shape (X, Y, Z, D)
        What it predicts, from `asl_pinn.residuals.predicted` [unit of delta_m].
    tissues : Tissues
        By which to summarise.
    title : str
        Heading of the maps.

    Returns
    -------
    dict of str to bytes
        PNG files: 'maps', 'uncertainty' where there are standard deviations, 'status',
        'histograms', 'fit' and 'residuals'.
    """
    place = (data.mask, data.affine)
    figures = {"maps": plots.map_figure(maps, *place, title, ("cbf", "att"))}
    if maps.cbf_sd is not None:
        spread = plots.map_figure(maps, *place, "Standard deviations", ("cbf_sd", "att_sd"))
        figures["uncertainty"] = spread
    return figures | {
        "status": plots.status_figure(maps, *place),
        "histograms": plots.histogram_figure(maps, tissues),
        "fit": plots.fit_figure(data, maps, images),
        "residuals": plots.residual_figure(data, maps, images, tissues),
    }


def html_report(
    data: AslData,
    maps: PerfusionMaps,
    images: FloatArray,
    *,
    title: str,
    method: str,
    description: str,
    references: Sequence[str],
    tissues: Tissues,
    figures: Mapping[str, bytes],
    provenance: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """Describe a result for people: numbers, pictures, acquisition, provenance, methods.

    Parameters
    ----------
    data : AslData
        What was quantified.
    maps : PerfusionMaps
        The result.
    images : ndarray, shape (X, Y, Z, D)
        What it predicts, from `asl_pinn.residuals.predicted` [unit of delta_m].
    title : str
        Heading of the page, such as the participant.
    method : str
        Name of the estimator.
    description, references
        Of the estimator, as `asl_pinn.reports.methods.methods_text` takes them.
    tissues : Tissues
        By which to summarise.
    figures : mapping of str to bytes
        From `report_figures`.
    provenance : mapping of str to Any
        'Options' of the estimator, versions, seed and sources; a table for each mapping in it,
        and one for what is left.
    notes : sequence of str
        What a reader should know about the data or the result, one sentence each.

    Returns
    -------
    str
        An HTML5 page without scripts or external resources; every text is escaped. Medians
        and quartiles are over the voxels that were fitted within the bounds.
    """

    def show(name: str, caption: str) -> str:
        return html.figure(figures[name], caption) if name in figures else ""

    n_delays = data.protocol.n_delays
    delays = "delay" if n_delays == 1 else "delays"
    paragraph, works = methods_text(data, maps, method, description, references)
    return html.page(
        f"{title}: {method}",
        [
            f"<h1>{html.plain(title)}</h1>",
            html.paragraph(f"CBF and ATT, method {method}, differences at {n_delays} {delays}."),
            html.section("Notes", html.bullets(notes)),
            html.section(
                "Perfusion",
                _perfusion(maps, tissues),
                html.paragraph(tissues.origin, "aside"),
                show("maps", "Maps; the line is the outline of the mask."),
                show("histograms", "Distribution over the voxels fitted within the bounds."),
            ),
            html.section("Uncertainty", _uncertainty(maps, tissues), show("uncertainty", _SD)),
            html.section(
                "Flagged voxels",
                _voxels(data, maps, images),
                show("status", "What became of each voxel of the mask."),
            ),
            html.section(
                "Fit",
                show("fit", _FIT if maps.noise_sd is None else f"{_FIT} {_NOISE}"),
                show("residuals", _RESIDUALS) if n_delays > 1 else "",  # one delay fits exactly
            ),
            html.section("Acquisition", _acquisition(data)),
            html.section("Methods", html.paragraph(paragraph, "paste"), html.bullets(works, "ol")),
            html.section("Citation", html.paragraph(software_citation(), "paste")),
            html.section("Options and provenance", *_provenance(provenance)),
        ],
    )


_SD = "Standard deviations of both maps."
_FIT = (
    "Top: when each bolus was labelled. Below: data and model in voxels from low to high CBF, each "
    "difference where its bolus began; a bolus that began left of the dotted line, the transit "
    "time, has begun to arrive."
)
_NOISE = "Error bars are one standard deviation of the noise."
_RESIDUALS = (
    "Measured less fitted, in the slice with most brain, volume by volume; below, medians and "
    "quartiles. What has a shape is not noise: motion, vessels, or a model that does not hold."
)


def _perfusion(maps: PerfusionMaps, tissues: Tissues) -> str:
    """Table of medians and quartiles over the voxels fitted within the bounds."""
    regions = {"all voxels": np.ones(maps.cbf.shape, dtype=bool), **tissues.regions}
    rows = []
    for region, where in regions.items():
        chosen = where & (maps.status == Status.FITTED)
        for name, symbol, unit, digits in _MAPS:
            numbers = ["n/a"] * 2
            if chosen.any():
                first, median, third = np.percentile(
                    getattr(maps, name)[chosen], [25.0, 50.0, 75.0]
                )
                numbers = [f"{median:.{digits}f}", f"{first:.{digits}f} to {third:.{digits}f}"]
            rows.append([region, f"{symbol} [{unit}]", *numbers, str(chosen.sum())])
    return html.table(["region", "map", "median", "quartiles", "voxels"], rows)


def _uncertainty(maps: PerfusionMaps, tissues: Tissues) -> str:
    """Table of the median standard deviations, or why there are none."""
    if maps.cbf_sd is None:
        return html.paragraph("This method gives no standard deviations.")
    rows = []
    for region, where in tissues.regions.items():
        chosen = where & (maps.status == Status.FITTED)
        for name, symbol, unit, digits in _MAPS:
            sd = getattr(maps, f"{name}_sd")[chosen]
            share = 100.0 * sd / np.maximum(getattr(maps, name)[chosen], 1e-6)
            numbers = ["n/a"] * 2
            if sd.size:
                numbers = [f"{np.median(sd):.{digits}f}", f"{np.median(share):.0f}"]
            rows.append([region, f"{symbol} [{unit}]", *numbers])
    note = "They tell of noise, as far as the model holds; not of a wrong M0, T1 or efficiency."
    header = ["region", "map", "median SD", "median SD [% of the value]"]
    return html.table(header, rows) + html.paragraph(note, "aside")


def _voxels(data: AslData, maps: PerfusionMaps, images: FloatArray) -> str:
    """Table of what became of the voxels of the mask, and why."""
    total = int(np.count_nonzero(data.mask))
    rows = [
        (meaning, reason, int((maps.status == status).sum()))
        for status, (meaning, reason) in _STATUS.items()
    ]
    rows.append(("all of the mask", "", total))
    if maps.noise_sd is not None:
        misfit = (data.delta_m - images) * np.sqrt(data.n_averages)
        poor = np.sqrt(np.mean(misfit**2, axis=-1)) > _POOR_FIT * maps.noise_sd
        reason = (
            f"Root mean square misfit above {_POOR_FIT:g} noise SDs: the model does not describe "
            "the data there, as in vessels, at edges or after motion. Counted above as well."
        )
        rows.append(("poor fit", reason, int(poor[data.valid].sum())))
    return html.table(
        ["outcome", "why, and what it means", "voxels", "% of the mask"],
        [[*texts, str(n), f"{100.0 * n / max(total, 1):.1f}"] for *texts, n in rows],
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
    header = ["volume", "label duration [s]", "post-labelling delay [s]", "t [s]", "averages"]
    return html.table(header, delays, n_text=1) + html.table(["constant", "value"], constants)


def _provenance(values: Mapping[str, Any]) -> list[str]:
    """A table for each mapping, headed by its name, and one for what is left."""
    groups = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    rest = {name: value for name, value in values.items() if name not in groups}
    tables = [
        f"<h3>{html.plain(name)}</h3>{html.mapping_table(group)}" for name, group in groups.items()
    ]
    return [*tables, html.mapping_table(rest)]
