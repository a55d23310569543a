"""Delays that are left out of a fit and predicted by it: a score that needs no truth."""

import dataclasses

import numpy as np

from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.residuals import predicted


def without_delay(data: AslData, delay: int) -> AslData:
    """Leave one delay out of an acquisition.

    Parameters
    ----------
    data : AslData
        D delays.
    delay : int
        Index of the one to leave out.

    Returns
    -------
    AslData
        D - 1 delays.
    """
    protocol = dataclasses.replace(
        data.protocol,
        label_duration=np.delete(data.protocol.label_duration, delay),
        pld=np.delete(data.protocol.pld, delay),
    )
    return dataclasses.replace(
        data,
        delta_m=np.delete(data.delta_m, delay, axis=-1),
        n_averages=np.delete(data.n_averages, delay),
        protocol=protocol,
    )


def prediction_error(maps: PerfusionMaps, data: AslData, delay: int) -> float:
    """Root mean square error, over the valid voxels, of Buxton's curve at one delay.

    Parameters
    ----------
    maps : PerfusionMaps
        Fitted to the data, or to some of them.
    data : AslData
        With the delay in question.
    delay : int
        Its index.

    Returns
    -------
    float
        [unit of delta_m]
    """
    misfit = (predicted(data, maps) - data.delta_m)[data.valid][:, delay]
    return float(np.sqrt(np.mean(misfit.astype(np.float64) ** 2)))
