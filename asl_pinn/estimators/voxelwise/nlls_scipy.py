"""The same voxel-wise fit by SciPy, one voxel after the other: the reference for `nlls`."""

import jax
import numpy as np
import scipy
from jax import Array
from numpy.typing import ArrayLike

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.base import Estimate, Estimator, RunContext, voxel_status
from asl_pinn.estimators.partial_volume import by_tissue
from asl_pinn.estimators.voxelwise.grid import GridPosterior, grid_posterior, initial_noise
from asl_pinn.estimators.voxelwise.nlls import METHODS_SENTENCE, without_noise
from asl_pinn.estimators.voxelwise.objective import (
    NllsOptions,
    bounds,
    check,
    n_determined,
    noise_from_squares,
    values_of,
    with_noise,
)
from asl_pinn.estimators.voxelwise.sparse import fit_sparse
from asl_pinn.estimators.voxelwise.uncertainty import population_prior, standard_deviations
from asl_pinn.models.base import Blood, KineticModel, Timing, Tissue
from asl_pinn.models.buxton import Buxton
from asl_pinn.models.compose import components
from asl_pinn.numerics.progress import progress_bar
from asl_pinn.problem import Problem


def fit(problem: Problem, options: NllsOptions, context: RunContext) -> Estimate:
    """Fit the parameters of every voxel with SciPy's `least_squares`.

    Start, bounds, residuals and loss are those of `nlls`; the solver is SciPy's dogbox, so
    that `options.solver` is not used. Buxton's curve is computed by NumPy, apart from the models.

    Parameters
    ----------
    problem : Problem
        As for `nlls`.
    options : NllsOptions
        Loss, tolerances.
    context : RunContext
        Progress bar; the arithmetic is float64 whatever the type of the result.

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
    Voglis and Lagaris, WSEAS Int Conf Applied Mathematics (2004), for dogbox.
    """
    check(problem, options)
    model = problem.model
    if problem.n_measurements == n_determined(model):
        known, options = without_noise(problem, options)
        solved = _solve_all(known, grid_posterior(known, options).x, options, context)
        return _estimate(solved, known)

    def fit_at(known: Problem, options: NllsOptions, found: GridPosterior[FloatArray]) -> Estimate:
        solved = _solve_all(known, found.x, options, context)
        return _with_uncertainty(solved, known, options, found)

    if components(model):
        return fit_sparse(problem, options, fit_at)
    first = with_noise(problem, initial_noise(problem, options))
    solved = _solve_all(first, grid_posterior(first, options).x, options, context)
    squares = np.array([_squares(result, first) for result in solved])
    known = with_noise(problem, noise_from_squares(squares, n_determined(model), problem))
    solved = _solve_all(known, _solutions(solved), options, context)
    found = grid_posterior(known, options, population_prior(known, options))
    return _with_uncertainty(solved, known, options, found)


def solve_voxel(
    problem: Problem, voxel: int, start: FloatArray, options: NllsOptions
) -> "scipy.optimize.OptimizeResult":
    """Fit one voxel.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known.
    voxel : int
        Index of the one to fit.
    start : ndarray, shape (P,)
        Parameters over their scales.
    options : NllsOptions
        Loss, tolerances.

    Returns
    -------
    scipy.optimize.OptimizeResult
        `x` is over the parameters' scales.
    """
    model, roots = problem.model, np.sqrt(np.asarray(problem.weights, np.float64))
    measured = np.asarray(problem.measured[:, voxel], np.float64)
    timing, tissue, blood = _constants(problem, voxel)
    curve = _buxton if type(model) is Buxton else _any_model
    scale = np.array([p.scale for p in model.parameters])
    centres = np.array([np.asarray(centre) for centre in model.centres(tissue, blood)])
    with_prior = [i for i, p in enumerate(model.parameters) if p.prior is not None]
    prior_sd = np.array([p.prior.sd for p in model.parameters if p.prior is not None])

    def residual(x: FloatArray) -> FloatArray:
        values = scale * x
        misfit = curve(model, values, timing, tissue, blood) - measured
        distance = (values - centres)[with_prior] / prior_sd
        return np.append(misfit * roots / float(problem.noise_sd), distance)

    lower, upper = bounds(model, np.float64)
    return scipy.optimize.least_squares(
        residual,
        np.clip(start, lower, upper),
        bounds=(lower, upper),
        method="dogbox",
        loss="soft_l1",
        f_scale=options.f_scale,
        xtol=options.xtol,
        ftol=options.ftol,
        gtol=None,
        max_nfev=options.max_steps,
    )


