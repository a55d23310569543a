"""Rounds of better fields and better hyperparameters, and the estimate at their end."""

import dataclasses
import functools
import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.base import Estimate, RunContext, voxel_status
from asl_pinn.estimators.covariates import CovariatesName
from asl_pinn.estimators.options import ByParameter
from asl_pinn.estimators.spatial.fields import (
    FieldProblem,
    Fields,
    make_field_problem,
    to_values,
    within_bounds,
)
from asl_pinn.estimators.spatial.hyperparameters import first_hyperparameters, update
from asl_pinn.estimators.spatial.options import CHOSEN, SpatialOptions, check
from asl_pinn.estimators.spatial.order import best_of, candidates, prediction_error, some_slices
from asl_pinn.estimators.spatial.posterior import EffectiveDof, data_cost, gauss_newton_step
from asl_pinn.estimators.spatial.prior import Hyperparameters, given_neighbours
from asl_pinn.estimators.spatial.sparse import (
    Found,
    first_sparse,
    sparse_among_neighbours,
    with_sparse,
)
from asl_pinn.estimators.voxelwise.grid import initial_noise
from asl_pinn.estimators.voxelwise.objective import check_measurements
from asl_pinn.estimators.voxelwise.sparse import plain
from asl_pinn.models.compose import components
from asl_pinn.numerics.progress import progress_bar
from asl_pinn.problem import Problem

_LOG = logging.getLogger(__name__)

SD_FACTORS: dict[CovariatesName, ByParameter] = {
    "tissue": ByParameter.of(other=1.0, att=1.3),
    "none": ByParameter.of(other=1.0, cbf=1.4, att=1.3),
}
"""Calibration of the standard deviations, by the option `covariates`.

The Laplace approximation knows of one mode, and takes edges and hyperparameters for sure, so that
its draws lie too close. The factors make intervals of 95 % cover the errors of simulated slices:
ICBM 152 phantom, slices 24, 28, 36 and 42, Hadamard-8, noise seeds 100 to 103. Parameters that
were not part of it have 1.
"""

_FIRST_SD = 0.3

# Times that the grid is asked for what is sparse, and rounds of the fields before each.
_SEARCHES = 3
_ROUNDS_BETWEEN = 6

# A voxel whose last step is a larger part of its own standard deviation has not converged.
_MOST_MOVEMENT = 0.1

# How near a bound counts as on it, over the distance of the bounds: steps are clipped on the scale
# of the field, from which values return rounded.
_BOUND_TOLERANCE = 1e-4


class _Fit(NamedTuple):
    """Where the rounds end: the mode, the one before the last step, draws; whether it settled."""

    known: FieldProblem
    mode: Fields
    previous: Fields
    draws: Fields
    effective_dof: EffectiveDof
    hyperparameters: Hyperparameters
    settled: bool
    history: dict[str, FloatArray]
    sparse: Found


def fit(problem: Problem, options: SpatialOptions, context: RunContext) -> Estimate:
    """Fit the parameters of all voxels at once, with random-field priors.

    The prior of each map says that neighbours differ little (or, of order 2, that the map
    bends little), the heavier its tails the sharper the edges it allows. Some parameters may follow
    tissue maps besides, and a distribution that the model states for single voxels is kept.
    Precisions and noise maximise the marginal likelihood, in MacKay's fixed point over draws from
    the Laplace approximation.

    Parameters
    ----------
    problem : Problem
        V voxels with their geometry; at least one measurement more than parameters that it has to
        determine, so that the noise can be told from the fit.
    options : SpatialOptions
        Scale, orders, distribution of the roughness.
    context : RunContext
        Seed of the draws, progress bar.

    Returns
    -------
    Estimate
        Posterior modes, standard deviations from the draws, the draws themselves (deviations
        stretched as the standard deviations are), and the hyperparameters round by round:
        '<name>_precision', 'noise_sd' and 'outlier_fraction', and '<name>_order' where the data
        chose it.

    Raises
    ------
    InputError
        If there are too few measurements, or an option is out of range.

    References
    ----------
    Penny et al., NeuroImage 24:350-362 (2005), and Groves et al., NeuroImage 45:795-809
    (2009), for spatial priors whose hyperparameters the data tell.
    """
    check(options, problem.model.names)
    check_measurements(problem)
    chosen, found = _choose(options, problem, context)
    was_open = [name for name in problem.model.names if options.order[name] == CHOSEN]
    options = chosen
    factors = SD_FACTORS[options.covariates](problem.model.names)
    mode, previous, drawn, samples = jax.device_get(
        _to_maps(options, found.known, found.mode, found.previous, found.draws, factors)
    )
    sd = np.sqrt(np.mean((drawn - mode) ** 2, axis=0))
    at_rest = np.all(np.abs(mode - previous) <= _MOST_MOVEMENT * sd, axis=0)
    sd = np.asarray(factors, sd.dtype)[:, None] * sd
    mode, sd, samples = with_sparse(problem.model, found.sparse, mode, sd, samples)
    return Estimate(
        values=mode,
        status=voxel_status(mode, problem.model, found.settled | at_rest, _BOUND_TOLERANCE),
        sd=sd,
        noise_sd=float(found.history["noise_sd"][-1]),
        samples=samples,
        history=found.history | _orders(options, was_open, found),
    )


def _orders(options: SpatialOptions, names: list[str], found: _Fit) -> dict[str, FloatArray]:
    """The orders that were chosen, as long as the rest of the history."""
    length = len(found.history["noise_sd"])
    return {f"{name}_order": np.full(length, options.order[name]) for name in names}


