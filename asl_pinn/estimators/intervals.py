"""Standard deviations of voxel-wise fits.

The curvature of the cost tells too little: where a bolus arrives, the cost has creases and
several minima in ATT. So each voxel is also asked how well other transit times fit it, with
the law of CBF and ATT over all voxels as the prior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData
from asl_pinn.estimators.by_att import TYPICAL_CBF, matcher, misfits, total
from asl_pinn.estimators.voxelwise import CBF_UNIT, NllsOptions, att_grid, noise_sample
from asl_pinn.least_squares import soft_l1, solve_small
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


class Population(NamedTuple):
    """Normal laws of CBF and ATT over the voxels, each of shape () [mL/100g/min, s]."""

    cbf_mean: Array
    cbf_sd: Array
    att_mean: Array
    att_sd: Array


class Profile(NamedTuple):
    """How well each of G transit times fits V voxels; all of shape (G, V).

    Attributes
    ----------
    cost : Array
        With the best CBF.
    cbf : Array
        That CBF, without bounds [mL/100g/min].
    variance : Array
        Of that CBF, from the noise [(mL/100g/min)²].
    """

    cost: Array
    cbf: Array
    variance: Array


def standard_deviations(
    voxels: Voxels,
    x: FloatArray,
    hessian: FloatArray,
    noise_sd: float,
    data: AslData,
    options: NllsOptions,
) -> FloatArray:
    """Standard deviations of the solutions of all voxels.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    x : ndarray, shape (V, 2)
        Their CBF / 50 and ATT [s].
    hessian : ndarray, shape (V, 2, 2)
        Gauss-Newton Hessian there.
    noise_sd : float
        Standard deviation of one difference image [unit of delta_m].
    data : AslData
        Protocol and averages.
    options : NllsOptions
        `sd` tells the way: by the curvature of the cost alone; or, where the law of ATT is
        wide, by the population: for CBF the root mean square distance of that law from
        the solution, for ATT the distance that holds 95 % of it, over 1.96.

    Returns
    -------
    ndarray, shape (V, 2)
        Of CBF [mL/100g/min] and ATT [s].

    References
    ----------
    Morris, J Am Stat Assoc 78:47-55 (1983), for priors that many like problems tell.
    """
    curvature = np.asarray(_from_curvature(hessian))
    if options.sd == "curvature":
        return curvature
    dtype = voxels.m0.dtype
    constants = jax.device_put(
        (np.asarray(noise_sd, dtype), data.protocol, np.asarray(data.n_averages, dtype), options)
    )
    population = _population(noise_sample(voxels), *constants)
    size = chunk_for(len(x), options.chunk_size)
    return map_chunked(_from_population, (voxels, x, curvature), size, (population, *constants))


@jax.jit
def _from_curvature(hessian: Array) -> Array:
    """Roots of the diagonals of the inverses of (V, 2, 2), in CBF and ATT, shape (V, 2)."""
    rows = jnp.moveaxis(hessian, 0, -1)
    eye = jnp.eye(len(rows), dtype=rows.dtype)[..., None]
    floor = jnp.finfo(rows.dtype).eps * jnp.trace(rows)
    inverse = jnp.stack(solve_small(rows + floor * eye, eye))
    sd = jnp.sqrt(jnp.maximum(jnp.diagonal(inverse), 0.0))
    return sd * jnp.asarray([CBF_UNIT, 1.0], sd.dtype)


def _profile(
    voxels: Voxels, noise_sd: Array, protocol: Protocol, n_averages: Array, options: NllsOptions
) -> Profile:
    signal = jnp.mean(n_averages * jnp.mean(voxels.delta_m**2, axis=0)) / noise_sd**2
    real = jnp.finfo(signal.dtype)
    measured, match = matcher(voxels, noise_sd, protocol, n_averages, real.eps * signal + real.tiny)

    def at(att: Array) -> Profile:
        unit, share, information = match(att)
        gaps = misfits(unit, share, measured)
        cost = total(soft_l1(gap, options.loss_scale) for gap in gaps)
        return Profile(cost, TYPICAL_CBF * share, TYPICAL_CBF**2 / information)

    return jax.lax.map(at, att_grid(options, signal.dtype))


def _law(profile: Profile, population: Population, att: Array) -> tuple[Array, Array, Array]:
    """Shares of the transit times, mean and variance of CBF at each, all of shape (G, V)."""
    prior = population.cbf_sd**2
    total = profile.variance + prior
    log_share = (
        -profile.cost
        - 0.5 * (profile.cbf - population.cbf_mean) ** 2 / total
        + 0.5 * jnp.log(profile.variance / total)
        - 0.5 * ((att[:, None] - population.att_mean) / population.att_sd) ** 2
    )
    pull = profile.variance / total
    mean = profile.cbf + pull * (population.cbf_mean - profile.cbf)
    return jax.nn.softmax(log_share, axis=0), mean, pull * prior


@jax.jit
def _population(
    voxels: Voxels, noise_sd: Array, protocol: Protocol, n_averages: Array, options: NllsOptions
) -> Population:
    """Expectation and maximisation of the laws over a sample of voxels.

    Each round leaps ahead along two plain ones (Varadhan and Roland, Scand J Stat 35:335-353,
    2008).
    """
    profile = _profile(voxels, noise_sd, protocol, n_averages, options)
    att = att_grid(options, profile.cost.dtype)

    def renew(state: Array, _: None) -> tuple[Array, Array]:
        share, mean, variance = _law(profile, _population_at(state), att)
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

    guess = TYPICAL_CBF / CBF_UNIT, options.att_guess, np.log(TYPICAL_CBF / CBF_UNIT)
    start = jnp.stack([*guess, jnp.log(options.att_guess_sd)]).astype(att.dtype)
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


def _from_population(
    voxels: Voxels,
    x: Array,
    curvature: Array,
    population: Population,
    noise_sd: Array,
    protocol: Protocol,
    n_averages: Array,
    options: NllsOptions,
) -> Array:
    """Standard deviations of CBF and ATT of a chunk, shape (V, 2)."""
    profile = _profile(voxels, noise_sd, protocol, n_averages, options)
    grid = att_grid(options, profile.cost.dtype)
    share, mean, variance = _law(profile, population, grid)
    cbf, att = CBF_UNIT * x[:, 0], x[:, 1]
    cbf_sd = jnp.sqrt(jnp.sum(share * (variance + (mean - cbf) ** 2), axis=0))
    half_width = _half_width(share, jnp.abs(grid[:, None] - att), grid[1] - grid[0])
    att_sd = half_width / _NORMAL_HALF_WIDTH
    narrowest = _RESOLVED * (grid[1] - grid[0])
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
