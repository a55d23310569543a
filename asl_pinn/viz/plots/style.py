"""What all pictures share."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from asl_pinn.arrays import FloatArray
from asl_pinn.models.base import Parameter

STYLE: dict[RcKeyType, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "figure.dpi": 150.0,
}

COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#009E73")
"""Colours of categories, told apart by the colour-blind too (Okabe and Ito)."""

_LONGEST_LABEL = 16


class Picture(Figure):
    """A figure that notebooks show without pyplot, whose global state servers do without."""

    def _repr_png_(self) -> bytes:
        return png(self)


def limits(values: FloatArray, low: float | None, high: float) -> tuple[float, float]:
    """Ends of an axis: percentiles of the finite values, never equal.

    Parameters
    ----------
    values : ndarray
        Numbers of any shape, NaN where there are none.
    low : float or None
        Percentile of the lower end; None for an end at 0.
    high : float
        Percentile of the upper end.

    Returns
    -------
    tuple of float
        Lower and upper end, in the unit of `values`.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    bottom = 0.0 if low is None else float(np.percentile(finite, low))
    top = float(np.percentile(finite, high))
    if top - bottom > 1e-6 * abs(bottom):
        return bottom, top
    return (0.0, 1.0) if low is None else (bottom - 0.5, bottom + 0.5)


def colour_ends(
    parameter: Parameter, values: FloatArray, high: float = 99.0
) -> tuple[float, float]:
    """Ends of the colours of a parameter's map.

    Parameters
    ----------
    parameter : Parameter
        What the map shows.
    values : ndarray
        The map, of any shape, NaN where there is none.
    high : float
        Percentile of the upper end.

    Returns
    -------
    tuple of float
        Those of the parameter, if it has some. Else the lower end is 0 for amounts of perfusion or
        blood; times and what may be negative, whose 0 is no baseline, begin at percentile 1.
    """
    if parameter.shown is not None:
        return parameter.shown
    zero_based = parameter.unit != "s" and not parameter.kinked and parameter.link != "identity"
    return limits(values, None if zero_based else 100.0 - high, high)


def axis_label(parameter: Parameter, *, sd: bool = False) -> str:
    """'CBF [mL/100g/min]' or 'SD of CBF [mL/100g/min]', in two lines where it is long."""
    label = f"SD of {parameter.heading}" if sd else parameter.heading
    return label.replace(" [", "\n[") if len(label) > _LONGEST_LABEL and sd else label


def in_unit(parameter: Parameter) -> str:
    """What follows a value: ' s', or nothing for a fraction."""
    return "" if parameter.unit == "1" else f" {parameter.unit}"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file that depends on nothing but its content.

    Parameters
    ----------
    figure : matplotlib Figure
        What to write.

    Returns
    -------
    bytes
        Content of the file.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):  # ticks and their labels are made while drawing
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
