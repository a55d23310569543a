"""The least standard deviations that any unbiased voxel-wise estimator can have."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.problem import Problem, map_voxels, predict


def cramer_rao_sd(problem: Problem, values: FloatArray) -> NDArray[np.floating]:
    """Cramér-Rao bound of every parameter in each voxel, for Gaussian noise.

    Priors that are knowledge (not `Prior.weak`) count as one more measurement of their
    parameter, so that the bound is then the Bayesian one for linear models. A parameter that all
    voxels share counts as if each had to determine it by itself; hold it (`asl_pinn.models.fix`)
    for the bound of a fit before which it is settled. Of a curve with jumps, take the model as
    estimators fit it (`KineticModel.softened`): a jump has no slope in its time.

    Parameters
    ----------
    problem : Problem
        Timing, constants, weights, the model and `noise_sd`; the measurements are not read.
    values : ndarray, shape (P, V)
        True parameters, in their units.

    Returns
    -------
    ndarray, shape (P, V)
        Standard deviations in the same units; infinite where the data do not tell a parameter
        from the others.

    Raises
    ------
    InputError
        If the problem states no noise.

    References
    ----------
    Kay, Fundamentals of Statistical Signal Processing: Estimation Theory (1993), chapter 3;
    priors: Van Trees, Detection, Estimation, and Modulation Theory, part I (1968), section 2.4.
    """
    if problem.noise_sd is None:
        raise InputError("the Cramér-Rao bound needs the noise of one difference image")
    rows: FloatArray = map_voxels(_weighted, problem, (np.asarray(values, problem.dtype),))
    known = [0.0 if p.knowledge is None else 1.0 / p.knowledge.sd for p in problem.model.parameters]
    priors = np.diag(known).astype(rows.dtype)[None].repeat(rows.shape[-1], axis=0)
    return _inverse_sd(np.concatenate([np.moveaxis(rows, -1, 0), priors], axis=1)).T


def _weighted(problem: Problem, values: Array) -> Array:
    """Jacobian over the noise, shape (D, P, V)."""
    weighted = jnp.sqrt(problem.weights) / problem.noise_sd
    return jnp.stack([weighted[:, None] * column for column in jacobian(problem, values)], axis=1)


def jacobian(problem: Problem, values: Array) -> list[Array]:
    """Derivatives of the predicted signals by each parameter.

    Voxels do not depend on one another, so one pass forward for each parameter does.

    Parameters
    ----------
    problem : Problem
        Only the constants are read.
    values : Array, shape (P, V)
        Parameters, in their units.

    Returns
    -------
    list of P arrays, each of shape (D, V)
        In the unit of M0 over that of the parameter.

    References
    ----------
    Kay, Fundamentals of Statistical Signal Processing: Estimation Theory (1993), chapter 3.
    """

    def signal(values: Array) -> Array:
        return predict(problem, tuple(values))

    unit = jnp.eye(len(values), dtype=values.dtype)
    directions = [jnp.broadcast_to(row[:, None], values.shape) for row in unit]
    return [jax.jvp(signal, (values,), (direction,))[1] for direction in directions]


def _inverse_sd(stacked: FloatArray) -> NDArray[np.floating]:
    """Standard deviations sqrt(diag((A^T A)^-1)), shape (V, P), from (V, D + P, P).

    A is the Jacobian over the noise, with the priors below it. Singular values of the matrix whose
    columns have length 1 tell what is undetermined: they are as precise as the type, where the
    eigenvalues of A^T A would have half of its digits. On the host: decompositions take long to
    compile, and these are small.
    """
    # Noise so small that the Jacobian overflows tells nothing.
    finite = np.isfinite(stacked).all(axis=(1, 2), keepdims=True)
    stacked = np.where(finite, stacked, 0.0)
    length = np.linalg.norm(stacked, axis=1)
    columns = stacked / np.where(length > 0.0, length, 1.0)[:, None]
    _, singular, rotation = np.linalg.svd(columns, full_matrices=False)
    precision = np.finfo(columns.dtype).eps
    undetermined = (singular <= stacked.shape[1] * precision)[..., None]
    # rotation[v, k, p]: how much of parameter p lies along the k-th direction
    along = rotation / np.where(undetermined, 1.0, singular[..., None])
    lost = undetermined & (np.abs(rotation) > np.sqrt(precision))
    variance = np.sum(np.where(undetermined, 0.0, along**2), axis=1)
    found = np.sqrt(variance) / np.where(length > 0.0, length, 1.0)
    return np.where(lost.any(axis=1), np.inf, found)
