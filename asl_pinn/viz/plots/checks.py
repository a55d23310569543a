"""Pictures for quality control: flagged voxels and residuals."""

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.viz.plots.axial import axial_view, framed
from asl_pinn.viz.plots.maps import draw_pictures, draw_row, evenly_spaced, panels
from asl_pinn.viz.plots.style import COLOURS, STYLE, Picture, limits
from asl_pinn.viz.regions import Regions

_STATUS = {
    Status.FITTED: ("fitted within the bounds", "#9ecae1"),
    Status.ON_BOUND: ("on or beyond a bound", "#E69F00"),
    Status.NOT_CONVERGED: ("not converged", "#D55E00"),
    Status.SKIPPED: ("skipped", "#000000"),
}
_IN_A_ROW = 7
_ENTRY = (2.0, 0.25)  # width and height of one of the legend [inch]
_MOST_VOLUMES = 21


def status_figure(maps: Maps, mask: NDArray[np.bool_]) -> Figure:
    """Picture of what became of each voxel of the mask.

    Parameters
    ----------
    maps : Maps
        Result of an estimator, maps of shape (X, Y, Z).
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels that were to be quantified, one at least.

    Returns
    -------
    matplotlib.figure.Figure
        A row of the same slices as in `map_figure`, a colour for each status.
    """
    view = axial_view(mask, maps.affine)
    shown = evenly_spaced(np.flatnonzero(view.slices.any(axis=(1, 2))))
    outlines = np.nan_to_num(framed(view.slices, view.slices))[shown]
    codes = np.where(maps.status == Status.OUTSIDE, np.nan, maps.status)
    pictures = framed(axial_view(codes, maps.affine).slices, view.slices)[shown]
    colours = ListedColormap([colour for _, colour in _STATUS.values()])
    with matplotlib.rc_context(STYLE):
        width = np.clip(4.0 / len(shown), 1.35, 2.4)
        figure, axes = panels(1, len(shown), width, outlines, view.aspect)
        n_columns = int(np.clip(figure.get_figwidth() / _ENTRY[0], 1, len(_STATUS)))
        n_lines = -(-len(_STATUS) // n_columns)
        figure.set_figheight(figure.get_figheight() + n_lines * _ENTRY[1])
        ends = (min(_STATUS) - 0.5, max(_STATUS) + 0.5)
        draw_pictures(axes[0], pictures, outlines, view.aspect, colours, ends)
        for ax, k in zip(axes[0], shown, strict=True):
            ax.set_title(f"z = {view.height[k]:.0f} mm")
        patches = [Patch(color=colour, label=name) for name, colour in _STATUS.values()]
        figure.legend(handles=patches, loc="outside lower center", ncols=n_columns, frameon=False)
        return figure


def probability_figure(maps: Maps, mask: NDArray[np.bool_]) -> Figure:
    """Picture of where the sparse components of the model are.

    Parameters
    ----------
    maps : Maps
        Result of an estimator with probabilities, maps of shape (X, Y, Z).
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels that were to be quantified, one at least.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each component, of the same slices as in `map_figure`.
    """
    view = axial_view(mask, maps.affine)
    shown = evenly_spaced(np.flatnonzero(view.slices.any(axis=(1, 2))))
    outlines = np.nan_to_num(framed(view.slices, view.slices))[shown]
    with matplotlib.rc_context(STYLE):
        width = np.clip(4.0 / len(shown), 1.35, 2.4)
        figure, axes = panels(len(maps.probability), len(shown), width, outlines, view.aspect)
        for row, (name, values) in zip(axes, maps.probability.items(), strict=True):
            volume = axial_view(np.where(mask, values, np.nan), maps.affine).slices
            pictures, p = framed(volume, view.slices)[shown], maps.model[name]
            label = f"probability of {p.symbol} > 0"
            draw_row(row, pictures, outlines, view.aspect, p.colours, (0.0, 1.0), label)
        for ax, k in zip(axes[0], shown, strict=True):
            ax.set_title(f"z = {view.height[k]:.0f} mm")
        return figure


def residual_figure(data: AslData, maps: Maps, images: FloatArray, regions: Regions) -> Figure:
    """Picture of the residuals of each volume.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D)
        What the model predicts, from `asl_pinn.evaluation.prediction.predicted` [unit of delta_m].
    regions : Regions
        By which to summarise.

    Returns
    -------
    matplotlib.figure.Figure
        Measured - predicted over M0 in the slice with most brain, a panel for each of up to 21
        volumes with colours that end at percentile 99; below, the median and the quartiles of
        each region.
    """
    where = maps.estimated()[..., None]
    m0 = np.where(data.m0 > 0.0, data.m0, np.nan)[..., None]
    residual = np.where(where, 100.0 * (data.delta_m - images) / m0, np.nan)
    view = axial_view(data.mask, data.affine)
    index = int(view.slices.sum(axis=(1, 2)).argmax())
    brain = view.slices[index : index + 1]
    n_shown = min(data.protocol.n_delays, _MOST_VOLUMES)
    pictures = [
        framed(axial_view(residual[..., d], data.affine).slices[index : index + 1], brain)[0]
        for d in range(n_shown)
    ]
    outline = np.nan_to_num(framed(brain, brain))
    worst = limits(np.abs(residual), None, 99.0)[1]
    n_columns = min(n_shown, _IN_A_ROW)
    n_rows = -(-n_shown // n_columns)
    with matplotlib.rc_context(STYLE):
        height = 1.35 * view.aspect * outline.shape[1] / outline.shape[2] + 0.3
        figure = Picture(figsize=(8.5, n_rows * height + 2.6), layout="constrained")
        heights = [n_rows * height, 2.6]
        above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        axes = above.subplots(n_rows, n_columns, squeeze=False)
        for row in range(n_rows):
            part = np.stack(pictures[row * n_columns : (row + 1) * n_columns])
            chosen = axes[row, : len(part)]
            outlines = np.repeat(outline, len(part), axis=0)
            draw_row(chosen, part, outlines, view.aspect, "RdBu_r", (-worst, worst), "% of M0")
            for d, ax in enumerate(chosen, start=row * n_columns):
                ax.set_title(f"{d + 1}: t = {data.protocol.t[d]:.3g} s", fontsize=8.0)
            for ax in axes[row, len(part) :]:
                ax.axis("off")
        _draw_summary(below, residual, regions)
        return figure


def _draw_summary(figure: FigureBase, residual: FloatArray, regions: Regions) -> None:
    """Median and quartiles of each volume and region."""
    ax = figure.subplots()
    n_volumes = residual.shape[-1]
    places = np.arange(1, n_volumes + 1)
    ax.axhline(0.0, color="0.6", linewidth=0.6)
    width = 0.5 / max(len(regions.masks), 1)
    styles = zip(COLOURS, "os^D", strict=True)
    for k, ((name, mask), (colour, marker)) in enumerate(
        zip(regions.masks.items(), styles, strict=False)
    ):
        values = residual[mask]
        values = values[np.isfinite(values).all(axis=-1)]
        if not len(values):
            continue
        first, median, third = np.percentile(values, [25.0, 50.0, 75.0], axis=0)
        quartiles = np.stack([median - first, third - median])
        x = places + (k - (len(regions.masks) - 1) / 2) * width
        ax.errorbar(x, median, quartiles, fmt=marker, color=colour, markersize=4.0, label=name)
    ax.set_xticks(places if n_volumes <= _MOST_VOLUMES else places[:: n_volumes // 10])
    ax.set_xlabel("volume")
    ax.set_ylabel("residual [% of M0]")
    if ax.get_legend_handles_labels()[0]:
        figure.legend(frameon=False, ncols=3, loc="outside upper right")
