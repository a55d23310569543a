"""What a result predicts for the images that it was fitted to."""

import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.data import AslData, Maps, normalised
from asl_pinn.problem import Problem, make_problem, map_voxels, predict


def predicted(data: AslData, maps: Maps) -> NDArray[np.float32]:
    """Difference images that the model predicts from its maps.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, D)
        In the unit of `data.delta_m`; NaN outside the valid voxels.
    """
    where = data.valid
    images = np.full(data.delta_m.shape, np.nan, np.float32)
    if where.any():
        values = [maps[name][where].astype(np.float32) for name in maps.model.names]
        scaled, unit = normalised(data)
        problem = make_problem(scaled, maps.model, np.float32)
        found = map_voxels(_predict, problem, (np.stack(values),)).T
        images[where] = np.asarray(found, np.float64) * unit
    return images


def _predict(problem: Problem, values: Array) -> Array:
    return predict(problem, tuple(values))