def _solve_all(
    problem: Problem, starts: FloatArray, options: NllsOptions, context: RunContext
) -> "list[scipy.optimize.OptimizeResult]":
    results = []
    with progress_bar(problem.n_voxels, "nlls-scipy", unit="voxel", shown=context.progress) as bar:
        for voxel, start in enumerate(np.asarray(starts, np.float64).T):
            results.append(solve_voxel(problem, voxel, start, options))
            bar.update()
    return results


def _estimate(solved: "list[scipy.optimize.OptimizeResult]", problem: Problem) -> Estimate:
    """Solutions in the type of the problem, neither noise nor standard deviations known."""
    values = values_of(_solutions(solved).astype(problem.dtype), problem.model)
    converged = np.array([result.success for result in solved])
    return Estimate(values, voxel_status(values, problem.model, converged))


def _with_uncertainty(
    solved: "list[scipy.optimize.OptimizeResult]",
    problem: Problem,
    options: NllsOptions,
    found: GridPosterior[FloatArray],
) -> Estimate:
    """Solutions with standard deviations, the noise being known."""
    x = _solutions(solved).astype(problem.dtype)
    hessian = np.stack([result.jac.T @ result.jac for result in solved], axis=-1)
    sd = standard_deviations(found, x, hessian.astype(problem.dtype), problem.model, options)
    return _estimate(solved, problem)._replace(sd=sd, noise_sd=float(problem.noise_sd))


def _solutions(solved: "list[scipy.optimize.OptimizeResult]") -> FloatArray:
    """Parameters over their scales, shape (P, V)."""
    return np.stack([result.x for result in solved], axis=-1)


def _squares(result: "scipy.optimize.OptimizeResult", problem: Problem) -> float:
    misfit = result.fun[: problem.n_measurements] * float(problem.noise_sd)
    return float(misfit @ misfit)


def _constants(problem: Problem, voxel: int) -> tuple[Timing, Tissue, Blood]:
    """Those of one voxel: numbers, and arrays of shape (D,), in float64."""

    def chosen(values: ArrayLike) -> FloatArray:
        whole = np.asarray(values)
        return np.asarray(whole[voxel] if whole.ndim else whole, np.float64)

    timing, tissue = problem.timing, problem.tissue
    return (
        Timing(
            np.asarray(timing.t, np.float64),
            np.asarray(timing.label_duration, np.float64),
            chosen(timing.readout_delay),
        ),
        jax.tree.map(chosen, tissue),
        jax.tree.map(lambda value: np.asarray(value, np.float64), problem.blood),
    )


def _any_model(
    model: KineticModel, values: FloatArray, timing: Timing, tissue: Tissue, blood: Blood
) -> FloatArray:
    """Signal of a model in float64, whatever type JAX computes in elsewhere."""
    with jax.enable_x64(True):
        return np.asarray(_signal(model, tuple(values), timing, tissue, blood))


@jax.jit
def _signal(
    model: KineticModel, values: tuple[Array, ...], timing: Timing, tissue: Tissue, blood: Blood
) -> Array:
    return model.signal(values, timing, tissue, blood)


def _buxton(
    model: KineticModel, values: FloatArray, timing: Timing, tissue: Tissue, blood: Blood
) -> FloatArray:
    """Buxton's curve piece by piece in NumPy, written apart from `asl_pinn.models`."""
    del model
    (cbf, att), tau = values, np.asarray(timing.label_duration)
    flow = cbf / 6000.0
    t1_app = 1.0 / (1.0 / tissue.t1_tissue + flow / tissue.partition_coefficient)
    x = timing.t + timing.readout_delay - att
    arterial_m0 = tissue.m0 / tissue.partition_coefficient
    peak = 2.0 * blood.labeling_efficiency * arterial_m0 * flow * t1_app
    peak *= np.exp(-att / blood.t1_blood)
    during = 1.0 - np.exp(-np.maximum(x, 0.0) / t1_app)
    after = np.exp(-np.maximum(x - tau, 0.0) / t1_app) * (1.0 - np.exp(-tau / t1_app))
    return peak * np.where(x < 0.0, 0.0, np.where(x < tau, during, after))


NLLS_SCIPY = Estimator(
    by_tissue(fit),
    NllsOptions,
    "`nlls` by SciPy, slowly",
    f"{METHODS_SENTENCE}, by SciPy's least_squares.",
)
