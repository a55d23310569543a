"""Voxel-wise regularised non-linear least squares, all voxels at once."""

from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.estimators.intervals import population_of, standard_deviations
from asl_pinn.estimators.survey import rough_noise, survey
from asl_pinn.estimators.voxelwise import (
    NllsOptions,
    assemble,
    bounds,
    check,
    noise_from_squares,
    noise_sample,
    penalty,
    residuals,
)
from asl_pinn.execution import Execution
from asl_pinn.least_squares import SOLVERS, Settings, solve
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, delays_first, gather

_ROUNDS = (3, 7, 10)
_POLISH = 4


A = TypeVar("A", FloatArray, Array)
B = TypeVar("B", NDArray[np.bool_], Array)


class Fit(NamedTuple, Generic[A, B]):
    """End of the solves of V voxels.

    Attributes
    ----------
    x : ndarray, shape (V, 2)
        CBF / 50 and ATT [s].
    hessian : ndarray, shape (V, 2, 2)
        Gauss-Newton Hessian of the cost.
    squares : ndarray, shape (V,)
        Weighted sum of squared misfits [squared unit of delta_m].
    converged : ndarray of bool, shape (V,)
        Whether a tolerance was met.
    stuck : ndarray of bool, shape (V,)
        Whether that was on a kink.
    trust : ndarray, shape (V,)
        State of the solver.
    """

    x: A
    hessian: A
    squares: A
    converged: B
    stuck: B
    trust: A


def fit(data: AslData, options: NllsOptions, execution: Execution) -> PerfusionMaps:
    """Fit CBF and ATT in every voxel by itself.

    The residuals are the misfits in units of the noise, with soft-L1 loss, and the distance
    of ATT from its initial guess. The noise is estimated from the data: from the best fits
    on the grid of starting points, then from the fits of a sample of the voxels.

    Parameters
    ----------
    data : AslData
        At least 3 delays, so that the noise can be told from the fit.
    options : NllsOptions
        Bounds, penalty, solver.
    execution : Execution
        Floating-point type; the fit is deterministic and needs no seed.

    Returns
    -------
    PerfusionMaps
        With standard deviations as `options.sd` says.

    Raises
    ------
    InputError
        If there are fewer than 3 delays, no valid voxel, or options out of order.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998), for the model; Powell, in Numerical Methods
    for Nonlinear Algebraic Equations (1970), for the dogleg.
    """
    check(data, options)
    voxels = gather(data, execution.dtype)
    noise_sd = noise(voxels, data, options)
    population = population_of(voxels, noise_sd, data, options)
    surveyed = survey(voxels, noise_sd, data, options, population)
    solved = solve_voxels(voxels, surveyed.x, noise_sd, data, options)
    sd = standard_deviations(surveyed, solved.x, solved.hessian, options)
    return assemble(data, options, noise_sd, solved.x, sd, solved.converged)


def noise(voxels: Voxels, data: AslData, options: NllsOptions) -> float:
    """Noise that fits of a sample of the voxels leave.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    data : AslData
        The volumes they come from.
    options : NllsOptions
        Bounds, penalty, solver.

    Returns
    -------
    float
        Standard deviation of one difference image [unit of delta_m].
    """
    sample, rough = noise_sample(voxels), rough_noise(voxels, data, options)
    starts = survey(sample, rough, data, options).x
    solved = solve_voxels(sample, starts, rough, data, options)
    return noise_from_squares(solved.squares, data.protocol.n_delays, voxels)


def solve_voxels(
    voxels: Voxels, starts: FloatArray, noise_sd: float, data: AslData, options: NllsOptions
) -> Fit[FloatArray, NDArray[np.bool_]]:
    """Minimise the cost of every voxel.

    A few steps are made for all voxels, then more for those that have not converged, so
    that the quick ones do not wait for the slow ones.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    starts : ndarray, shape (V, 2)
        CBF / 50 and ATT [s].
    noise_sd : float
        Standard deviation of one difference image [unit of delta_m].
    data : AslData
        Protocol and averages.
    options : NllsOptions
        Bounds, penalty, solver.

    Returns
    -------
    Fit
    """
    dtype = starts.dtype
    noise, averages = np.asarray(noise_sd, dtype), np.asarray(data.n_averages, dtype)
    constants = jax.device_put((bounds(options, dtype), noise, data.protocol, averages, options))
    size = chunk_for(int(np.count_nonzero(data.mask)), options.chunk_size)

    def advance(
        which: IntArray, x: FloatArray, trust: FloatArray, steps: int, hold_att: bool
    ) -> Fit[FloatArray, NDArray[np.bool_]]:
        chosen = voxels, x, trust
        if len(which) < len(x):
            chosen = jax.tree.map(lambda values: np.take(values, which, axis=0), chosen)
        return map_chunked(_solve_chunk, chosen, size, (*constants, steps, hold_att))

    def replace(which: IntArray, new: Fit[FloatArray, NDArray[np.bool_]]) -> None:
        for values, new_values in zip(found, new, strict=True):
            values[which] = new_values

    trust = np.full(len(starts), SOLVERS[options.solver].trust, dtype)
    done = min(_ROUNDS[0], options.max_steps)
    found = advance(np.arange(len(starts)), starts, trust, done, False)
    for steps in (*_ROUNDS[1:], options.max_steps):
        slow = np.flatnonzero(~found.converged)
        steps = min(steps, options.max_steps - done)
        if slow.size and steps > 0:
            replace(slow, advance(slow, found.x, found.trust, steps, False))
            done += steps
    # Where the minimum lies on a kink, ATT stalls there before CBF has settled.
    stuck = np.flatnonzero(found.stuck)
    if stuck.size:
        settled = advance(stuck, found.x, trust, _POLISH, True)
        replace(stuck, settled._replace(converged=found.converged[stuck]))
    return found


def _solve_chunk(
    voxels: Voxels,
    starts: Array,
    trust: Array,
    box: tuple[Array, Array],
    noise_sd: Array,
    protocol: Protocol,
    n_averages: Array,
    options: NllsOptions,
    max_steps: Array,
    hold_att: Array,
) -> Fit[Array, Array]:
    settings = Settings(options.xtol, options.ftol, max_steps, options.loss_scale)
    held = jnp.stack([jnp.zeros((), bool), jnp.asarray(hold_att)])[:, None]
    voxels = delays_first(voxels)

    def residual(x: Array) -> Array:
        return residuals(x, voxels, noise_sd, protocol, n_averages, options)

    lower, upper = (jnp.where(held, starts.T, bound[:, None]) for bound in box)
    found = solve(residual, starts.T, lower, upper, settings, options.solver, trust)
    squares = noise_sd**2 * (found.squares - penalty(found.x[1], options) ** 2)
    hessian = jnp.moveaxis(found.hessian, -1, 0)
    return Fit(found.x.T, hessian, squares, found.converged, found.stuck, found.trust)
