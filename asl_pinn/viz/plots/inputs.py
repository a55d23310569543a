"""Pictures of what went into a fit, and of its course."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData
from asl_pinn.viz.plots.axial import axial_view, framed
from asl_pinn.viz.plots.maps import draw_row, evenly_spaced, panels
from asl_pinn.viz.plots.style import COLOURS, STYLE, Picture, limits

_MOST_PANELS = 9
_IN_A_ROW = 3


def input_figure(data: AslData) -> Figure:
    """Picture of M0 and of the mean difference, with the outline of the mask.

    Parameters
    ----------
    data : AslData
        With a voxel in its mask.

    Returns
    -------
    matplotlib.figure.Figure
        Rows of the same slices as in `map_figure`, with what lies outside the mask. Colours of M0
        end at 0 and at percentile 99 inside the mask, those of the difference, averaged over the
        delays in percent of the median M0 inside the mask, at percentile 1 and 99 there.
    """
    mask = np.asarray(data.mask, bool)
    view = axial_view(mask, data.affine)
    shown = evenly_spaced(np.flatnonzero(view.slices.any(axis=(1, 2))))
    outlines = np.nan_to_num(framed(view.slices, view.slices))[shown]
    unit = float(np.nanmedian(data.m0[mask])) or 1.0
    difference = 100.0 * np.nan_to_num(data.delta_m).mean(axis=-1) / unit
    rows = (
        ("M0 [a.u.]", np.asarray(data.m0), "gray", None),
        ("mean $\\Delta M$\n[% of median M0]", difference, "gray", 1.0),
    )
    with matplotlib.rc_context(STYLE):
        width = float(np.clip(4.0 / len(shown), 1.35, 2.4))
        figure, axes = panels(len(rows), len(shown), width, outlines, view.aspect)
        for row, (label, volume, colours, low) in zip(axes, rows, strict=True):
            ends = limits(np.asarray(volume[mask], np.float64), low, 99.0)
            pictures = framed(axial_view(volume, data.affine).slices, view.slices)[shown]
            draw_row(row, pictures, outlines, view.aspect, colours, ends, label)
        for ax, k in zip(axes[0], shown, strict=True):
            ax.set_title(f"z = {view.height[k]:.0f} mm")
        return figure


def history_figure(history: Mapping[str, FloatArray]) -> Figure | None:
    """Course of a training or an iteration.

    Parameters
    ----------
    history : mapping of str to ndarray, shape (S,)
        What was recorded, step by step; NaN where it was not. Other shapes are left out.

    Returns
    -------
    matplotlib.figure.Figure or None
        A panel for each of up to nine records, on a logarithmic axis where all values are positive
        and span more than a factor of 10; None where there is no record of two steps.
    """
    courses = {
        name: values
        for name, values in ((name, np.asarray(values)) for name, values in history.items())
        if values.ndim == 1 and np.isfinite(values).sum() > 1
    }
    drawn = list(courses.items())[:_MOST_PANELS]
    if not drawn:
        return None
    n_columns = min(len(drawn), _IN_A_ROW)
    n_rows = -(-len(drawn) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(8.5, 2.0 * n_rows + 0.2), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for ax, (name, values) in zip(axes, drawn, strict=False):
            ax.plot(np.arange(1, len(values) + 1), values, color=COLOURS[0], linewidth=1.0)
            finite = values[np.isfinite(values)]
            if finite.min() > 0.0 and finite.max() > 10.0 * finite.min():
                ax.set_yscale("log")
            ax.set_title(name.replace("_", " "))
            ax.set_xlabel("step")
            ax.xaxis.get_major_locator().set_params(integer=True)
        for ax in axes[len(drawn) :]:
            ax.axis("off")
        return figure
