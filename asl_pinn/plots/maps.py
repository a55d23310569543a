"""Pictures of maps: one result, or several beside the truth."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.data import PerfusionMaps, Phantom
from asl_pinn.plots.axial import axial_view, framed
from asl_pinn.plots.style import MAPS, STYLE, estimated, limits, png

_BACKGROUND = "0.93"
_MOST_SLICES = 6


def map_figure(
    maps: PerfusionMaps,
    mask: NDArray[np.bool_],
    affine: FloatArray,
    title: str,
    names: Sequence[str] = tuple(MAPS),
) -> bytes:
    """Picture of CBF and ATT, and of their standard deviations where there are any.

    Parameters
    ----------
    maps : PerfusionMaps
        Result of an estimator, maps of shape (X, Y, Z).
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels that were to be quantified, one at least; its outline is drawn.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    title : str
        Heading of the picture.
    names : sequence of str
        Which of 'cbf', 'att', 'cbf_sd' and 'att_sd' to draw, of those that there are.

    Returns
    -------
    bytes
        A PNG file: one row per map, up to six axial slices spread over those with brain,
        left on the left. Colours end at percentile 1 (ATT) or at 0 (the others), and at
        percentile 99.
    """
    view = axial_view(mask, affine)
    shown = spread(np.flatnonzero(view.slices.any(axis=(1, 2))))
    outlines = np.nan_to_num(framed(view.slices, view.slices))[shown]
    where = estimated(maps)
    names = [name for name in names if getattr(maps, name) is not None]
    with matplotlib.rc_context(STYLE):
        width = np.clip(4.0 / len(shown), 1.35, 2.4)
        figure, axes = panels(len(names), len(shown), width, outlines, view.aspect)
        for row, name in zip(axes, names, strict=True):
            label, colours = MAPS[name]
            volume = axial_view(np.where(where, getattr(maps, name), np.nan), affine).slices
            ends = limits(volume, 1.0 if name == "att" else None, 99.0)
            pictures = framed(volume, view.slices)[shown]
            draw_row(row, pictures, outlines, view.aspect, colours, ends, label)
        for ax, k in zip(axes[0], shown, strict=True):
            ax.set_title(f"z = {view.height[k]:.0f} mm")
        figure.suptitle(title)
        return png(figure)


def comparison_figure(truth: Phantom, estimates: Mapping[str, PerfusionMaps], title: str) -> bytes:
    """Picture of a phantom beside estimates of it, in the slice with most brain.

    Parameters
    ----------
    truth : Phantom
        Known perfusion, maps of shape (X, Y, Z).
    estimates : mapping of str to PerfusionMaps
        At least one result on the phantom's grid, by the name of its method.
    title : str
        Heading of the picture.

    Returns
    -------
    bytes
        A PNG file: columns are the truth and each estimate, rows are CBF, ATT and the
        percent relative errors of both, with the median of their absolute values in the
        slice. A row shares its colours, which end at 0 (CBF) or percentile 1 (ATT) and
        percentile 99 of the truth, and at percentile 95 of the absolute errors.
    """
    view = axial_view(truth.mask, truth.affine)
    index = int(view.slices.sum(axis=(1, 2)).argmax())
    brain = view.slices[index : index + 1]

    def picture(volume: FloatArray, where: NDArray[np.bool_]) -> FloatArray:
        slices = axial_view(np.where(where, volume, np.nan), truth.affine).slices
        return framed(slices[index : index + 1], brain)[0]

    outline = np.nan_to_num(framed(brain, brain))
    outlines = np.repeat(outline, 1 + len(estimates), axis=0)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(4, len(outlines), 1.8, outlines, view.aspect)
        for row, error_row, name in zip(axes[:2], axes[2:], ("cbf", "att"), strict=True):
            label, colours = MAPS[name]
            known = picture(getattr(truth, name), truth.mask)
            pictures = np.stack(
                [known]
                + [
                    picture(getattr(maps, name), truth.mask & estimated(maps))
                    for maps in estimates.values()
                ]
            )
            ends = limits(known, 1.0 if name == "att" else None, 99.0)
            draw_row(row, pictures, outlines, view.aspect, colours, ends, label)
            errors = 100.0 * (pictures[1:] - known) / known
            worst = limits(np.abs(errors), None, 95.0)[1]
            label = f"error of {name.upper()} [%]"
            ends = (-worst, worst)
            draw_row(error_row[1:], errors, outlines[1:], view.aspect, "RdBu_r", ends, label)
            for ax, error in zip(error_row[1:], errors, strict=True):
                finite = np.abs(error[np.isfinite(error)])
                middle = f"{np.median(finite):.1f} %" if finite.size else "none"
                ax.set_title(f"median |error| {middle}")
            error_row[0].axis("off")
        for ax, name in zip(axes[0], ["truth", *estimates], strict=True):
            ax.set_title(name)
        figure.suptitle(f"{title}, z = {view.height[index]:.0f} mm")
        return png(figure)


def spread(indices: IntArray) -> IntArray:
    """At most `_MOST_SLICES` of the indices, evenly spread: shape (N,) to (n,)."""
    n_shown = min(_MOST_SLICES, len(indices))
    return indices[np.floor((np.arange(n_shown) + 0.5) * len(indices) / n_shown).astype(int)]


def panels(
    n_rows: int, n_columns: int, width: float, pictures: FloatArray, aspect: float
) -> tuple[Figure, NDArray[np.object_]]:
    """Figure with panels of a width [inch] and the proportions of pictures of shape (N, Y, X)."""
    height = width * aspect * pictures.shape[1] / pictures.shape[2]
    size = (n_columns * (width + 0.06) + 1.0, n_rows * (height + 0.12) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def draw_row(
    axes: NDArray[np.object_],
    pictures: FloatArray,
    outlines: FloatArray,
    aspect: float,
    colours: str,
    ends: tuple[float, float],
    label: str,
) -> None:
    """Draw pictures that share one colour bar, with the brain's outline and orientation.

    Parameters
    ----------
    axes : ndarray of Axes, shape (N,)
        One for each picture.
    pictures, outlines : ndarray, shape (N, Y, X)
        Values, and what has the brain's outline as its level of 0.5.
    aspect : float
        Height of a pixel over its width.
    colours : str
        Colour map of matplotlib.
    ends : tuple of float
        Values at its ends.
    label : str
        Of the colour bar.
    """
    drawn = draw_pictures(axes, pictures, outlines, aspect, matplotlib.colormaps[colours], ends)
    below, above = bool((pictures < ends[0]).any()), bool((pictures > ends[1]).any())
    axes[0].figure.colorbar(
        drawn,
        ax=list(axes),
        label=label,
        pad=0.01,
        aspect=14,
        extend={(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above],
    )


def draw_pictures(
    axes: NDArray[np.object_],
    pictures: FloatArray,
    outlines: FloatArray,
    aspect: float,
    colours: Colormap,
    ends: tuple[float, float],
) -> AxesImage:
    """Draw pictures with the brain's outline, and the orientation of the first.

    Parameters
    ----------
    axes : ndarray of Axes, shape (N,)
        One for each picture.
    pictures, outlines : ndarray, shape (N, Y, X)
        Values, and what has the brain's outline as its level of 0.5.
    aspect : float
        Height of a pixel over its width.
    colours : Colormap
    ends : tuple of float
        Values at its ends.

    Returns
    -------
    AxesImage
        The last of them.
    """
    for ax, picture, outline in zip(axes, pictures, outlines, strict=True):
        drawn = ax.imshow(
            picture,
            origin="lower",
            aspect=aspect,
            cmap=colours.with_extremes(bad=_BACKGROUND),
            vmin=ends[0],
            vmax=ends[1],
            interpolation="nearest",
        )
        if outline.any():
            ax.contour(outline, levels=[0.5], colors="0.35", linewidths=0.5)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    _mark_orientation(axes[0])
    return drawn


def _mark_orientation(ax: Axes) -> None:
    """Write L, R, A and P at the edges of a picture."""
    near, middle, far = ("left", "bottom"), ("center", "center"), ("right", "top")
    places = {0.01: near, 0.5: middle, 0.99: far}
    for letter, x, y in (("L", 0.01, 0.5), ("R", 0.99, 0.5), ("A", 0.5, 0.99), ("P", 0.5, 0.01)):
        ax.text(
            x,
            y,
            letter,
            transform=ax.transAxes,
            fontsize=8.0,
            horizontalalignment=places[x][0],
            verticalalignment=places[y][1],
        )
