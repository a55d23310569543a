"""Pictures of the distribution of a result and of the fit behind it."""

import itertools
import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.viz.plots.style import (
    COLOURS,
    STYLE,
    Picture,
    axis_label,
    in_unit,
    limits,
)
from asl_pinn.viz.regions import Regions

_LINES = ("-", "--", ":", "-.")
_LABELLING, _WAITING = "0.35", "0.85"
_ARRIVALS = (COLOURS[0], *COLOURS[2:])  # the fitted curve has the other one
_MOST_COLUMNS = 3
_TITLE = 36  # characters of a line
_NO_BREAK = "\N{NO-BREAK SPACE}"


def histogram_figure(maps: Maps, regions: Regions) -> Figure:
    """Histograms of each parameter by region, over the voxels fitted within their bounds.

    Parameters
    ----------
    maps : Maps
        Result of an estimator.
    regions : Regions
        By which to divide the voxels.

    Returns
    -------
    matplotlib.figure.Figure
        The medians are marked. The axes end at percentiles 0.5 and 99.5 of all.
    """
    parameters = maps.model.parameters
    n_columns = min(len(parameters), _MOST_COLUMNS)
    n_rows = -(-len(parameters) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(8.5, 2.9 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for ax, p in zip(axes, parameters, strict=False):
            values, where = maps[p.name], maps.fitted(p.name)
            span = limits(values[where], 0.5, 99.5)
            ax.set_xlabel(axis_label(p))
            ax.set_ylabel("voxels")
            for (region, mask), colour, line in zip(
                regions.masks.items(), COLOURS, _LINES, strict=False
            ):
                chosen = values[mask & where]
                if chosen.size:
                    median = float(np.median(chosen))
                    label = f"{region}, median {median:.{p.digits}f}"
                    style = {"color": colour, "linestyle": line, "linewidth": 1.5}
                    ax.hist(chosen, bins=60, range=span, histtype="step", label=label, **style)
                    ax.axvline(median, **(style | {"linewidth": 0.8}))
            if ax.get_legend_handles_labels()[0]:
                ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False)
        for ax in axes[len(parameters) :]:
            ax.axis("off")
        return figure


def mean_curve_figure(data: AslData, maps: Maps, images: FloatArray, regions: Regions) -> Figure:
    """Mean signal of each region, measured and fitted, by the time since labelling began.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D)
        What the model predicts, from `asl_pinn.evaluation.prediction.predicted` [unit of delta_m].
    regions : Regions
        By which to average.

    Returns
    -------
    matplotlib.figure.Figure
        Means over the voxels of each region that have an estimate, in percent of M0: points are
        measured, with intervals of 95 % of the mean where the noise is known; lines are fitted,
        with the quartiles over the voxels as shades.
    """
    m0 = np.where(data.m0 > 0.0, data.m0, np.nan)[..., None]
    measured, fitted = (100.0 * volumes / m0 for volumes in (data.delta_m, images))
    where = maps.estimated() & np.isfinite(measured).all(axis=-1) & np.isfinite(fitted).all(axis=-1)
    t = np.asarray(data.protocol.t)
    order = np.argsort(t, kind="stable")
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(8.5, 3.2), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0.0, color="0.7", linewidth=0.6)
        for (region, mask), colour, line, marker in zip(
            regions.masks.items(), COLOURS, _LINES, "os^D", strict=False
        ):
            chosen = mask & where
            if not chosen.any():
                continue
            means = measured[chosen].mean(axis=0)[order]
            first, third = np.percentile(fitted[chosen], [25.0, 75.0], axis=0)[:, order]
            ax.fill_between(t[order], first, third, color=colour, alpha=0.15, linewidth=0.0)
            curve = fitted[chosen].mean(axis=0)[order]
            ax.plot(t[order], curve, line, color=colour, label=f"{region}, fitted")
            errors = _error_of_mean(data, maps, chosen)
            bars = None if errors is None else 1.96 * errors[order]
            ax.errorbar(
                t[order], means, bars, fmt=marker, color=colour, markersize=4.0, label=region
            )
        ax.set_xlabel("time from the start of the bolus to readout [s]")
        ax.set_ylabel(r"mean $\Delta M$ / M0 [%]")
        if ax.get_legend_handles_labels()[0]:
            figure.legend(frameon=False, ncols=2, loc="outside upper right")
        return figure


def _error_of_mean(data: AslData, maps: Maps, where: NDArray[np.bool_]) -> FloatArray | None:
    """Standard error of the mean of the differences over voxels, from the noise [% of M0]."""
    if maps.noise_sd is None:
        return None
    one = 100.0 * maps.noise_sd * np.sqrt(np.mean(1.0 / data.m0[where] ** 2) / where.sum())
    return one / np.sqrt(np.asarray(data.n_averages, np.float64))


