"""Voxel-wise regularised non-linear least squares, all voxels at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.chunked import map_chunked
from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.estimators.voxelwise import (
    CBF_UNIT,
    NllsOptions,
    assemble,
    bounds,
    check,
    noise_from_squares,
    residuals,
    start,
)
from asl_pinn.execution import Execution
from asl_pinn.least_squares import Settings, Solution, solve
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, gather, predict

_ROUND = 8
_POLISH = 4


class Fit(NamedTuple):
    """End of a round for each voxel."""

    x: NDArray
    hessian: NDArray
    converged: NDArray
    squares: NDArray


def fit(data: AslData, options: NllsOptions, execution: Execution) -> PerfusionMaps:
    """Fit CBF and ATT in every voxel by itself.

    The residuals are the misfits in units of the noise, with soft-L1 loss, and the distance
    of ATT from its initial guess. The noise is estimated from the data: from the best fits
    on the grid of starting points, then from those of the first round of steps.

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
    first = _round(voxels, starts, noise_sd, data, options, _ROUND)
    noise_sd = noise_from_squares(first.squares, data.protocol.n_delays, voxels)
    solved = solve_voxels(voxels, first.x, noise_sd, data, options)
    return assemble(data, options, noise_sd, solved.x, solved.hessian, solved.converged)


def solve_voxels(
    voxels: Voxels, starts: NDArray, noise_sd: float, data: AslData, options: NllsOptions
) -> Fit:
    """Minimise the cost of every voxel: a few steps for all, the rest for those in need.

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
    solved = _round(voxels, starts, noise_sd, data, options, min(_ROUND, options.max_steps))
    slow = np.flatnonzero(~solved.converged)
    if slow.size and options.max_steps > _ROUND:
        rest = jax.tree.map(lambda values: values[slow], voxels)
        further = _round(rest, solved.x[slow], noise_sd, data, options, options.max_steps - _ROUND)
        for values, new in zip(solved, further, strict=True):
            values[slow] = new
    return solved


def _round(
    voxels: Voxels,
    starts: NDArray,
    noise_sd: float,
    data: AslData,
    options: NllsOptions,
    max_steps: int,
) -> Fit:
    dtype = starts.dtype
    sd, n_averages = np.asarray(noise_sd, dtype), np.asarray(data.n_averages, dtype)
    box = bounds(options, dtype)
    return map_chunked(
        lambda chunk, x: _solve_chunk(
            chunk, x, box, sd, data.protocol, n_averages, options, max_steps
        ),
        (voxels, starts),
        options.chunk_size,
    )


@jax.jit
def _solve_chunk(
    voxels: Voxels,
    starts: Array,
    box: tuple[Array, Array],
    noise_sd: Array,
    protocol: Protocol,
    n_averages: Array,
    options: NllsOptions,
    max_steps: Array,
) -> Fit:
    # Where the minimum lies on a kink, ATT stalls there before CBF has settled: hold it then.
    schemes = jnp.array([[False, False], [False, True]]), jnp.array([max_steps, _POLISH])

    def solve_voxel(voxel: Voxels, start: Array) -> Fit:
        def residual(x: Array) -> Array:
            return residuals(x, voxel, noise_sd, protocol, n_averages, options)

        def phase(x: Array, scheme: tuple[Array, Array]) -> tuple[Array, Solution]:
            held, steps = scheme
            lower, upper = (jnp.where(held, x, bound) for bound in box)
            settings = Settings(options.xtol, options.ftol, steps, options.loss_scale)
            found = solve(residual, x, lower, upper, settings, options.solver)
            return found.x, found

        x, phases = jax.lax.scan(phase, start, schemes)
        misfit = predict(CBF_UNIT * x[0], x[1], voxel, protocol) - voxel.delta_m
        squares = jnp.sum(n_averages * misfit**2)
        return Fit(x, phases.hessian[-1], phases.converged[0], squares)

    return jax.vmap(solve_voxel)(voxels, starts)
