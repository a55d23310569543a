"""Pictures of the distribution of a result and of the fit behind it."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, PerfusionMaps, Status
from asl_pinn.plots.style import COLOURS, MAPS, STYLE, estimated, limits, png
from asl_pinn.protocol import Protocol
from asl_pinn.tissue import Tissues

_LINES = ("-", "--", ":", "-.")
_LABELLING, _WAITING = "0.35", "0.85"


def histogram_figure(maps: PerfusionMaps, tissues: Tissues) -> bytes:
    """Histograms of CBF and ATT by tissue, over the voxels fitted within their bounds.

    Parameters
    ----------
    maps : PerfusionMaps
        Result of an estimator.
    tissues : Tissues
        By which to divide the voxels.

    Returns
    -------
    bytes
        A PNG file; the medians are marked. The axes end at percentiles 0.5 and 99.5 of all.
    """
    where = maps.status == Status.FITTED
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 2.9), layout="constrained")
        for ax, name in zip(figure.subplots(1, 2), ("cbf", "att"), strict=True):
            values = getattr(maps, name)
            span = limits(values[where], 0.5, 99.5)
            ax.set_xlabel(MAPS[name][0])
            ax.set_ylabel("voxels")
            for (tissue, region), colour, line in zip(
                tissues.regions.items(), COLOURS, _LINES, strict=False
            ):
                chosen = values[region & where]
                if chosen.size:
                    median = float(np.median(chosen))
                    label = f"{tissue}, median {median:.3g}"
                    style = {"color": colour, "linestyle": line, "linewidth": 1.5}
                    ax.hist(chosen, bins=60, range=span, histtype="step", label=label, **style)
                    ax.axvline(median, **(style | {"linewidth": 0.8}))
            if ax.get_legend_handles_labels()[0]:
                ax.legend(loc="upper left", bbox_to_anchor=(0.0, 1.3), frameon=False)
        return png(figure)


def fit_figure(data: AslData, maps: PerfusionMaps, images: FloatArray) -> bytes:
    """Measured differences and the fitted curve in six voxels, below the schedule of boluses.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : PerfusionMaps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D)
        What the model predicts, from `asl_pinn.residuals.predicted` [unit of delta_m].

    Returns
    -------
    bytes
        A PNG file. All axes are the time before readout. Above, a bar for each delay: dark
        while labelling, light until readout. Below, the differences stand where their bolus
        began; each has a bolus of its own, so the model is known at these points only. A dotted
        line is the transit time: boluses that began left of it have begun to arrive. The voxels
        stand at evenly spaced quantiles of CBF among those that were fitted within their bounds
        (all fitted voxels if there are none); error bars are the standard deviation of the mean,
        where the method estimates the noise.
    """
    voxels = np.argwhere(maps.status == Status.FITTED)
    voxels = voxels if len(voxels) else np.argwhere(estimated(maps))
    order = np.argsort(maps.cbf[tuple(voxels.T)], kind="stable")
    quantiles = (np.arange(6) + 0.5) / 6 * len(order)
    chosen = voxels[order[np.unique(quantiles.astype(int))]] if len(order) else voxels
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 6.2), layout="constrained")
        grid = figure.add_gridspec(3, 3, height_ratios=[1.0, 1.3, 1.3])
        schedule = figure.add_subplot(grid[0, :])
        _draw_schedule(schedule, data.protocol)
        axes = [figure.add_subplot(grid[1 + k // 3, k % 3], sharex=schedule) for k in range(6)]
        for ax, voxel in zip(axes, chosen, strict=False):
            _draw_fit(ax, data, maps, images, tuple(int(i) for i in voxel))
        for ax in axes[len(chosen) :]:
            ax.axis("off")
        if len(chosen):
            handles = axes[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside upper right", ncols=3, frameon=False)
        figure.supxlabel("time before readout [s]", fontsize=9.0)
        schedule.invert_xaxis()
        return png(figure)


def _draw_schedule(ax: Axes, protocol: Protocol) -> None:
    """A bar for each delay: labelling dark, then the wait until readout."""
    rows = np.arange(1, protocol.n_delays + 1)
    ax.barh(rows, protocol.label_duration, left=protocol.pld, color=_LABELLING, height=0.7)
    ax.barh(rows, protocol.pld, color=_WAITING, height=0.7)
    ax.set_ylim(protocol.n_delays + 0.6, 0.4)
    ax.set_yticks(rows if protocol.n_delays <= 12 else rows[:: protocol.n_delays // 6])
    ax.set_ylabel("volume")
    ax.set_xlim(0.0, 1.04 * float(protocol.t.max()))
    ax.set_title("labelling (dark) and wait until readout (light)", loc="left", fontsize=8.0)


def _draw_fit(
    ax: Axes, data: AslData, maps: PerfusionMaps, images: FloatArray, voxel: tuple[int, ...]
) -> None:
    """One voxel's differences and fitted curve, in percent of M0."""
    order = np.argsort(data.protocol.t, kind="stable")
    t = (data.protocol.t + data.readout_delay[voxel])[order]
    percent = 100.0 / float(data.m0[voxel])
    spread = None
    if maps.noise_sd is not None:
        spread = percent * maps.noise_sd / np.sqrt(data.n_averages[order])
    measured, fitted = percent * data.delta_m[voxel][order], percent * images[voxel][order]
    ax.errorbar(t, measured, spread, fmt="o", color="black", markersize=4.0, label="measured")
    ax.plot(t, fitted, "x-", color=COLOURS[1], linewidth=1.2, label="fitted")
    ax.axvline(maps.att[voxel], color=COLOURS[0], linestyle=":", linewidth=1.2, label="ATT")
    ax.axhline(0.0, color="0.7", linewidth=0.5, zorder=0)
    ax.set_ylabel(r"$\Delta M$ / M0 [%]", fontsize=8.0)
    place = ", ".join(str(i) for i in voxel)
    ax.set_title(
        f"voxel {place}\nCBF {maps.cbf[voxel]:.0f} mL/100g/min, ATT {maps.att[voxel]:.2f} s",
        fontsize=8.0,
    )
