"""Pictures of maps: one result, or several beside the truth."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.data import Maps, Phantom, Status
from asl_pinn.errors import InputError
from asl_pinn.models.adjust import require_parameter
from asl_pinn.models.base import Parameter
from asl_pinn.viz.plots.axial import axial_view, framed
from asl_pinn.viz.plots.style import STYLE, Picture, axis_label, colour_ends, limits

_BACKGROUND = "0.93"
_MOST_SLICES = 6
_LEAST_HEIGHT = 1.6  # of a panel [inch], so that the label of its colour bar fits beside it


def map_figure(
    maps: Maps,
    mask: NDArray[np.bool_] | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
    sd: bool = False,
) -> Figure:
    """Picture of the maps of a result, or of their standard deviations.

    Parameters
    ----------
    maps : Maps
        Result of an estimator, maps of shape (X, Y, Z).
    mask : ndarray of bool, shape (X, Y, Z), optional
        Voxels that were to be quantified, whose outline is drawn; those with a status unless given.
    names : sequence of str, optional
        Parameters to draw; all unless given.
    title : str
        Heading of the picture.
    sd : bool
        Whether to draw the standard deviations instead.

    Returns
    -------
    matplotlib.figure.Figure
        One row per map, up to six axial slices evenly spaced over those with brain, left on the
        left. Colours are those of each parameter, the same in all pictures, with arrows where
        there are values beyond; of standard deviations, and of parameters without such ends, they
        end at 0, or percentile 1 of times, and at percentile 99.

    Raises
    ------
    InputError
        If the model has no such parameter, the mask is empty, or there are no standard deviations.
    """
    parameters = [require_parameter(maps.model, name) for name in names or maps.model.names]
    if mask is None:
        mask = maps.status != Status.OUTSIDE
    if not mask.any():
        raise InputError("there is no map to draw: the mask is empty")
    if sd and not maps.sd:
        raise InputError(f"method {maps.method} gives no standard deviations to draw")
    view = axial_view(mask, maps.affine)
    shown = evenly_spaced(np.flatnonzero(view.slices.any(axis=(1, 2))))
    outlines = np.nan_to_num(framed(view.slices, view.slices))[shown]
    where = maps.estimated()
    with matplotlib.rc_context(STYLE):
        width = np.clip(4.0 / len(shown), 1.35, 2.4)
        figure, axes = panels(len(parameters), len(shown), width, outlines, view.aspect)
        for row, p in zip(axes, parameters, strict=True):
            values = (maps.sd if sd else maps.values)[p.name]
            told = where & maps.told(p.name)
            volume = axial_view(np.where(told, values, np.nan), maps.affine).slices
            ends = limits(volume, None, 99.0) if sd else colour_ends(p, volume)
            pictures = framed(volume, view.slices)[shown]
            label = axis_label(p, sd=sd)
            draw_row(row, pictures, outlines, view.aspect, p.colours, ends, label)
        for ax, k in zip(axes[0], shown, strict=True):
            ax.set_title(f"z = {view.height[k]:.0f} mm")
        if title:
            figure.suptitle(title, parse_math=False)
        return figure


def comparison_figure(truth: Phantom, estimates: Mapping[str, Maps], title: str = "") -> Figure:
    """Picture of a phantom beside estimates of it, in the slice with most brain.

    Parameters
    ----------
    truth : Phantom
        Known maps, of shape (X, Y, Z).
    estimates : mapping of str to Maps
        At least one result on the phantom's grid, by what is to stand above it.
    title : str
        Heading of the picture.

    Returns
    -------
    matplotlib.figure.Figure
        Columns are the truth and each estimate. Rows are the maps of all parameters of the
        estimates' models, then their errors relative to the truth, with the median of the
        absolute errors in the slice. A row shares its colours, which are those of
        `map_figure`, and end at percentile 95 of the absolute errors.

    Raises
    ------
    InputError
        If the phantom does not know a parameter.
    """
    parameters = unite(maps.model.parameters for maps in estimates.values())
    known: dict[str, FloatArray] = {}
    for maps in estimates.values():
        known |= truth.truth(maps.model)
    view = axial_view(truth.mask, truth.affine)
    index = int(view.slices.sum(axis=(1, 2)).argmax())
    brain = view.slices[index : index + 1]

    def picture(volume: FloatArray, where: NDArray[np.bool_]) -> FloatArray:
        slices = axial_view(np.where(where, volume, np.nan), truth.affine).slices
        return framed(slices[index : index + 1], brain)[0]

    def estimate(maps: Maps, name: str) -> FloatArray:
        none = np.full(truth.mask.shape, np.nan)
        return picture(maps.values.get(name, none), truth.mask & maps.estimated())

    outline = np.nan_to_num(framed(brain, brain))
    outlines = np.repeat(outline, 1 + len(estimates), axis=0)
    n_rows = len(parameters)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(2 * n_rows, len(outlines), 1.8, outlines, view.aspect)
        for row, error_row, p in zip(axes[:n_rows], axes[n_rows:], parameters, strict=True):
            true = picture(known[p.name], truth.mask)
            found = np.stack([estimate(maps, p.name) for maps in estimates.values()])
            ends = colour_ends(p, true)
            pictures = np.stack([true, *found])
            draw_row(row, pictures, outlines, view.aspect, p.colours, ends, axis_label(p))
            with np.errstate(divide="ignore", invalid="ignore"):  # a true value may be 0
                errors = 100.0 * (found - true) / true
            worst = limits(np.abs(errors), None, 95.0)[1]
            label = f"error of {p.symbol} [%]"
            ends = (-worst, worst)
            draw_row(error_row[1:], errors, outlines[1:], view.aspect, "RdBu_r", ends, label)
            for ax, error in zip(error_row[1:], errors, strict=True):
                finite = np.abs(error[np.isfinite(error)])
                middle = f"{np.median(finite):.1f} %" if finite.size else "none"
                ax.set_title(f"median |error| {middle}")
            error_row[0].axis("off")
        for ax, name in zip(axes[0], ["truth", *estimates], strict=True):
            ax.set_title(name, parse_math=False)
        place = f"z = {view.height[index]:.0f} mm"
        figure.suptitle(f"{title}, {place}" if title else place, parse_math=False)
        return figure


def unite(tables: Iterable[Sequence[Parameter]]) -> tuple[Parameter, ...]:
    """Parameters of several models, each once."""
    return tuple({p.name: p for table in tables for p in table}.values())


def evenly_spaced(indices: IntArray) -> IntArray:
    """At most six of the indices, evenly spaced: shape (N,) to (n,).

    Parameters
    ----------
    indices : ndarray of int, shape (N,)
        To choose from.

    Returns
    -------
    ndarray of int, shape (n,)
        In their order.
    """
    n_shown = min(_MOST_SLICES, len(indices))
    return indices[np.floor((np.arange(n_shown) + 0.5) * len(indices) / n_shown).astype(int)]


def panels(
    n_rows: int, n_columns: int, width: float, pictures: FloatArray, aspect: float
) -> tuple[Figure, NDArray[np.object_]]:
    """Figure with panels of a width [inch] and the proportions of pictures of shape (N, Y, X)."""
    height = max(width * aspect * pictures.shape[1] / pictures.shape[2], _LEAST_HEIGHT)
    size = (n_columns * (width + 0.06) + 1.0, n_rows * (height + 0.12) + 0.6)
    figure = Picture(figsize=size, layout="constrained")
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
