"""Voxels that deviate from a field: as much as the data show, and not at all where they do not.

A network is smooth on a scale that its frequencies set. What lies below that scale, such as the
sharp detail of images with little noise, is left to single voxels: each parameter is that of the
field plus a normal deviation, independent from voxel to voxel (the nugget of geostatistics:
Cressie, Statistics for Spatial Data (1993)). How large deviations are is told by the evidence of
all voxels together, so that a field that has everything in it is left as it is.
"""

from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.base import Estimate, voxel_status
from asl_pinn.estimators.voxelwise.grid import grid_posterior
from asl_pinn.estimators.voxelwise.objective import (
    QUADRATIC,
    NllsOptions,
    bounds,
    noise_sample,
)
from asl_pinn.numerics.least_squares import (
    Tolerances,
    determinant_small,
    solve,
    solve_small,
)
from asl_pinn.problem import Problem, map_voxels, predict

LEAST_SD = 1e-3
"""Standard deviation of deviations, over the scale of a parameter, that is as good as none."""

_LADDER = (LEAST_SD, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)

_PASSES = 2
_TOLERANCES = Tolerances(xtol=1e-4, ftol=1e-6, max_steps=30, f_scale=QUADRATIC)


A = TypeVar("A", FloatArray, Array)


class Deviated(NamedTuple, Generic[A]):
    """Voxels with their deviations from a field.

    Attributes
    ----------
    x : ndarray, shape (P, V)
        Parameters over their scales.
    kept : ndarray, shape (P, P, V)
        Change of `x` for a change of the field: the identity where voxels do not deviate.
    variance : ndarray, shape (P, V)
        Of `x`, the field being known.
    log_evidence : ndarray, shape (V,)
        Of the data, all deviations integrated out.
    """

    x: A
    kept: A
    variance: A
    log_evidence: A


def with_deviations(fields: Estimate, problem: Problem) -> Estimate:
    """Add to fields what single voxels deviate by.

    Parameters
    ----------
    fields : Estimate
        What networks made of a problem.
    problem : Problem
        That problem, whose noise is known.

    Returns
    -------
    Estimate
        With the standard deviations of `standard_deviations`.
    """
    model = problem.model
    scale = np.asarray([[p.scale] for p in model.parameters], problem.dtype)
    field, starts = fields.values / scale, starts_of(problem)
    found = deviate(problem, field, starts, deviation_sd(problem, field, starts))
    values = scale * found.x
    sd = None
    if fields.sd is not None:
        sd = scale * standard_deviations(found, fields.sd / scale)
    return fields._replace(values=values, status=voxel_status(values, model), sd=sd)


def standard_deviations(found: Deviated[FloatArray], of_field: FloatArray) -> FloatArray:
    """Standard deviations of voxels that deviate from a field which is not certain itself.

    The calibration of the members' spread has what networks cannot resolve in it already, so that
    the larger of both counts, and not their sum.

    Parameters
    ----------
    found : Deviated
        The voxels.
    of_field : ndarray, shape (P, V)
        Standard deviations of the field, over the scales of the parameters.

    Returns
    -------
    ndarray, shape (P, V)
        Over the same scales.
    """
    kept = np.einsum("ikv,kv->iv", found.kept**2, of_field**2)
    sd: FloatArray = np.sqrt(np.maximum(kept, found.variance))
    return sd


def starts_of(problem: Problem) -> FloatArray:
    """Where the solves start from beside the field: the grid's best point in each voxel.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known.

    Returns
    -------
    ndarray, shape (P, V)
        Parameters over their scales.
    """
    return grid_posterior(problem, NllsOptions()).x


