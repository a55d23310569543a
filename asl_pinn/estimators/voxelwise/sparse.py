"""Which voxels have what most lack, such as arterial blood: spike and slab by evidence.

A model with a sparse amplitude is two: the whole model, and what is left of it where the amplitude
is 0. Each voxel is asked which of them its data speak for, all parameters integrated out over the
grid. How many voxels have the component, and how much, are told by all voxels together (empirical
Bayes), so that data without it get the fit without it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.estimators.base import Estimate
from asl_pinn.estimators.voxelwise.grid import (
    Grid,
    GridPosterior,
    Normal,
    PopulationPrior,
    Posterior,
    first_population,
    grid_posterior,
    initial_noise,
    make_grid,
    posterior,
    profile,
)
from asl_pinn.estimators.voxelwise.objective import (
    NllsOptions,
    misfit_of,
    n_determined,
    noise_from_squares,
    noise_sample,
    with_noise,
)
from asl_pinn.models.base import KineticModel
from asl_pinn.models.compose import components, without_sparse
from asl_pinn.problem import Problem, take

_FIRST_FRACTION = 0.1
_LEAST_FRACTION = 1e-4
_ROUNDS = 60
_NOISE_ROUNDS = 2
_FEWEST = 0.05
"""Fraction of voxels without the component that is enough to tell the noise from."""
_PSEUDO_VOXELS = 4.0
"""Voxels' worth of the first guess of a component's distribution, so that none is enough."""

A = TypeVar("A", FloatArray, Array)


class Mixture(NamedTuple):
    """Distribution of the parameters over voxels, some of which have a sparse component.

    Attributes
    ----------
    fraction : array_like, shape ()
        Of the voxels that have it.
    without, whole : PopulationPrior
        Of the parameters of voxels without and with it.
    """

    fraction: ArrayLike
    without: PopulationPrior
    whole: PopulationPrior


class Selection(NamedTuple, Generic[A]):
    """What the grid tells of V voxels with and without a sparse component.

    Attributes
    ----------
    without, whole : GridPosterior
        Of both models.
    log_odds : ndarray, shape (V,)
        That a voxel has the component.
    """

    without: GridPosterior[A]
    whole: GridPosterior[A]
    log_odds: A

    @property
    def present(self) -> NDArray[np.bool_]:
        """Voxels that more probably have the component than not, shape (V,)."""
        return np.asarray(self.log_odds) > 0.0

    @property
    def probability(self) -> FloatArray:
        """That a voxel has the component, shape (V,)."""
        half = 0.5 * np.asarray(self.log_odds)
        return 0.5 * (1.0 + np.tanh(half))


def plain(problem: Problem) -> Problem:
    """The problem without its model's sparse components.

    Parameters
    ----------
    problem : Problem
        Of any model.

    Returns
    -------
    Problem
    """
    return dataclasses.replace(problem, model=without_sparse(problem.model))


def fit_sparse(
    problem: Problem,
    options: NllsOptions,
    fit_at: Callable[[Problem, NllsOptions, GridPosterior[FloatArray]], Estimate],
) -> Estimate:
    """Fit each voxel with the model that its data speak for.

    Parameters
    ----------
    problem : Problem
        V voxels; its model has a sparse component.
    options : NllsOptions
        Grid and loss.
    fit_at : callable
        (problem, options, grid posterior) to the estimate from the grid's best points, for a
        problem whose noise is known.

    Returns
    -------
    Estimate
        Parameters of the component are 0 in voxels without it, with the standard deviation of the
        amplitude that the data leave open. Those of the other parameters include what the
        other of the two models would make of the voxel, by its probability.
    """
    known = with_noise(problem, noise(problem, options))
    chosen = select(known, options)
    names, small = problem.model.names, plain(known)
    values = np.zeros((len(names), problem.n_voxels), problem.dtype)
    sd, status = np.zeros_like(values), np.zeros(problem.n_voxels, np.int8)
    parts = ((small, chosen.without, ~chosen.present), (known, chosen.whole, chosen.present))
    for each, found, here in parts:
        which = np.flatnonzero(here)
        if not which.size:
            continue
        estimate = fit_at(take(each, which), options, _of_voxels(found, which))
        rows = np.array([names.index(name) for name in each.model.names])
        values[rows[:, None], which] = estimate.values
        sd[rows[:, None], which] = estimate.sd
        status[which] = estimate.status
    spread = _between(chosen, known, options, values)
    return Estimate(
        values,
        status,
        np.sqrt(sd**2 + spread),
        float(known.noise_sd),
        probability=dict.fromkeys(components(problem.model), chosen.probability),
    )


def _of_voxels(found: GridPosterior[FloatArray], which: IntArray) -> GridPosterior[FloatArray]:
    chosen: GridPosterior[FloatArray] = jax.tree.map(lambda leaf: leaf[..., which], found)
    return chosen


def noise(problem: Problem, options: NllsOptions) -> float:
    """Noise that fits of voxels without the sparse component leave.

    Parameters
    ----------
    problem : Problem
        V voxels; its model has a sparse component.
    options : NllsOptions
        Grid and loss.

    Returns
    -------
    float
        Standard deviation of one difference image [unit of measured].
    """
    sample, n_fitted = noise_sample(problem), n_determined(without_sparse(problem.model))
    sd = initial_noise(plain(sample), options, n_voxels=problem.n_voxels)
    for _ in range(_NOISE_ROUNDS):
        known = with_noise(sample, sd)
        chosen = select(known, options, n_voxels=problem.n_voxels)
        absent = ~chosen.present
        if absent.mean() < _FEWEST:
            break
        misfit = misfit_of(plain(known), chosen.without.x)
        squares = np.sum(np.asarray(sample.weights)[:, None] * misfit**2, axis=0)
        sd = noise_from_squares(squares[absent], n_fitted, problem)
    return sd


def _between(
    chosen: Selection[FloatArray], problem: Problem, options: NllsOptions, values: FloatArray
) -> FloatArray:
    """What not being sure of the model adds to the variances, shape (P, V)."""
    small = without_sparse(problem.model)
    means = [
        _means(model, found, options, problem.dtype)
        for model, found in ((small, chosen.without), (problem.model, chosen.whole))
    ]
    present, probability = chosen.present, chosen.probability
    other = np.where(present, 1.0 - probability, probability)
    rows = []
    for p, value in zip(problem.model.parameters, values, strict=True):
        if p.name in small.names:
            elsewhere = np.where(present, means[0][p.name], means[1][p.name])
            rows.append(other * (value - elsewhere) ** 2)
        elif p.sparse:
            i = [q.name for q in problem.model.linear].index(p.name)
            square = chosen.whole.mean[i] ** 2 + chosen.whole.variance[i]
            rows.append(np.where(present, other * value**2, probability * square))
        else:
            rows.append(np.zeros_like(value))
    return np.stack(rows).astype(values.dtype)


def _means(
    model: KineticModel,
    found: GridPosterior[FloatArray],
    options: NllsOptions,
    dtype: np.dtype[Any],
) -> dict[str, FloatArray]:
    """Posterior mean of each parameter over the grid, by name; smooth ones are not moved by it."""
    axes = make_grid(model, options, dtype).axes
    kinked = (np.asarray(axis) @ at for axis, at in zip(axes, found.probability, strict=True))
    means = dict(zip((p.name for p in model.kinked), kinked, strict=True))
    return means | dict(zip((p.name for p in model.linear), found.mean, strict=True))


def select(
    problem: Problem, options: NllsOptions, *, n_voxels: int | None = None
) -> Selection[FloatArray]:
    """Ask every voxel whether it has the sparse component.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known; its model has a sparse component.
    options : NllsOptions
        Grid and loss.
    n_voxels : int, optional
        Of the problem that this one is a sample of; then both are served by one compilation.

    Returns
    -------
    Selection
    """
    mixture = mixture_prior(problem, options)
    return _select(problem, options, mixture, n_voxels)


def select_under(
    problem: Problem, options: NllsOptions, normals: dict[str, Normal], fraction: ArrayLike
) -> Selection[FloatArray]:
    """Ask every voxel whether it has the sparse component, under priors of its own.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known; its model has a sparse component.
    options : NllsOptions
        Grid and loss.
    normals : dict of str to Normal of shape (V,)
        Of each linear and kinked parameter, by name.
    fraction : array_like, shape () or (V,)
        Prior probability that a voxel has the component.

    Returns
    -------
    Selection
    """
    populations = (_population(each.model, normals) for each in (plain(problem), problem))
    return _select(problem, options, Mixture(np.asarray(fraction), *populations), None)


def _select(
    problem: Problem, options: NllsOptions, mixture: Mixture, n_voxels: int | None
) -> Selection[FloatArray]:
    without = grid_posterior(plain(problem), options, mixture.without, n_voxels=n_voxels)
    whole = grid_posterior(problem, options, mixture.whole, n_voxels=n_voxels)
    fraction = np.asarray(mixture.fraction)
    prior_odds = np.log(fraction) - np.log1p(-fraction)
    return Selection(without, whole, prior_odds + whole.log_evidence - without.log_evidence)


def mixture_prior(problem: Problem, options: NllsOptions) -> Mixture:
    """Distribution under which the data of a sample of the voxels are likeliest.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known; its model has a sparse component.
    options : NllsOptions
        Grid and loss.

    Returns
    -------
    Mixture

    References
    ----------
    Mitchell and Beauchamp, J Am Stat Assoc 83:1023-1032 (1988), for spike and slab; Dempster, Laird
    and Rubin, J R Stat Soc B 39:1-38 (1977), for expectation and maximisation.
    """
    sample = noise_sample(problem)
    found: Mixture = _mixture(sample, first_population(sample), options)
    return found


@jax.jit
def _mixture(problem: Problem, first: PopulationPrior, options: NllsOptions) -> Mixture:
    """Expectation and maximisation over a sample."""
    small = plain(problem)
    grids = [make_grid(each.model, options, each.dtype) for each in (small, problem)]
    tried = [
        profile(each, grid.points, options.f_scale)
        for each, grid in zip((small, problem), grids, strict=True)
    ]
    model = problem.model
    searched = (*model.linear, *model.kinked)
    only_whole = {*components(model), *(n for names in components(model).values() for n in names)}
    start = dict(zip((p.name for p in searched), (*first.linear, *first.kinked), strict=True))

    def priors(normals: dict[str, Normal]) -> list[PopulationPrior]:
        return [_population(each.model, normals) for each in (small, problem)]

    def renew(
        state: tuple[dict[str, Normal], Array], _: None
    ) -> tuple[tuple[dict[str, Normal], Array], None]:
        normals, fraction = state
        found = [
            posterior(profile_, population, grid.points, each.model)
            for profile_, population, grid, each in zip(
                tried, priors(normals), grids, (small, problem), strict=True
            )
        ]
        without, whole = (
            _moments(each.model, grid, at)
            for each, grid, at in zip((small, problem), grids, found, strict=True)
        )
        log_odds = jnp.log(fraction) - jnp.log1p(-fraction)
        has = jax.nn.sigmoid(log_odds + found[1].log_evidence - found[0].log_evidence)
        new = {}
        for p in searched:
            if p.knowledge is not None:
                new[p.name] = normals[p.name]
                continue
            mean, square = whole[p.name]
            if p.name in only_whole:
                weight, rest = has, _PSEUDO_VOXELS
                other_mean, other_square = start[p.name].mean, _second_moment(start[p.name])
                total = jnp.sum(has) + rest
            else:
                weight, total = has, jnp.asarray(has.size, has.dtype)
                other_mean = (1.0 - has) @ without[p.name][0]
                other_square = (1.0 - has) @ without[p.name][1]
                rest = 1.0
            centre = (weight @ mean + rest * other_mean) / total
            second = (weight @ square + rest * other_square) / total
            if p.sparse:
                centre = jnp.zeros_like(centre)
            new[p.name] = Normal(centre, jnp.sqrt(jnp.maximum(second - centre**2, 1e-12)))
        share = jnp.clip(jnp.mean(has), _LEAST_FRACTION, 1.0 - _LEAST_FRACTION)
        return (new, share), None

    dtype = problem.measured.dtype
    begin = (
        jax.tree.map(lambda value: jnp.asarray(value, dtype), start),
        jnp.asarray(_FIRST_FRACTION, dtype),
    )
    (normals, fraction), _ = jax.lax.scan(renew, begin, length=_ROUNDS)
    return Mixture(fraction, *priors(normals))


def _second_moment(normal: Normal) -> Array:
    return jnp.asarray(normal.mean) ** 2 + jnp.asarray(normal.sd) ** 2


def _population(model: KineticModel, normals: dict[str, Normal]) -> PopulationPrior:
    return PopulationPrior(
        tuple(normals[p.name] for p in model.linear), tuple(normals[p.name] for p in model.kinked)
    )


def _moments(model: KineticModel, grid: Grid, found: Posterior) -> dict[str, tuple[Array, Array]]:
    """First and second moment of each parameter in each voxel, by name."""
    moments = {}
    for p, mean, variance in zip(model.linear, found.mean, found.variance, strict=True):
        moments[p.name] = (
            jnp.sum(found.probability * mean, axis=0),
            jnp.sum(found.probability * (variance + mean**2), axis=0),
        )
    for p, values, axis in zip(model.kinked, grid.points, grid.axes, strict=True):
        # A point stands for an interval about it, whose variance is a twelfth of its square.
        within = (axis[1] - axis[0]) ** 2 / 12.0
        moments[p.name] = values @ found.probability, values**2 @ found.probability + within
    return moments
