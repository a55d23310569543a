"""The least standard deviations that any unbiased voxel-wise estimator can have."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.problem import Problem, predict


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
    inside = dataclasses.replace(problem, geometry=None)
    return np.asarray(_bounds(inside, jnp.asarray(values, problem.dtype)))


# One program for all voxels, not chunks on several threads: XLA spreads a batch of decompositions
# over the threads on which the chunks would wait for it, so that all can wait for ever.
@jax.jit
def _bounds(problem: Problem, values: Array) -> Array:
    """The bound is sqrt(diag((A^T A)^-1)) with A the Jacobian over the noise, priors below it."""
    weighted = jnp.sqrt(problem.weights) / problem.noise_sd
    rows = [weighted[:, None] * column for column in jacobian(problem, values)]
    known = [0.0 if p.knowledge is None else 1.0 / p.knowledge.sd for p in problem.model.parameters]
    priors = jnp.diag(jnp.asarray(known, values.dtype))
    one = functools.partial(_inverse_sd, priors)
    return jax.vmap(one, in_axes=-1, out_axes=-1)(jnp.stack(rows, axis=1))


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


def _inverse_sd(priors: Array, jacobian: Array) -> Array:
    """Standard deviations of P parameters from a Jacobian over the noise, shape (D, P).

    Singular values of the matrix whose columns have length 1 tell what is undetermined: they are
    as precise as the type, where the eigenvalues of A^T A would have half of its digits.
    """
    stacked = jnp.concatenate([jacobian, priors])
    length = jnp.linalg.norm(stacked, axis=0)
    columns = stacked / jnp.where(length > 0.0, length, 1.0)
    _, singular, rotation = jnp.linalg.svd(columns, full_matrices=False)
    precision = jnp.finfo(columns.dtype).eps
    undetermined = singular <= stacked.shape[0] * precision
    # rotation[k, p]: how much of parameter p lies along the k-th direction
    along = rotation / jnp.where(undetermined, 1.0, singular)[:, None]
    lost = undetermined[:, None] & (jnp.abs(rotation) > jnp.sqrt(precision))
    variance = jnp.sum(jnp.where(undetermined[:, None], 0.0, along**2), axis=0)
    found = jnp.sqrt(variance) / jnp.where(length > 0.0, length, 1.0)
    return jnp.where(lost.any(axis=0), jnp.inf, found)