def fit_figure(data: AslData, maps: Maps, images: FloatArray) -> Figure:
    """Measured differences and the fitted curve in six voxels, below the schedule of boluses.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D)
        What the model predicts, from `asl_pinn.evaluation.prediction.predicted` [unit of delta_m].

    Returns
    -------
    matplotlib.figure.Figure
        All axes are the time before readout. Above, a bar for each delay: dark while labelling,
        light until readout. Below, the differences stand where their bolus began; each has a bolus
        of its own, so the model is known at these points only. A dotted line is an arrival time:
        boluses that began left of it have begun to arrive. The voxels stand at evenly spaced
        quantiles of the model's first parameter among those that were fitted within their bounds
        (all fitted voxels if there are none); error bars are the standard deviation of the mean,
        where the method estimates the noise.
    """
    voxels = np.argwhere(maps.status == Status.FITTED)
    voxels = voxels if len(voxels) else np.argwhere(maps.estimated())
    ranked = maps[maps.model.parameters[0].name][tuple(voxels.T)]
    order = np.argsort(ranked, kind="stable")
    quantiles = (np.arange(6) + 0.5) / 6 * len(order)
    chosen = voxels[order[np.unique(quantiles.astype(int))]] if len(order) else voxels
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(8.5, 6.2), layout="constrained")
        grid = figure.add_gridspec(3, 3, height_ratios=[1.0, 1.3, 1.3])
        schedule = figure.add_subplot(grid[0, :])
        _draw_schedule(schedule, data.protocol)
        axes = [figure.add_subplot(grid[1 + k // 3, k % 3], sharex=schedule) for k in range(6)]
        for ax, voxel in zip(axes, chosen, strict=False):
            _draw_fit(ax, data, maps, images, tuple(int(i) for i in voxel))
        for ax in axes[len(chosen) :]:
            ax.axis("off")
        if len(chosen):
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(
                handles, labels, loc="outside upper right", ncols=len(labels), frameon=False
            )
        figure.supxlabel("time before readout [s]", fontsize=9.0)
        schedule.invert_xaxis()
        return figure


def _draw_schedule(ax: Axes, protocol: Protocol) -> None:
    """A bar for each delay: labelling dark, then the wait until readout."""
    rows = np.arange(1, protocol.n_delays + 1)
    ax.barh(rows, protocol.label_duration, left=protocol.pld, color=_LABELLING, height=0.7)
    ax.barh(rows, protocol.pld, color=_WAITING, height=0.7)
    ax.set_ylim(protocol.n_delays + 0.6, 0.4)
    ax.set_yticks(rows if protocol.n_delays <= 12 else rows[:: protocol.n_delays // 6])
    ax.set_ylabel("volume")
    ax.set_xlim(0.0, 1.04 * float(protocol.t.max()))
    pulsed = protocol.labeling == "pulsed"
    bolus = "from the pulse until the bolus is cut off" if pulsed else "labelling"
    ax.set_title(f"{bolus} (dark) and wait until readout (light)", loc="left", fontsize=8.0)


def _draw_fit(
    ax: Axes, data: AslData, maps: Maps, images: FloatArray, voxel: tuple[int, ...]
) -> None:
    """One voxel's differences and fitted curve, in percent of M0."""
    order = np.argsort(data.protocol.t, kind="stable")
    t = (data.protocol.t + data.readout_delay[voxel])[order]
    percent = 100.0 / float(data.m0[voxel])
    noise = None
    if maps.noise_sd is not None:
        noise = percent * maps.noise_sd / np.sqrt(data.n_averages[order])
    measured, fitted = percent * data.delta_m[voxel][order], percent * images[voxel][order]
    ax.errorbar(t, measured, noise, fmt="o", color="black", markersize=4.0, label="measured")
    ax.plot(t, fitted, "x-", color=COLOURS[1], linewidth=1.2, label="fitted")
    arrivals = [p for p in maps.model.parameters if p.kinked and p.unit == "s"]
    for p, colour in zip(arrivals, itertools.cycle(_ARRIVALS), strict=False):
        arrival = float(maps[p.name][voxel])
        ax.axvline(arrival, color=colour, linestyle=":", linewidth=1.2, label=p.symbol)
    ax.axhline(0.0, color="0.7", linewidth=0.5, zorder=0)
    ax.set_ylabel(r"$\Delta M$ / M0 [%]", fontsize=8.0)
    place = ", ".join(str(i) for i in voxel)
    values = [
        f"{p.symbol} {maps[p.name][voxel]:.{p.digits}f}{in_unit(p)}" for p in maps.model.parameters
    ]
    # lines break between parameters alone
    lines = textwrap.wrap(", ".join(value.replace(" ", _NO_BREAK) for value in values), _TITLE)
    ax.set_title("\n".join([f"voxel {place}", *lines]), fontsize=8.0)