def deviation_sd(problem: Problem, field: FloatArray, starts: FloatArray) -> FloatArray:
    """Size of the deviations under which the data are likeliest.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known; a sample of them is looked at.
    field : ndarray, shape (P, V)
        Parameters over their scales, as the networks have them.
    starts : ndarray, shape (P, V)
        The same from voxel-wise fits: where to start from beside the field.

    Returns
    -------
    ndarray, shape (P,)
        Standard deviation of each parameter about the field, over its scale.

    References
    ----------
    MacKay, Neural Comput 4:415-447 (1992), for the evidence.
    """
    every = -(-problem.n_voxels // noise_sample(problem).n_voxels)
    sample, near = noise_sample(problem), (field[:, ::every], starts[:, ::every])

    most = [
        np.inf if p.knowledge is None else p.knowledge.sd / p.scale
        for p in problem.model.parameters
    ]

    def evidence(sd: FloatArray) -> float:
        found = deviate(sample, *near, sd, n_voxels=problem.n_voxels)
        return float(found.log_evidence.sum(dtype=np.float64))

    def best(sd: FloatArray, which: NDArray[np.bool_]) -> FloatArray:
        candidates = [
            np.minimum(np.where(which, step, sd), most).astype(field.dtype) for step in _LADDER
        ]
        return candidates[int(np.argmax([evidence(each) for each in candidates]))]

    each = np.arange(len(field))
    sd = best(np.ones(len(field), field.dtype), each >= 0)
    for _ in range(_PASSES):
        for i in each:
            sd = best(sd, each == i)
    return sd


def deviate(
    problem: Problem,
    field: FloatArray,
    starts: FloatArray,
    sd: FloatArray,
    *,
    n_voxels: int | None = None,
) -> Deviated[FloatArray]:
    """Let every voxel deviate from a field.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known.
    field, starts : ndarray, shape (P, V)
        As for `deviation_sd`.
    sd : ndarray, shape (P,) or (P, V)
        Standard deviation of each parameter about the field, over its scale.
    n_voxels : int, optional
        Of the problem that this one is a sample of; then both are served by one compilation.

    Returns
    -------
    Deviated
        The most probable values, misfits and deviations being normal.
    """
    box = bounds(problem.model, field.dtype)
    each = np.broadcast_to(sd.reshape(len(field), -1), field.shape)
    found: Deviated[FloatArray] = map_voxels(
        _deviate, problem, (field, starts, each), (box,), n_voxels=n_voxels
    )
    return found


def _deviate(
    problem: Problem,
    field: Array,
    starts: Array,
    sd: Array,
    box: tuple[Array, Array],
) -> Deviated[Array]:
    model = problem.model
    root = (jnp.sqrt(problem.weights) / problem.noise_sd)[:, None]
    scale = jnp.asarray([p.scale for p in model.parameters], field.dtype)[:, None]
    # Both starts in one solve, side by side.
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf], -2), field)
    measured = jnp.stack([problem.measured] * 2, -2)

    def residual(x: Array) -> Array:
        curves = predict(problem, list(scale[:, None] * x))
        misfit = root[..., None] * (curves - measured)
        return jnp.concatenate([misfit, (x - twice) / sd[:, None]])

    low, high = (bound[:, None, None] for bound in box)
    begin = jnp.clip(jnp.stack([field, starts], -2), low, high)
    solved = solve(residual, begin, low, high, _TOLERANCES)
    better = solved.cost[0] <= solved.cost[1]
    x, cost, hessian = (
        jnp.where(better, leaf[..., 0, :], leaf[..., 1, :])
        for leaf in (solved.x, solved.cost, solved.hessian)
    )
    each = range(len(model.parameters))
    columns = [solve_small(hessian, [1.0 if i == k else 0.0 for i in each]) for k in each]
    covariance = jnp.stack([jnp.stack(column) for column in columns])
    normal = [[sd[i] * hessian[i, k] * sd[k] for k in each] for i in each]
    return Deviated(
        x,
        covariance / sd**2,
        jnp.stack([covariance[i, i] for i in each]),
        -cost - 0.5 * jnp.log(determinant_small(normal)),
    )
