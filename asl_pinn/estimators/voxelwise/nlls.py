"""Voxel-wise regularised non-linear least squares, all voxels at once."""

import dataclasses
from typing import Generic, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.estimators.base import Estimate, Estimator, RunContext, voxel_status
from asl_pinn.estimators.partial_volume import by_tissue
from asl_pinn.estimators.voxelwise.grid import GridPosterior, grid_posterior, initial_noise
from asl_pinn.estimators.voxelwise.objective import (
    QUADRATIC,
    NllsOptions,
    bounds,
    check,
    n_determined,
    noise_from_squares,
    noise_sample,
    prior_residuals,
    residuals,
    root_mean_square,
    values_of,
    with_noise,
)
from asl_pinn.estimators.voxelwise.sparse import fit_sparse
from asl_pinn.estimators.voxelwise.uncertainty import population_prior, standard_deviations
from asl_pinn.models.compose import components
from asl_pinn.numerics.least_squares import SOLVERS, Tolerances, solve
from asl_pinn.problem import Problem, map_voxels, take

_ROUNDS = (3, 7, 10)
_POLISH = 4


A = TypeVar("A", FloatArray, Array)
B = TypeVar("B", NDArray[np.bool_], Array)


class Solved(NamedTuple, Generic[A, B]):
    """End of the solves of V voxels.

    Attributes
    ----------
    x : ndarray, shape (P, V)
        Parameters over their scales.
    hessian : ndarray, shape (P, P, V)
        Gauss-Newton Hessian of the cost.
    squares : ndarray, shape (V,)
        Weighted sum of squared misfits [squared unit of measured].
    converged : ndarray of bool, shape (V,)
        Whether a tolerance was met.
    at_kink : ndarray of bool, shape (V,)
        Whether that was at a kink.
    trust : ndarray, shape (V,)
        State of the solver.
    """

    x: A
    hessian: A
    squares: A
    converged: B
    at_kink: B
    trust: A


def fit(problem: Problem, options: NllsOptions, context: RunContext) -> Estimate:
    """Fit the parameters of every voxel by itself.

    The residuals are the misfits in units of the noise, with soft-L1 loss, and the distance
    of each parameter that has a prior from its mean. The noise is estimated from the data: from
    the best fits on the grid of starting points, then from the fits of a sample of the voxels.

    Parameters
    ----------
    problem : Problem
        More measurements than parameters without a prior that is knowledge, so that the noise can
        be told from the fit. As many are enough where no parameter is kinked; then the fit is by
        plain least squares, and neither noise nor standard deviations are known.
    options : NllsOptions
        Loss, grid, solver.
    context : RunContext
        The fit is deterministic and needs nothing of it.

    Returns
    -------
    Estimate
        With standard deviations as `options.sd` says.

    Raises
    ------
    InputError
        If there are too few measurements, or options out of range.

    References
    ----------
    Powell, in Numerical Methods for Nonlinear Algebraic Equations (1970), for the dogleg.
    """
    del context
    check(problem, options)
    model = problem.model
    if problem.n_measurements == n_determined(model):
        known, options = without_noise(problem, options)
        solved = solve_voxels(known, grid_posterior(known, options).x, options)
        values = values_of(solved.x, model)
        return Estimate(values, voxel_status(values, model, solved.converged))
    if components(model):
        return fit_sparse(problem, options, _fit_at)
    known = with_noise(problem, noise(problem, options))
    found = grid_posterior(known, options, population_prior(known, options))
    return _fit_at(known, options, found)


def _fit_at(problem: Problem, options: NllsOptions, found: GridPosterior[FloatArray]) -> Estimate:
    """Fit from the grid's best points, the noise being known."""
    solved = solve_voxels(problem, found.x, options)
    values = values_of(solved.x, problem.model)
    return Estimate(
        values,
        voxel_status(values, problem.model, solved.converged),
        standard_deviations(found, solved.x, solved.hessian, problem.model, options),
        float(problem.noise_sd),
    )


def without_noise(problem: Problem, options: NllsOptions) -> tuple[Problem, NllsOptions]:
    """Plain least squares, for as many measurements as parameters: any noise serves.

    Parameters
    ----------
    problem : Problem
        Whose noise the data do not tell.
    options : NllsOptions
        With a robust loss, whose scale is in units of the noise.

    Returns
    -------
    problem : Problem
        With misfits in units of the root mean square signal.
    options : NllsOptions
        With a quadratic loss.
    """
    scale = max(root_mean_square(problem.measured), float(np.finfo(np.float32).tiny))
    return with_noise(problem, scale), dataclasses.replace(options, f_scale=QUADRATIC)


