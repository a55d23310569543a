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
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.estimators.base import Estimate
from asl_pinn.estimators.voxelwise.grid import (
    GridPosterior,
    Normal,
    grid_posterior,
    initial_noise,
    make_grid,
)
from asl_pinn.estimators.voxelwise.mixture import Mixture, mixture_prior, population
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

_NOISE_ROUNDS = 2
_FEWEST = 0.05
"""Fraction of voxels without the component that is enough to tell the noise from."""

A = TypeVar("A", FloatArray, Array)


class Selection(NamedTuple, Generic[A]):
    """What the grid tells of V voxels with and without a sparse component.

    Attributes
    ----------
    without, whole : GridPosterior
        Of both models.
    log_odds : ndarray, shape (V,)
        That a voxel has the component.
    mixture : Mixture
        Under which.
    """

    without: GridPosterior[A]
    whole: GridPosterior[A]
    log_odds: A
    mixture: Mixture

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
    sd_of_noise, mixture = noise_and_mixture(problem, options)
    known = with_noise(problem, sd_of_noise)
    chosen = select(known, options, begin=mixture)
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
    return noise_and_mixture(problem, options)[0]


def noise_and_mixture(
    problem: Problem, options: NllsOptions, *, n_voxels: int | None = None
) -> tuple[float, Mixture | None]:
    """That noise, and nearly the distribution of the parameters at it, for searches to begin with.

    Parameters
    ----------
    problem : Problem
        V voxels; its model has a sparse component.
    options : NllsOptions
        Grid and loss.
    n_voxels : int, optional
        Of the problem that this one is a sample of; then both are served by one compilation.

    Returns
    -------
    noise_sd : float
        Standard deviation of one difference image [unit of measured].
    mixture : Mixture or None
    """
    n_voxels = n_voxels or problem.n_voxels
    sample, n_fitted = noise_sample(problem), n_determined(without_sparse(problem.model))
    sd, mixture = initial_noise(plain(sample), options, n_voxels=n_voxels), None
    for _ in range(_NOISE_ROUNDS):
        known = with_noise(sample, sd)
        chosen = select(known, options, n_voxels=n_voxels, begin=mixture)
        absent, mixture = ~chosen.present, chosen.mixture
        if absent.mean() < _FEWEST:
            break
        misfit = misfit_of(plain(known), chosen.without.x)
        squares = np.sum(np.asarray(sample.weights)[:, None] * misfit**2, axis=0)
        sd = noise_from_squares(squares[absent], n_fitted, problem)
    return sd, mixture


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
    problem: Problem,
    options: NllsOptions,
    *,
    n_voxels: int | None = None,
    begin: Mixture | None = None,
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
    begin : Mixture, optional
        As for `mixture_prior`.

    Returns
    -------
    Selection
    """
    mixture = mixture_prior(problem, options, begin)
    return _select(problem, options, mixture, n_voxels)


def select_under(
    problem: Problem,
    options: NllsOptions,
    normals: dict[str, Normal],
    fraction: ArrayLike,
    *,
    n_voxels: int | None = None,
) -> Selection[FloatArray]:
    """Ask every voxel whether it has the sparse component, under priors of its own.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known; its model has a sparse component.
    options : NllsOptions
        Grid and loss.
    normals : dict of str to Normal of shape () or (V,)
        Of each linear and kinked parameter, by name.
    fraction : array_like, shape () or (V,)
        Prior probability that a voxel has the component.
    n_voxels : int, optional
        As for `select`.

    Returns
    -------
    Selection
    """
    populations = (population(each.model, normals) for each in (plain(problem), problem))
    return _select(problem, options, Mixture(np.asarray(fraction), *populations), n_voxels)


def _select(
    problem: Problem, options: NllsOptions, mixture: Mixture, n_voxels: int | None
) -> Selection[FloatArray]:
    without = grid_posterior(plain(problem), options, mixture.without, n_voxels=n_voxels)
    whole = grid_posterior(problem, options, mixture.whole, n_voxels=n_voxels)
    fraction = np.asarray(mixture.fraction)
    prior_odds = np.log(fraction) - np.log1p(-fraction)
    log_odds = prior_odds + whole.log_evidence - without.log_evidence
    return Selection(without, whole, log_odds, mixture)
