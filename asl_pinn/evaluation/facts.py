"""What is measured on a fit for its verdict."""

import dataclasses

import numpy as np

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.evaluation.verdict import CBF_PLAUSIBLE, Facts, MedianOf
from asl_pinn.models.base import Parameter

_WHITE_PLAUSIBLE = (4.0, 80.0)
"""Median CBF of white matter alone, which is a quarter to a half of that of grey matter."""


def with_fit(
    facts: Facts,
    data: AslData,
    maps: Maps,
    images: FloatArray,
    noise_sd: float | None = None,
) -> Facts:
    """Add what a fit tells to what was measured on the data.

    Parameters
    ----------
    facts : Facts
        Of the data.
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D)
        What it predicts, from `asl_pinn.evaluation.prediction.predicted` [unit of delta_m].
    noise_sd : float, optional
        Noise of one difference, known from something else than the misfits [unit of delta_m].

    Returns
    -------
    Facts
    """
    estimated = maps.estimated()
    status = np.asarray(maps.status)[estimated]
    return dataclasses.replace(
        facts,
        on_bound=float(np.mean(status == Status.ON_BOUND)) if status.size else 0.0,
        not_converged=float(np.mean(status == Status.NOT_CONVERGED)) if status.size else 0.0,
        medians=tuple(_median(maps, p) for p in maps.model.parameters),
        misfit=_misfit(data, maps, images, noise_sd),
    )


def _median(maps: Maps, p: Parameter) -> MedianOf:
    values = np.asarray(maps[p.name])[maps.estimated(p.name)]
    plausible = None
    if p.file_suffix == "cbf":
        plausible = _WHITE_PLAUSIBLE if p.tissue == "WM" else CBF_PLAUSIBLE
    return MedianOf(
        p.symbol,
        p.unit,
        float(np.median(values)) if values.size else float("nan"),
        p.lower,
        p.upper,
        p.sparse,
        plausible,
    )


def _misfit(data: AslData, maps: Maps, images: FloatArray, noise_sd: float | None) -> float | None:
    """Root mean square misfit of the median voxel over the noise that repeats show."""
    free = data.protocol.n_delays - sum(p.knowledge is None for p in maps.model.parameters)
    if noise_sd is None or free < 1:
        return None
    where = maps.estimated()
    units = np.sqrt(np.asarray(data.n_averages, np.float64)) / noise_sd
    misfit = units * (data.delta_m - images)[where].astype(np.float64)
    squares = np.sum(misfit**2, axis=-1)
    return float(np.sqrt(np.median(squares) / free)) if squares.size else None