def _choose(
    options: SpatialOptions, problem: Problem, context: RunContext
) -> tuple[SpatialOptions, _Fit]:
    """Options of which nothing is open any more, and the fit with them."""
    tried = candidates(options, problem)
    # What is sparse takes longest to find, and follows no order.
    sample = problem if len(tried) == 1 else plain(some_slices(problem))
    fits: dict[SpatialOptions, _Fit] = {}

    def expected_error(one: SpatialOptions) -> float:
        found = fits[one] = _solve(one, sample, context)
        cost = data_cost(one, found.known, found.hyperparameters, found.mode)
        error = prediction_error(cost, found.effective_dof)
        _LOG.info("order %s: expected error %.0f in %d voxels", one.order, error, sample.n_voxels)
        return error

    chosen = best_of(tried, expected_error)
    if chosen in fits and sample.n_voxels == problem.n_voxels and not components(problem.model):
        return chosen, fits[chosen]
    return chosen, _solve(chosen, problem, context)


def _solve(options: SpatialOptions, problem: Problem, context: RunContext) -> _Fit:
    """Alternate steps of the fields and of the hyperparameters, until these no longer change.

    Where something is sparse, it is then asked for again under what the fields of the neighbours
    say, and the rounds go on from there.
    """
    noise_sd = initial_noise(problem)
    known = make_field_problem(problem, options)
    key = jax.random.key(context.seed)
    sparse = first_sparse(options, known, problem)
    mode, draws = _start(options, known)
    mode = _with_sparse(known, mode, sparse)
    hyperparameters = first_hyperparameters(options, known, noise_sd, sparse.sparsity)
    rounds: list[dict[str, Array]] = []
    searches = _SEARCHES if sparse.fields else 0
    settled = False
    # Runs that differ in these alone share their compilation.
    core = dataclasses.replace(options, rounds=1, rtol=1.0)
    since = 0

    def ask_grid() -> Found:
        conditional = given_neighbours(core, known, hyperparameters, mode)
        return sparse_among_neighbours(
            core, known, problem, hyperparameters.noise.sd, conditional, sparse
        )

    with progress_bar(options.rounds, "spatial-map", shown=context.progress) as bar:
        while len(rounds) < options.rounds and not settled:
            previous = mode
            mode, draws, effective_dof = gauss_newton_step(
                core, known, hyperparameters, mode, draws, key
            )
            hyperparameters, change = update(
                core, known, hyperparameters, mode, draws, effective_dof, sparse.own
            )
            rounds.append(_record(known, hyperparameters))
            since += 1
            settled = float(change) < options.rtol
            bar.update()
            if searches and (settled or since >= _ROUNDS_BETWEEN):
                sparse = ask_grid()
                mode = _with_sparse(known, mode, sparse)
                hyperparameters = hyperparameters._replace(sparsity=sparse.sparsity)
                searches, since, settled = searches - 1, 0, False
    if sparse.fields:
        sparse = ask_grid()
    history = {name: np.asarray([record[name] for record in rounds]) for name in rounds[0]}
    return _Fit(
        known, mode, previous, draws, effective_dof, hyperparameters, settled, history, sparse
    )


def _with_sparse(known: FieldProblem, mode: Fields, sparse: Found) -> Fields:
    """The fields with those of sparse components as they were found."""
    return mode._replace(
        fields=tuple(
            sparse.fields.get(p.name, field)
            for p, field in zip(known.parameters, mode.fields, strict=True)
        )
    )


def _start(options: SpatialOptions, known: FieldProblem) -> tuple[Fields, Fields]:
    """Fields that are 0 everywhere, and S draws of their deviations."""
    n_draws, n_voxels, dtype = options.samples, known.problem.n_voxels, known.problem.dtype
    mode = Fields(
        tuple(jnp.zeros(n_voxels, dtype) for _ in known.covariates),
        tuple(jnp.zeros(len(maps), dtype) for maps in known.covariates),
    )
    draws = Fields(
        tuple(jnp.full((n_draws, n_voxels), _FIRST_SD, dtype) for _ in known.covariates),
        tuple(jnp.zeros((n_draws, len(maps)), dtype) for maps in known.covariates),
    )
    return mode, draws


def _record(known: FieldProblem, hyperparameters: Hyperparameters) -> dict[str, Array]:
    """What the history keeps of a round."""
    noise = hyperparameters.noise
    precisions = zip(known.parameters, hyperparameters.precision, strict=True)
    return {
        **{f"{p.name}_precision": precision for p, precision in precisions},
        "noise_sd": jnp.sqrt(jnp.mean(noise.sd**2)),
        "outlier_fraction": noise.outlier_fraction,
        **{
            f"{p.name}_fraction": sparsity.fraction
            for p, sparsity in zip(known.parameters, hyperparameters.sparsity, strict=True)
            if sparsity is not None
        },
    }


@functools.partial(jax.jit, static_argnames="options")
def _to_maps(
    options: SpatialOptions,
    known: FieldProblem,
    mode: Fields,
    previous: Fields,
    draws: Fields,
    factors: tuple[float, ...],
) -> tuple[Array, Array, Array, Array]:
    """Values of both modes, (P, V); of the draws as they are, and as samples, (S, P, V)."""
    drawn = jax.tree.map(jnp.add, mode, draws)
    stretched = Fields(
        tuple(
            x + factor * deviation
            for x, factor, deviation in zip(mode.fields, factors, draws.fields, strict=True)
        ),
        tuple(
            x + factor * deviation
            for x, factor, deviation in zip(
                mode.coefficients, factors, draws.coefficients, strict=True
            )
        ),
    )
    samples = within_bounds(options, known, stretched)

    def values(fields: Fields) -> Array:
        return jnp.stack(to_values(options, known, fields), axis=-2)

    return values(mode), values(previous), values(drawn), values(samples)
