"""Measurements that are left out of a fit and predicted by it: a score that needs no truth."""

import dataclasses
from typing import overload

import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.data import AslData, Maps, normalised
from asl_pinn.problem import Problem, make_problem, map_voxels, predict


@overload
def without_measurement(source: AslData, index: int) -> AslData: ...
@overload
def without_measurement(source: Problem, index: int) -> Problem: ...
def without_measurement(source: AslData | Problem, index: int) -> AslData | Problem:
    """Leave one measurement out.

    Parameters
    ----------
    source : AslData or Problem
        D measurements.
    index : int
        Of the one to leave out.

    Returns
    -------
    AslData or Problem
        The same with D - 1 measurements.
    """
    if isinstance(source, Problem):
        return _only(source, np.delete(np.arange(source.n_measurements), index))
    protocol = dataclasses.replace(
        source.protocol,
        label_duration=np.delete(source.protocol.label_duration, index),
        pld=np.delete(source.protocol.pld, index),
    )
    return dataclasses.replace(
        source,
        delta_m=np.delete(source.delta_m, index, axis=-1),
        n_averages=np.delete(source.n_averages, index),
        protocol=protocol,
    )


def prediction_error(maps: Maps, data: AslData, index: int) -> float:
    """Root mean square error, over the valid voxels, of the prediction of one measurement.

    Parameters
    ----------
    maps : Maps
        Fitted to the data, or to some of them.
    data : AslData
        With the measurement in question.
    index : int
        Of it.

    Returns
    -------
    float
        [unit of delta_m]
    """
    scaled, unit = normalised(data)
    problem = make_problem(scaled, maps.model, np.float32)
    where = data.valid
    values = np.stack([maps[name][where].astype(np.float32) for name in maps.model.names])
    return unit * float(np.sqrt(mean_squared_error(problem, values, index)))


def mean_squared_error(problem: Problem, values: FloatArray, index: int) -> float:
    """Mean squared error of the prediction of one measurement of a problem.

    Parameters
    ----------
    problem : Problem
        D measurements of V voxels.
    values : ndarray, shape (P, V)
        Parameters of the model, in their units.
    index : int
        Of the measurement.

    Returns
    -------
    float
        [squared unit of measured]
    """
    one = _only(problem, np.array([index]))
    misfit: FloatArray = map_voxels(_misfit, one, (values,))
    return float(np.mean(misfit.astype(np.float64) ** 2))


def _only(problem: Problem, which: IntArray) -> Problem:
    """Some of the measurements of a problem."""
    timing = problem.timing
    return dataclasses.replace(
        problem,
        measured=problem.measured[which],
        weights=problem.weights[which],
        timing=timing._replace(
            t=np.asarray(timing.t)[which], label_duration=np.asarray(timing.label_duration)[which]
        ),
    )


def _misfit(problem: Problem, values: Array) -> Array:
    return predict(problem, tuple(values)) - problem.measured
