"""What all pictures share."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import PerfusionMaps, Status

STYLE: dict[RcKeyType, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "figure.dpi": 150.0,
}
MAPS = {
    "cbf": ("CBF [mL/100g/min]", "inferno"),
    "att": ("ATT [s]", "viridis"),
    "cbf_sd": ("SD of CBF\n[mL/100g/min]", "inferno"),
    "att_sd": ("SD of ATT [s]", "viridis"),
}

COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#009E73")
"""Colours of categories, told apart by the colour-blind too (Okabe and Ito)."""


def estimated(maps: PerfusionMaps) -> NDArray[np.bool_]:
    """Voxels with an estimate, whatever its quality, shape (X, Y, Z).

    Parameters
    ----------
    maps : PerfusionMaps
        From an estimator.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Neither outside the mask nor skipped.
    """
    return (maps.status != Status.OUTSIDE) & (maps.status != Status.SKIPPED)


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
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
