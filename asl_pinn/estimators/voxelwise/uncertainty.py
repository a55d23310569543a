"""Standard deviations of voxel-wise fits.

The curvature of the cost tells too little: where a bolus arrives, the cost has kinks and
several minima in the transit time. So each voxel is also asked how well other transit times fit
it, under a population prior: normal distributions of the parameters whose means and SDs are those
under which the data of all voxels are likeliest (empirical Bayes; Morris 1983).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.voxelwise.curves import (
    Curves,
    look_up,
    make_grid,
    searched,
    tabulate,
)
from asl_pinn.estimators.voxelwise.grid import (
    GridPosterior,
    Normal,
    PopulationPrior,
    first_population,
    posterior,
    profile,
)
from asl_pinn.estimators.voxelwise.objective import NllsOptions, noise_sample
from asl_pinn.models.base import KineticModel
from asl_pinn.numerics.batching import chunk_for, map_chunked
from asl_pinn.numerics.least_squares import solve_small
from asl_pinn.problem import Problem

_COVERED = 0.95
_NORMAL_HALF_WIDTH = 1.96
_ROUNDS = 100
_SETTLED = 1e-4  # change of a mean over its scale, or of the logarithm of an SD
_LONGEST_STRIDE = 16.0
_BISECTIONS = 7
_RESOLVED = 2.0  # steps of the grid; narrower distributions are the curvature's to tell


_Ends = tuple[Array, Array, Array, Array]


def population_prior(problem: Problem, options: NllsOptions) -> PopulationPrior | None:
    """Normal distributions of the parameters over the voxels, from a sample of these.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known.
    options : NllsOptions
        Grid, loss and `sd`.

    Returns
    -------
    PopulationPrior or None
        None where the curvature alone is to tell the standard deviations: where `options.sd` says
        so, and where no parameter is kinked.

    References
    ----------
    Morris, J Am Stat Assoc 78:47-55 (1983), for priors that many like problems tell.
    """
    if options.sd == "curvature" or not problem.model.kinked:
        return None
    sample = noise_sample(problem)
    found: PopulationPrior = _population_prior(
        dataclasses.replace(sample, model=searched(sample.model)),
        tabulate(sample, options),
        first_population(sample),
        options,
    )
    return found


def standard_deviations(
    found: GridPosterior[FloatArray],
    x: FloatArray,
    hessian: FloatArray,
    model: KineticModel,
    options: NllsOptions,
) -> FloatArray:
    """Standard deviations of the solutions of all voxels.

    Parameters
    ----------
    found : GridPosterior
        Under the population prior of these voxels.
    x : ndarray, shape (P, V)
        The solutions: parameters over their scales.
    hessian : ndarray, shape (P, P, V)
        Gauss-Newton Hessian of the cost there.
    model : KineticModel
        With P parameters.
    options : NllsOptions
        `sd` tells the way: by the curvature of the cost alone; or, where the posterior of a
        kinked parameter is wide, by the grid: for amplitudes the root mean square distance of
        the posterior from the solution, for kinked parameters the distance that holds 95 % of
        it, over 1.96. What the uncertainty of smooth parameters, which the grid holds, adds to
        these variances is taken from the curvature.

    Returns
    -------
    ndarray, shape (P, V)
        In the units of the parameters.
    """
    size = chunk_for(x.shape[-1], options.chunk_size)
    sd: FloatArray
    if options.sd == "curvature" or not model.kinked:
        sd = map_chunked(_from_curvature, (hessian,), size, (model,))
    else:
        sd = map_chunked(_from_grid, (found, x, hessian), size, (model, options))
    return sd


def _from_curvature(hessian: Array, model: KineticModel) -> Array:
    """Of the parameters in their units, shape (P, V), from (P, P, V)."""
    scale = jnp.asarray([p.scale for p in model.parameters], hessian.dtype)[:, None]
    return scale * jnp.sqrt(_variances(hessian))


def _variances(hessian: Array) -> Array:
    """Diagonal of the inverse of (P, P, V), shape (P, V)."""
    eye = jnp.eye(len(hessian), dtype=hessian.dtype)[..., None]
    floor = jnp.finfo(hessian.dtype).eps * jnp.trace(hessian)
    inverse = jnp.stack(solve_small(hessian + floor * eye, eye))
    return jnp.maximum(jnp.diagonal(inverse), 0.0).T


@jax.jit
def _population_prior(
    problem: Problem,
    tabulated: tuple[Curves, Array],
    first: PopulationPrior,
    options: NllsOptions,
) -> PopulationPrior:
    """Expectation and maximisation of the distributions over a sample of voxels.

    Each round leaps ahead along two plain ones (SQUAREM, scheme S3 of Varadhan and Roland, Scand J
    Stat 35:335-353, 2008): plain ones crawl where the data tell single voxels little. The
    state is made of means and logarithms of SDs, so that no leap ends at a negative SD.
    """
    model = problem.model
    grid = make_grid(model, options, problem.dtype)
    points = grid.points
    tried = profile(problem, look_up(*tabulated), grid, options.f_scale)
    parameters = (*model.linear, *model.kinked)
    scale = jnp.asarray([p.scale for p in parameters], problem.dtype)
    # A prior that is knowledge is not learned from the voxels.
    known = jnp.asarray([p.knowledge is not None for p in parameters])
    n_linear = len(model.linear)

    def at(state: Array) -> PopulationPrior:
        means, log_sds = jnp.split(state, 2)
        sds = jnp.exp(log_sds)
        normals = tuple(map(Normal, scale * means, scale * sds))
        return PopulationPrior(normals[:n_linear], normals[n_linear:])

    def renew(state: Array, _: None) -> tuple[Array, Array]:
        probability, means, variances = posterior(tried, at(state), points, model)[:3]
        moments = []
        for mean, variance in zip(means, variances, strict=True):
            centre = jnp.mean(jnp.sum(probability * mean, axis=0))
            square = jnp.sum(probability * (variance + (mean - centre) ** 2), axis=0)
            moments.append((centre, jnp.mean(square)))
        weight = jnp.mean(probability, axis=1)
        for values, axis in zip(points, grid.axes, strict=True):
            centre = weight @ values
            # A point stands for an interval about it, whose variance is a twelfth of its square.
            square = weight @ (values - centre) ** 2 + (axis[1] - axis[0]) ** 2 / 12.0
            moments.append((centre, square))
        centres, squares = (jnp.stack(parts) for parts in zip(*moments, strict=True))
        new = jnp.concatenate([centres / scale, 0.5 * jnp.log(squares / scale**2)])
        new = jnp.where(jnp.tile(known, 2), state, new)
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

    means, sds = (jnp.stack(part) for part in zip(*first.linear, *first.kinked, strict=True))
    start = jnp.concatenate([means / scale, jnp.log(sds / scale)])
    settled, _, _ = jax.lax.while_loop(
        unsettled, leap, (start, jnp.asarray(jnp.inf, start.dtype), jnp.asarray(0))
    )
    return at(settled)


def _from_grid(
    found: GridPosterior[Array],
    x: Array,
    hessian: Array,
    model: KineticModel,
    options: NllsOptions,
) -> Array:
    """Standard deviations of a chunk, shape (P, V)."""
    axes = make_grid(model, options, x.dtype).axes
    searched = iter(zip(axes, found.probability, strict=True))
    amplitudes = iter(zip(found.mean, found.variance, strict=True))
    curved, added = _of_searched(hessian, model)
    wide, sds = jnp.zeros(x.shape[1:], bool), {}
    for i, p in enumerate(model.parameters):
        if p.kinked:
            axis, probability = next(searched)
            step = axis[1] - axis[0]
            distance = jnp.abs(axis[:, None] - p.scale * x[i])
            sd = _half_width(probability, distance, step) / _NORMAL_HALF_WIDTH
            narrowest = _RESOLVED * step
            resolved = sd > narrowest
            sds[i] = jnp.where(resolved, sd, jnp.minimum(p.scale * curved[i], narrowest))
            wide |= resolved
    for i, p in enumerate(model.parameters):
        if p.linear:
            mean, variance = next(amplitudes)
            sd = jnp.sqrt(variance + (mean - p.scale * x[i]) ** 2)
            sds[i] = jnp.where(wide, sd, p.scale * curved[i])
        elif not p.kinked:
            sds[i] = p.scale * curved[i]
    return jnp.stack(
        [
            jnp.sqrt(sds[i] ** 2 + p.scale**2 * added[i]) if i in added else sds[i]
            for i, p in enumerate(model.parameters)
        ]
    )


def _of_searched(hessian: Array, model: KineticModel) -> tuple[list[Array], dict[int, Array]]:
    """SDs from the curvature, and variances that smooth parameters add; over the scales.

    Returns
    -------
    curved : list of P Array, each of shape (V,)
        With the smooth parameters held, as the grid holds them; of these themselves, with all free.
    added : dict of int to Array, each of shape (V,)
        For the other parameters, the variance with all free less that with the smooth ones held;
        empty where none is smooth.
    """
    whole = _variances(hessian)
    searched = [i for i, p in enumerate(model.parameters) if p.linear or p.kinked]
    curved, added = list(jnp.sqrt(whole)), {}
    if len(searched) < len(whole):
        alone = _variances(hessian[np.ix_(searched, searched)])
        for i, variance in zip(searched, alone, strict=True):
            curved[i] = jnp.sqrt(variance)
            added[i] = jnp.maximum(whole[i] - variance, 0.0)
    return curved, added


def _half_width(probability: Array, distance: Array, step: Array) -> Array:
    """Distance that holds `_COVERED` of the probability of grid points (G, V), shape (V,)."""

    def held(reach: Array) -> Array:
        return jnp.sum(probability * jnp.clip((reach - distance) / step + 0.5, 0.0, 1.0), axis=0)

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
