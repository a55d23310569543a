"""Standard deviations of voxel-wise fits.

The curvature of the cost tells too little: where a bolus arrives, the cost has creases and
several minima in ATT. So each voxel is also asked how well other transit times fit it, with
the law of CBF and ATT over all voxels as the prior.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData
from asl_pinn.estimators.by_att import profile
from asl_pinn.estimators.survey import Population, Survey, att_grid, guessed, law
from asl_pinn.estimators.voxelwise import CBF_UNIT, NllsOptions, noise_sample
from asl_pinn.least_squares import solve_small
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels

_COVERED = 0.95
_NORMAL_HALF_WIDTH = 1.96
_ROUNDS = 100
_SETTLED = 1e-4  # change of a mean over its unit, or of the logarithm of an SD
_LONGEST_STRIDE = 16.0
_BISECTIONS = 7
_RESOLVED = 2.0  # steps of the grid; narrower laws are the curvature's to tell


_Ends = tuple[Array, Array, Array, Array]


def population_of(
    voxels: Voxels, noise_sd: float, data: AslData, options: NllsOptions
) -> Population | None:
    """Normal laws of CBF and ATT over the voxels, from a sample of them, where they are needed.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    noise_sd : float
        Standard deviation of one difference image [unit of delta_m].
    data : AslData
        Protocol and averages.
    options : NllsOptions
        Grid, loss and `sd`.

    Returns
    -------
    Population or None
        None where the curvature alone is to tell the standard deviations.

    References
    ----------
    Morris, J Am Stat Assoc 78:47-55 (1983), for priors that many like problems tell.
    """
    if options.sd == "curvature":
        return None
    dtype = voxels.m0.dtype
    averages = np.asarray(data.n_averages, dtype)
    constants = np.asarray(noise_sd, dtype), data.protocol, averages, options
    return _population(noise_sample(voxels), *constants)


def standard_deviations(
    surveyed: Survey[FloatArray], x: FloatArray, hessian: FloatArray, options: NllsOptions
) -> FloatArray:
    """Standard deviations of the solutions of all voxels.

    Parameters
    ----------
    surveyed : Survey
        With the population of these voxels.
    x : ndarray, shape (V, 2)
        Their CBF / 50 and ATT [s].
    hessian : ndarray, shape (V, 2, 2)
        Gauss-Newton Hessian there.
    options : NllsOptions
        `sd` tells the way: by the curvature of the cost alone; or, where the law of ATT is
        wide, by the population: for CBF the root mean square distance of that law from
        the solution, for ATT the distance that holds 95 % of it, over 1.96.

    Returns
    -------
    ndarray, shape (V, 2)
        Of CBF [mL/100g/min] and ATT [s].
    """
    if options.sd == "curvature":
        return np.asarray(_from_curvature(hessian))
    size = chunk_for(len(x), options.chunk_size)
    return map_chunked(_from_law, (surveyed, x, hessian), size, (jax.device_put(options),))


@jax.jit
def _from_curvature(hessian: Array) -> Array:
    """Roots of the diagonals of the inverses of (V, 2, 2), in CBF and ATT, shape (V, 2)."""
    rows = jnp.moveaxis(hessian, 0, -1)
    eye = jnp.eye(len(rows), dtype=rows.dtype)[..., None]
    floor = jnp.finfo(rows.dtype).eps * jnp.trace(rows)
    inverse = jnp.stack(solve_small(rows + floor * eye, eye))
    sd = jnp.sqrt(jnp.maximum(jnp.diagonal(inverse), 0.0))
    return sd * jnp.asarray([CBF_UNIT, 1.0], sd.dtype)


@jax.jit
def _population(
    voxels: Voxels, noise_sd: Array, protocol: Protocol, n_averages: Array, options: NllsOptions
) -> Population:
    """Expectation and maximisation of the laws over a sample of voxels.

    Each round leaps ahead along two plain ones (Varadhan and Roland, Scand J Stat 35:335-353,
    2008).
    """
    att = att_grid(options, voxels.m0.dtype)
    tried = profile(voxels, att, noise_sd, protocol, n_averages, options.loss_scale)

    def renew(state: Array, _: None) -> tuple[Array, Array]:
        share, mean, variance = law(tried, _population_at(state), att)
        cbf_mean = jnp.mean(jnp.sum(share * mean, axis=0))
        cbf_square = jnp.mean(jnp.sum(share * (variance + (mean - cbf_mean) ** 2), axis=0))
        weight = jnp.mean(share, axis=1)
        att_mean = weight @ att
        att_square = weight @ (att - att_mean) ** 2 + (att[1] - att[0]) ** 2 / 12.0
        logs = 0.5 * jnp.log(jnp.stack([cbf_square / CBF_UNIT**2, att_square]))
        new = jnp.concatenate([jnp.stack([cbf_mean / CBF_UNIT, att_mean]), logs])
        return new, new

    def leap(ends: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        state, _, round_ = ends
        twice, (once, _) = jax.lax.scan(renew, state, length=2)
        change = once - state
        bend = twice - once - change
        stride = jnp.linalg.norm(change) / jnp.maximum(jnp.linalg.norm(bend), _SETTLED**2)
        stride = jnp.clip(stride, 1.0, _LONGEST_STRIDE)
        there = state + 2.0 * stride * change + stride**2 * bend
        there = jnp.where(jnp.isfinite(there).all(), there, twice)
        return there, jnp.max(jnp.abs(twice - once)), round_ + 1

    def unsettled(ends: tuple[Array, Array, Array]) -> Array:
        return (ends[1] > _SETTLED) & (ends[2] < _ROUNDS)

    guess = guessed(options, att.dtype)
    logs = jnp.log(guess.cbf_sd / CBF_UNIT), jnp.log(guess.att_sd)
    start = jnp.stack([guess.cbf_mean / CBF_UNIT, guess.att_mean, *logs])
    settled, _, _ = jax.lax.while_loop(
        unsettled, leap, (start, jnp.asarray(jnp.inf, start.dtype), jnp.asarray(0))
    )
    return _population_at(settled)


def _population_at(state: Array) -> Population:
    """From the means in units of order one and the logarithms of the SDs, shape (4,)."""
    cbf_mean, att_mean, cbf_log_sd, att_log_sd = state
    return Population(
        CBF_UNIT * cbf_mean, CBF_UNIT * jnp.exp(cbf_log_sd), att_mean, jnp.exp(att_log_sd)
    )


def _from_law(surveyed: Survey[Array], x: Array, hessian: Array, options: NllsOptions) -> Array:
    """Standard deviations of CBF and ATT of a chunk, shape (V, 2)."""
    grid = att_grid(options, x.dtype)
    step = grid[1] - grid[0]
    cbf, att = CBF_UNIT * x[:, 0], x[:, 1]
    cbf_sd = jnp.sqrt(surveyed.cbf_variance + (surveyed.cbf_mean - cbf) ** 2)
    distance = jnp.abs(grid[:, None] - att)
    att_sd = _half_width(surveyed.share.T, distance, step) / _NORMAL_HALF_WIDTH
    narrowest = _RESOLVED * step
    curvature = _from_curvature(hessian)
    resolved = att_sd > narrowest
    return jnp.stack(
        [
            jnp.where(resolved, cbf_sd, curvature[:, 0]),
            jnp.where(resolved, att_sd, jnp.minimum(curvature[:, 1], narrowest)),
        ],
        axis=-1,
    )


def _half_width(share: Array, distance: Array, step: Array) -> Array:
    """Distance that holds `_COVERED` of the shares of grid points (G, V), shape (V,)."""

    def held(reach: Array) -> Array:
        return jnp.sum(share * jnp.clip((reach - distance) / step + 0.5, 0.0, 1.0), axis=0)

    def halve(ends: _Ends, _: None) -> tuple[_Ends, None]:
        low, high, held_low, held_high = ends
        middle = 0.5 * (low + high)
        here = held(middle)
        enough = here >= _COVERED
        return (
            jnp.where(enough, low, middle),
            jnp.where(enough, middle, high),
            jnp.where(enough, held_low, here),
            jnp.where(enough, here, held_high),
        ), None

    none, all_ = jnp.zeros_like(distance[0]), jnp.ones_like(distance[0])
    ends = none, jnp.max(distance, axis=0) + step, none, all_
    (low, high, held_low, held_high), _ = jax.lax.scan(halve, ends, length=_BISECTIONS)
    return low + (high - low) * (_COVERED - held_low) / (held_high - held_low)
