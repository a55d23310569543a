"""Pictures of the distribution of a result and of the fit behind it."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asl_pinn import kinetics
from asl_pinn.data import AslData, PerfusionMaps, Status
from asl_pinn.plots.style import MAPS, STYLE, estimated, limits, png


def histogram_figure(maps: PerfusionMaps) -> bytes:
    """Histograms of CBF and ATT over the voxels that were fitted within their bounds.

    Parameters
    ----------
    maps : PerfusionMaps
        Result of an estimator.

    Returns
    -------
    bytes
        A PNG file; the medians are marked. The axes end at percentiles 0.5 and 99.5.
    """
    where = maps.status == Status.FITTED
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 2.4), layout="constrained")
        for ax, name in zip(figure.subplots(1, 2), ("cbf", "att"), strict=True):
            label, colours = MAPS[name]
            values = getattr(maps, name)[where]
            ax.set_xlabel(label)
            ax.set_ylabel("voxels")
            if values.size:
                span = limits(values, 0.5, 99.5)
                ax.hist(values, bins=60, range=span, color=matplotlib.colormaps[colours](0.45))
                median = float(np.median(values))
                ax.axvline(median, color="black", linewidth=1.0, label=f"median {median:.3g}")
                ax.legend(frameon=False)
        return png(figure)


def fit_figure(data: AslData, maps: PerfusionMaps) -> bytes:
    """Measured differences and the fitted curve in six voxels, from low to high CBF.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : PerfusionMaps
        Result of an estimator on it.

    Returns
    -------
    bytes
        A PNG file. The voxels stand at evenly spaced quantiles of CBF among those that
        were fitted within their bounds (all fitted voxels if there are none). Each delay
        has a bolus of its own, so the model is known at the delays only; error bars are
        the standard deviation of the mean, where the method estimates the noise.
    """
    voxels = np.argwhere(maps.status == Status.FITTED)
    voxels = voxels if len(voxels) else np.argwhere(estimated(maps))
    order = np.argsort(maps.cbf[tuple(voxels.T)], kind="stable")
    quantiles = (np.arange(6) + 0.5) / 6 * len(order)
    chosen = voxels[order[np.unique(quantiles.astype(int))]] if len(order) else voxels
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots(2, 3, sharex=True, squeeze=False)
        for ax, voxel in zip(axes.flat, chosen, strict=False):
            _draw_fit(ax, data, maps, tuple(int(i) for i in voxel))
        for ax in axes.flat[len(chosen) :]:
            ax.axis("off")
        if len(chosen):
            handles = axes[0, 0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside upper right", ncols=2, frameon=False)
        figure.supxlabel("time since the start of the bolus, t [s]", fontsize=9.0)
        figure.supylabel(r"$\Delta M$ / M0 [%]", fontsize=9.0)
        return png(figure)


def _draw_fit(ax: Axes, data: AslData, maps: PerfusionMaps, voxel: tuple[int, ...]) -> None:
    """One voxel's differences and fitted curve, in percent of M0."""
    protocol = data.protocol
    t = protocol.t + data.readout_delay[voxel]
    m0 = float(data.m0[voxel])
    curve = kinetics.delta_m(
        maps.cbf[voxel],
        maps.att[voxel],
        t,
        protocol.label_duration,
        t1_tissue=data.t1_tissue[voxel],
        t1_blood=protocol.t1_blood,
        labeling_efficiency=protocol.labeling_efficiency,
        partition_coefficient=protocol.partition_coefficient,
    )
    spread = None
    if maps.noise_sd is not None:
        spread = 100.0 * maps.noise_sd / m0 / np.sqrt(data.n_averages)
    measured = 100.0 * data.delta_m[voxel] / m0
    ax.errorbar(t, measured, spread, fmt="o", color="black", markersize=4.0, label="measured")
    ax.plot(t, 100.0 * np.asarray(curve), "x-", color="tab:red", linewidth=1.0, label="fitted")
    ax.axhline(0.0, color="0.7", linewidth=0.5, zorder=0)
    place = ", ".join(str(i) for i in voxel)
    ax.set_title(
        f"voxel {place}\nCBF {maps.cbf[voxel]:.0f} mL/100g/min, ATT {maps.att[voxel]:.2f} s",
        fontsize=8.0,
    )