def noise(problem: Problem, options: NllsOptions) -> float:
    """Noise that fits of a sample of the voxels leave.

    Parameters
    ----------
    problem : Problem
        V voxels.
    options : NllsOptions
        Loss, grid, solver.

    Returns
    -------
    float
        Standard deviation of one difference image [unit of measured].
    """
    sample = with_noise(noise_sample(problem), initial_noise(problem, options))
    starts = grid_posterior(sample, options, n_voxels=problem.n_voxels).x
    solved = solve_voxels(sample, starts, options, n_voxels=problem.n_voxels)
    return noise_from_squares(solved.squares, n_determined(problem.model), problem)


def solve_voxels(
    problem: Problem, starts: FloatArray, options: NllsOptions, *, n_voxels: int | None = None
) -> Solved[FloatArray, NDArray[np.bool_]]:
    """Minimise the cost of every voxel.

    A few steps are made for all voxels, then more for those that have not converged, so
    that the quick ones do not wait for the slow ones.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known.
    starts : ndarray, shape (P, V)
        Parameters over their scales.
    options : NllsOptions
        Loss, solver.
    n_voxels : int, optional
        Of the problem that this one is a sample of; then both are served by one compilation.

    Returns
    -------
    Solved
    """
    n_all, box = problem.n_voxels, bounds(problem.model, starts.dtype)

    def advance(
        which: IntArray, x: FloatArray, trust: FloatArray, steps: int, hold_kinked: bool
    ) -> Solved[FloatArray, NDArray[np.bool_]]:
        chosen, at = problem, (x, trust)
        if len(which) < n_all:
            chosen, at = take(problem, which), (x[:, which], trust[which])
        solved: Solved[FloatArray, NDArray[np.bool_]] = map_voxels(
            _solve_chunk,
            chosen,
            at,
            (box, options, steps, hold_kinked),
            chunk_size=options.chunk_size,
            n_voxels=n_voxels or n_all,
        )
        return solved

    def replace(which: IntArray, new: Solved[FloatArray, NDArray[np.bool_]]) -> None:
        for values, new_values in zip(found, new, strict=True):
            values[..., which] = new_values

    trust = np.full(n_all, SOLVERS[options.solver].trust, starts.dtype)
    done = min(_ROUNDS[0], options.max_steps)
    found = advance(np.arange(n_all), starts, trust, done, False)
    for steps in (*_ROUNDS[1:], options.max_steps):
        slow = np.flatnonzero(~found.converged)
        steps = min(steps, options.max_steps - done)
        if slow.size and steps > 0:
            replace(slow, advance(slow, found.x, found.trust, steps, False))
            done += steps
    # Where the minimum lies on a kink, the kinked parameters stall there before the others have
    # settled, as no step that moves all of them at once lowers the cost.
    at_kink = np.flatnonzero(found.at_kink)
    if at_kink.size and problem.model.kinked:
        settled = advance(at_kink, found.x, trust, _POLISH, True)
        replace(at_kink, settled._replace(converged=found.converged[at_kink]))
    return found


def _solve_chunk(
    problem: Problem,
    starts: Array,
    trust: Array,
    box: tuple[Array, Array],
    options: NllsOptions,
    max_steps: Array,
    hold_kinked: Array,
) -> Solved[Array, Array]:
    model = problem.model
    tolerances = Tolerances(options.xtol, options.ftol, max_steps, options.f_scale)
    held = jnp.asarray([p.kinked for p in model.parameters])[:, None] & hold_kinked
    lower, upper = (jnp.where(held, starts, bound[:, None]) for bound in box)
    found = solve(
        lambda x: residuals(x, problem), starts, lower, upper, tolerances, options.solver, trust
    )
    values = [p.scale * x for p, x in zip(model.parameters, found.x, strict=True)]
    of_priors = sum(distance**2 for distance in prior_residuals(values, problem))
    squares = problem.noise_sd**2 * (found.squares - of_priors)
    return Solved(found.x, found.hessian, squares, found.converged, found.at_kink, found.trust)


METHODS_SENTENCE = (
    "Each voxel was fitted by non-linear least squares, with soft-L1 loss beyond {f_scale:g} "
    "standard deviations of the noise (plain squares where there were no more delays than "
    "parameters), from the best of {grid} values of each parameter that shifts the curve in time"
)
"""Of the methods section, without the full stop."""

NLLS = Estimator(
    by_tissue(fit),
    NllsOptions,
    "voxel-wise regularised least squares",
    f"{METHODS_SENTENCE}.",
)
