"""Voxel-wise regularised non-linear least squares, all voxels at once."""

from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.estimators.voxelwise import (
    CBF_UNIT,
    NllsOptions,
    assemble,
    bounds,
    check,
    noise_from_squares,
    noise_sample,
    residuals,
    start,
)
from asl_pinn.execution import Execution
from asl_pinn.least_squares import SOLVERS, Settings, solve
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, gather, predict

_ROUNDS = (4, 4, 8)
_POLISH = 4


A = TypeVar("A", NDArray, Array)


class Fit(NamedTuple, Generic[A]):
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
    converged: A
    stuck: A
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
        With standard deviations from the Jacobian at the solution.

    Raises
    ------
    InputError
        If there are fewer than 3 delays, no valid voxel, or options out of order.
    """
    check(data, options)
    voxels = gather(data, execution.dtype)
    starts, noise_sd = start(voxels, data, options)
    sample = solve_voxels(noise_sample(voxels), noise_sample(starts), noise_sd, data, options)
    noise_sd = noise_from_squares(sample.squares, data.protocol.n_delays, voxels)
    solved = solve_voxels(voxels, starts, noise_sd, data, options)
    return assemble(data, options, noise_sd, solved.x, solved.hessian, solved.converged)


def solve_voxels(
    voxels: Voxels, starts: NDArray, noise_sd: float, data: AslData, options: NllsOptions
) -> Fit[NDArray]:
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
    box = bounds(options, dtype)
    constants = np.asarray(noise_sd, dtype), data.protocol, np.asarray(data.n_averages, dtype)
    size = chunk_for(int(np.count_nonzero(data.valid)), options.chunk_size)

    def advance(
        which: NDArray, x: NDArray, trust: NDArray, steps: int, hold_att: bool
    ) -> Fit[NDArray]:
        chosen = jax.tree.map(lambda values: values[which], voxels)
        return map_chunked(
            lambda *chunk: _solve_chunk(*chunk, box, *constants, options, steps, hold_att),
            (chosen, x[which], trust[which]),
            size,
        )

    def replace(which: NDArray, new: Fit[NDArray]) -> None:
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


@jax.jit
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
) -> Fit[Array]:
    settings = Settings(options.xtol, options.ftol, max_steps, options.loss_scale)
    held = jnp.stack([jnp.zeros((), bool), jnp.asarray(hold_att)])

    def solve_voxel(voxel: Voxels, start: Array, trust: Array) -> Fit[Array]:
        def residual(x: Array) -> Array:
            return residuals(x, voxel, noise_sd, protocol, n_averages, options)

        lower, upper = (jnp.where(held, start, bound) for bound in box)
        found = solve(residual, start, lower, upper, settings, options.solver, trust)
        x = found.x
        misfit = predict(CBF_UNIT * x[0], x[1], voxel, protocol) - voxel.delta_m
        squares = jnp.sum(n_averages * misfit**2)
        return Fit(x, found.hessian, squares, found.converged, found.stuck, found.trust)

    return jax.vmap(solve_voxel)(voxels, starts, trust)
