"""The best fit of each voxel by itself, from which the noise of the data is told."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.spatial.noise import OwnFit
from asl_pinn.estimators.voxelwise.nlls import solve_voxels
from asl_pinn.estimators.voxelwise.objective import (
    NllsOptions,
    n_determined,
    noise_from_squares,
    values_of,
    with_noise,
)
from asl_pinn.models.adjust import with_bounds
from asl_pinn.problem import Problem, predict, take

_SOLVER = NllsOptions()
_NO_BOUND = 1e4
_LEVERAGE_SAMPLE = 2048
_LEAST_FREEDOM = 0.1
_SOLVES = 3
_FIRST_NOISE = 0.1


def unbounded(problem: Problem) -> Problem:
    """The problem with amplitudes as large as the data want them.

    A voxel whose amplitude lies beyond its bound is described by the model all the same.

    Parameters
    ----------
    problem : Problem
        Of any model.

    Returns
    -------
    Problem
    """
    bounds = {p.name: (None, _NO_BOUND * p.typical) for p in problem.model.linear}
    return dataclasses.replace(problem, model=with_bounds(problem.model, **bounds))


def refined(problem: Problem, x: FloatArray) -> FloatArray:
    """The grid's best points; where it holds parameters, solved on from there.

    What it holds counts as noise at first, and noise holds a parameter to its prior; so the noise
    is told again from what each solve leaves, beginning far below.

    Parameters
    ----------
    problem : Problem
        V voxels, with a first guess of their noise.
    x : ndarray, shape (P, V)
        Parameters over their scales.

    Returns
    -------
    ndarray, shape (P, V)
        Likewise.
    """
    if not problem.model.smooth:
        return x
    problem = with_noise(problem, _FIRST_NOISE * float(problem.noise_sd))
    for _ in range(_SOLVES):
        solved = solve_voxels(problem, x, _SOLVER)
        x, n_fitted = solved.x, n_determined(problem.model)
        problem = with_noise(problem, noise_from_squares(solved.squares, n_fitted, problem))
    return x


def own_fit(problem: Problem, x: FloatArray, misfit: FloatArray, ordinary: FloatArray) -> OwnFit:
    """Misfits, and what noise of unit variance would leave of itself at each measurement.

    A least-squares fit with the slopes J leaves (1 - h) of the variance of each measurement, where
    the leverages h are the diagonal of J (J'J)^-1 J'. Their mean over a sample of the voxels is
    taken.

    Parameters
    ----------
    problem : Problem
        V voxels; of the model whose slopes are taken.
    x : ndarray, shape (P, V)
        Its parameters over their scales.
    misfit : ndarray, shape (D, V)
        What the best fits leave [unit of the measurements].
    ordinary : ndarray, shape (V,)
        How far a voxel's misfits are those of this model: 1 for wholly.

    Returns
    -------
    OwnFit
    """
    step = -(-problem.n_voxels // _LEVERAGE_SAMPLE)
    sample, values = take(problem, slice(None, None, step)), values_of(x, problem.model)[:, ::step]
    told = [i for i, p in enumerate(problem.model.parameters) if p.knowledge is None]

    def curve(*values: Array) -> Array:
        return predict(sample, values) * jnp.sqrt(jnp.asarray(sample.weights))[:, None]

    at = tuple(map(jnp.asarray, values))
    slopes = [
        jax.jvp(curve, at, tuple(jnp.full_like(v, i == k) for k, v in enumerate(at)))[1]
        for i in told
    ]
    jacobian = np.moveaxis(np.asarray(slopes, np.float64), 0, -1).swapaxes(0, 1)  # (V, D, P)
    leverage = np.einsum("vdp,vpd->dv", jacobian, np.linalg.pinv(jacobian))
    freedom = np.maximum(1.0 - leverage.mean(axis=1), _LEAST_FREEDOM)
    dtype = problem.dtype
    return OwnFit(
        jnp.asarray(misfit, dtype),
        jnp.asarray(freedom, dtype),
        jnp.asarray(leverage.mean(axis=1).sum(), dtype),
        jnp.asarray(ordinary, dtype),
    )
