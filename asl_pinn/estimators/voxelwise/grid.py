"""The kinked parameters of each voxel on a grid: where to start, and what each value tells.

A bolus that arrives puts kinks into the curve, and several minima into the cost. So every voxel is
asked how well each of some transit times fits it, each with the amplitudes that fit best. The
signal is taken as linear in the amplitudes, which it nearly is, so that these have a closed form;
smooth parameters are held at their centres.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.voxelwise.curves import Curves, Grid, map_on_grid
from asl_pinn.estimators.voxelwise.curves import make_grid as make_grid
from asl_pinn.estimators.voxelwise.objective import (
    QUADRATIC,
    NllsOptions,
    centres_inside,
    noise_from_squares,
    noise_sample,
    prior_residuals,
    root_mean_square,
    values_of,
    with_noise,
)
from asl_pinn.models.base import KineticModel, Parameter
from asl_pinn.numerics.least_squares import determinant_small, soft_l1, solve_small
from asl_pinn.problem import Problem, join, split

_DEFAULTS = NllsOptions()
_BLOCK = 8
_SWEEPS = 2
_DEEPEST_CUT = 8.0  # SDs below 0 at which a truncated normal distribution counts as all but nothing

A = TypeVar("A", FloatArray, Array)


class Normal(NamedTuple):
    """Normal distribution of a parameter, in its unit; both of shape (), or (V,)."""

    mean: ArrayLike
    sd: ArrayLike


class PopulationPrior(NamedTuple):
    """Normal distributions of parameters over the voxels, independent of one another.

    Those of sparse amplitudes are half normal: positive, with mode 0.

    Attributes
    ----------
    linear : tuple of L Normal
        Of the amplitudes.
    kinked : tuple of K Normal
        Of the parameters on the grid.
    """

    linear: tuple[Normal, ...]
    kinked: tuple[Normal, ...]


class Profile(NamedTuple):
    """How well each of G grid points fits V voxels.

    Attributes
    ----------
    cost : Array, shape (G, V)
        With the best amplitudes, without bounds.
    amplitudes : tuple of L Array, each of shape (G, V)
        These, over the parameters' typical values.
    information : tuple of L tuples of L Array, each of shape (G, V)
        Inverse of their covariance, from the noise.
    """

    cost: Array
    amplitudes: tuple[Array, ...]
    information: tuple[tuple[Array, ...], ...]


class GridPosterior(NamedTuple, Generic[A]):
    """What the grid tells of V voxels.

    Attributes
    ----------
    cost : ndarray, shape (V,)
        Least cost, priors of the model included.
    x : ndarray, shape (P, V)
        Where, with amplitudes inside their bounds: parameters over their scales.
    probability : tuple of K ndarray, each of shape (G_k, V)
        Of each value of each kinked parameter, given data and population prior.
    mean, variance : tuple of L ndarray, each of shape (V,)
        Of the amplitudes, over the whole grid [unit of the parameter, and its square].
    log_evidence : ndarray, shape (V,)
        Logarithm of the likelihood under the population prior, all parameters integrated out, less
        a constant that is the same for all models of the same data.
    """

    cost: A
    x: A
    probability: tuple[A, ...]
    mean: tuple[A, ...]
    variance: tuple[A, ...]
    log_evidence: A


class Posterior(NamedTuple):
    """What data and population prior say of V voxels, at each of G grid points.

    Attributes
    ----------
    probability : Array, shape (G, V)
        Of each grid point.
    mean, variance : tuple of L Array, each of shape (G, V)
        Of the amplitudes at each [unit of the parameter, and its square].
    log_evidence : Array, shape (V,)
        As in `GridPosterior`.
    """

    probability: Array
    mean: tuple[Array, ...]
    variance: tuple[Array, ...]
    log_evidence: Array


def grid_posterior(
    problem: Problem,
    options: NllsOptions,
    population: PopulationPrior | None = None,
    *,
    n_voxels: int | None = None,
    prior_weight: float = 1.0,
) -> GridPosterior[FloatArray]:
    """Try all grid points in all voxels, each with the best amplitudes.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known.
    options : NllsOptions
        Loss and grid.
    population : PopulationPrior, optional
        Prior of each voxel, the same for all or one for each; `first_population` without it.
    n_voxels : int, optional
        Of the problem that this one is a sample of; then both are served by one compilation.
    prior_weight : float
        Factor of what the model's priors add to the cost.

    Returns
    -------
    GridPosterior
    """
    if population is None:
        population = first_population(problem)
    weight = np.asarray(prior_weight, problem.dtype)
    by_voxel = any(np.ndim(leaf) for leaf in jax.tree.leaves(population))
    found: GridPosterior[FloatArray] = map_on_grid(
        _grid_posterior,
        problem,
        options,
        (population,) if by_voxel else (),
        (weight, options) if by_voxel else (population, weight, options),
        n_voxels=n_voxels,
    )
    return found._replace(x=_of_all_parameters(found.x, problem))


def _of_all_parameters(x: FloatArray, problem: Problem) -> FloatArray:
    """Of the parameters in order, (P, V), from the amplitudes and kinked ones."""
    model = problem.model
    rows = dict(zip((p.name for p in (*model.linear, *model.kinked)), x, strict=True))
    for p, centre in zip(model.parameters, centres_inside(problem), strict=True):
        if p.name not in rows:
            rows[p.name] = np.broadcast_to(np.asarray(centre, x.dtype) / p.scale, x.shape[1:])
    return np.stack([rows[name] for name in model.names]).astype(x.dtype)


def first_population(problem: Problem) -> PopulationPrior:
    """Population prior before anything is known of the voxels: wide, about typical values.

    Parameters
    ----------
    problem : Problem
        Its constants may be centres of parameters.

    Returns
    -------
    PopulationPrior
    """
    model = problem.model
    centres = dict(zip(model.names, model.centres(problem.tissue, problem.blood), strict=True))

    def normal(p: Parameter) -> Normal:
        width = p.typical if p.linear else 0.25 * (p.upper - p.lower)
        sd = width if p.prior is None else p.prior.sd
        centre = 0.0 if p.sparse else np.mean(np.asarray(centres[p.name]))
        return Normal(np.asarray(centre, problem.dtype), np.asarray(sd, problem.dtype))

    return PopulationPrior(tuple(map(normal, model.linear)), tuple(map(normal, model.kinked)))


def profile(problem: Problem, curves: Curves, grid: Grid, f_scale: ArrayLike) -> Profile:
    """Best amplitudes at each grid point, by weighted least squares, and their soft-L1 cost.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known; its model need not have the curves.
    curves : Curves
        Of these voxels.
    grid : Grid
        Of G points.
    f_scale : array_like, shape ()
        Misfit, in noise SDs, where the loss turns linear.

    Returns
    -------
    Profile
        Of one grid point where no parameter is kinked.
    """
    roots = jnp.sqrt(problem.weights) / problem.noise_sd
    measured = tuple(map(jnp.multiply, roots, problem.measured))
    factors = roots[:, None] * problem.tissue.m0
    columns, rows = [], []
    for curve in curves:
        axes = curve.shape[1:-1]
        columns.append(factors[:, None] * curve.reshape(len(curve), -1, curve.shape[-1]))
        own = [
            index if size > 1 else 0 * index for index, size in zip(grid.which, axes, strict=True)
        ]
        rows.append(np.ravel_multi_index(own, axes) if axes else np.zeros(1, np.intp))
    squares = jnp.mean(jnp.square(problem.measured), axis=-1)
    signal = jnp.mean(problem.weights * squares) / problem.noise_sd**2
    real = jnp.finfo(signal.dtype)
    least = real.eps * signal + real.tiny  # where no label has arrived
    amplitudes_of = range(len(curves))
    # Curves that are alike up to rounding must not make the normal equations indefinite.
    ridge = 1.0 + (32.0 * real.eps if len(curves) > 1 else 0.0)

    def at(points: tuple[Array, ...]) -> Profile:
        """Of B grid points: rows of the curves, L arrays of shape (B,), to leaves (B, V)."""
        chosen = [column[:, row] for column, row in zip(columns, points, strict=True)]

        def entry(i: int, k: int) -> Array:
            product = _total(map(jnp.multiply, chosen[i], chosen[k]))
            return ridge * product + least if i == k else product

        information = tuple(tuple(entry(i, k) for k in amplitudes_of) for i in amplitudes_of)
        side = [_total(map(jnp.multiply, column, measured)) for column in chosen]
        amplitudes = solve_small(information, side)
        gaps = (
            _total(map(jnp.multiply, amplitudes, row)) - value
            for *row, value in zip(*chosen, measured, strict=True)
        )
        return Profile(_total(soft_l1(gap, f_scale) for gap in gaps), amplitudes, information)

    tried: Profile = _in_blocks(at, tuple(map(jnp.asarray, rows)))
    return tried


def _in_blocks(function: Callable[[Any], Any], arrays: Any) -> Any:
    """Apply a function to some grid points at a time; all leaves have these first.

    Loops over points and voxels are then long enough to run fast, and what they leave still fits
    into the cache.
    """
    n_points = len(jax.tree.leaves(arrays)[0])
    missing = -n_points % _BLOCK

    def cut(values: Array) -> Array:
        if missing:
            widths = [(0, missing)] + [(0, 0)] * (values.ndim - 1)
            values = jnp.pad(values, widths, mode="edge")
        return values.reshape(-1, _BLOCK, *values.shape[1:])

    done = jax.lax.map(function, jax.tree.map(cut, arrays))
    return jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:])[:n_points], done)


def posterior(
    tried: Profile, population: PopulationPrior, points: tuple[Array, ...], model: KineticModel
) -> Posterior:
    """What data and population prior say together.

    At a grid point, the amplitudes a have the likelihood N(â, A⁻¹) and the prior N(m, S), so the
    posterior N(â + (1 + S A)⁻¹ (m - â), (1 + S A)⁻¹ S). Integrated over them, the likelihood of the
    grid point is exp(-cost) |1 + S A|^(-1/2) exp(-½ (m - â)' A (1 + S A)⁻¹ (m - â)); it must not be
    taken at the best amplitudes, or points at which hardly any label has arrived, whose
    amplitudes fit anything, would seem as likely as those that the data speak for.

    Parameters
    ----------
    tried : Profile
        Of V voxels.
    population : PopulationPrior
        Prior of each voxel.
    points : tuple of K Array, each of shape (G,)
        Of the grid.
    model : KineticModel
        With L amplitudes.

    Returns
    -------
    Posterior
    """
    log_likelihood, means, variances = _in_blocks(
        lambda some: _integrated(some, population, model), tried
    )
    log_prior = jnp.zeros_like(log_likelihood[:, :1])
    for normal, values in zip(population.kinked, points, strict=True):
        log_prior -= 0.5 * ((values[:, None] - normal.mean) / normal.sd) ** 2
    log_prior -= jax.nn.logsumexp(log_prior, axis=0)
    log_joint = log_likelihood + log_prior
    # Over the largest in each voxel, as exponentials of costs of hundreds would all be 0.
    largest = jnp.max(log_joint, axis=0)
    weight = jnp.exp(log_joint - largest)
    total = jnp.sum(weight, axis=0)
    return Posterior(weight / total, means, variances, largest + jnp.log(total))


def _integrated(
    tried: Profile, population: PopulationPrior, model: KineticModel
) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """Log likelihood of grid points, and means and variances of the amplitudes at each."""
    typical = [p.typical for p in model.linear]
    linear = range(len(typical))
    best = [unit * values for unit, values in zip(typical, tried.amplitudes, strict=True)]
    prior = [jnp.asarray(normal.sd) ** 2 for normal in population.linear]
    precision = [
        [tried.information[i][k] / (typical[i] * typical[k]) for k in linear] for i in linear
    ]
    shrinkage = [
        [prior[i] * precision[i][k] + (1.0 if i == k else 0.0) for k in linear] for i in linear
    ]
    columns = [solve_small(shrinkage, [1.0 if i == k else 0.0 for i in linear]) for k in linear]
    gaps = [
        jnp.asarray(normal.mean) - at for normal, at in zip(population.linear, best, strict=True)
    ]
    pulls = [_total(columns[k][i] * gaps[k] for k in linear) for i in linear]
    lost = _total(gaps[i] * precision[i][k] * pulls[k] for i in linear for k in linear)
    means = [at + pull for at, pull in zip(best, pulls, strict=True)]
    variances = [columns[i][i] * prior[i] for i in linear]
    log_likelihood = -tried.cost - 0.5 * lost - 0.5 * jnp.log(determinant_small(shrinkage))
    for i, p in enumerate(model.linear):
        if p.sparse:
            means[i], variances[i], positive = _truncated(means[i], variances[i])
            log_likelihood += jnp.log(2.0 * positive)
    return log_likelihood, tuple(means), tuple(variances)


def _truncated(mean: Array, variance: Array) -> tuple[Array, Array, Array]:
    """Mean and variance of a normal distribution cut off below 0, and what lay above."""
    sd = jnp.sqrt(variance)
    cut = jnp.maximum(mean / sd, -_DEEPEST_CUT)
    above = jax.scipy.special.ndtr(cut)
    # Inverse Mills ratio; where next to nothing lies above 0, what does is exponential.
    ratio = jax.scipy.stats.norm.pdf(cut) / above
    return (
        sd * jnp.maximum(cut + ratio, 0.0),
        variance * jnp.clip(1.0 - ratio * (ratio + cut), 0.0, 1.0),
        above,
    )


def initial_noise(
    problem: Problem, options: NllsOptions = _DEFAULTS, *, n_voxels: int | None = None
) -> float:
    """Initial noise estimate, from what the best fits on the grid leave.

    Parameters
    ----------
    problem : Problem
        V voxels, of which a sample is looked at.
    options : NllsOptions
        Grid.
    n_voxels : int, optional
        As for `grid_posterior`; V unless given.

    Returns
    -------
    float
        Standard deviation of one difference image [unit of measured].
    """
    # As the noise is not known yet, misfits are taken in the unit of the signal, with neither a
    # robust loss nor priors, whose weight depends on the noise: the cost is half a sum of squares.
    scale = max(root_mean_square(problem.measured), float(np.finfo(np.float32).tiny))
    found = grid_posterior(
        with_noise(noise_sample(problem), scale),
        dataclasses.replace(options, f_scale=QUADRATIC),
        n_voxels=n_voxels or problem.n_voxels,
        prior_weight=0.0,
    )
    n_fitted = len(problem.model.linear) + len(problem.model.kinked)
    return noise_from_squares(2.0 * scale**2 * found.cost, n_fitted, problem)


def mean_values(problem: Problem) -> tuple[float, ...]:
    """Parameters that match the mean curve of the voxels of a problem.

    Parameters
    ----------
    problem : Problem
        V voxels.

    Returns
    -------
    tuple of P float
        In the units of the parameters; those that no grid searches are at their centres.
    """
    per_voxel, rest = split(problem)
    mean = join(jax.tree.map(lambda values: values.mean(axis=-1, keepdims=True), per_voxel), rest)
    mean = with_noise(mean, initial_noise(mean, n_voxels=problem.n_voxels))
    x = grid_posterior(mean, _DEFAULTS, n_voxels=problem.n_voxels).x
    return tuple(float(value) for value in values_of(x, problem.model)[:, 0])


def _grid_posterior(
    problem: Problem,
    curves: Curves,
    population: PopulationPrior,
    prior_weight: Array,
    options: NllsOptions,
) -> GridPosterior[Array]:
    grid = make_grid(problem.model, options, problem.dtype)
    points = grid.points
    tried = profile(problem, curves, grid, options.f_scale)
    probability, means, variances, log_evidence = posterior(
        tried, population, points, problem.model
    )
    mean = tuple(jnp.sum(probability * at, axis=0) for at in means)
    variance = tuple(
        jnp.sum(probability * (within + (at - whole) ** 2), axis=0)
        for at, within, whole in zip(means, variances, mean, strict=True)
    )
    return GridPosterior(
        *_least(problem, tried, points, prior_weight, options.f_scale),
        _marginals(probability, grid),
        mean,
        variance,
        log_evidence,
    )


def _marginals(probability: Array, grid: Grid) -> tuple[Array, ...]:
    """Of each kinked parameter, from those of all grid points (G, V)."""
    if len(grid.axes) == 1:
        return (probability,)
    return tuple(
        jax.ops.segment_sum(probability, index, num_segments=len(axis))
        for axis, index in zip(grid.axes, grid.which, strict=True)
    )


def _least(
    problem: Problem,
    tried: Profile,
    points: tuple[Array, ...],
    prior_weight: Array,
    f_scale: ArrayLike,
) -> tuple[Array, Array]:
    """Least cost, shape (V,), and where, (P, V).

    Where amplitudes lie beyond their bounds, the best ones within are found by coordinate descent,
    which for two is exact. What moving them adds is taken as one more residual, as if the misfits
    were normal.
    """
    model = problem.model
    linear = range(len(model.linear))
    low = [p.lower / p.typical for p in model.linear]
    high = [p.upper / p.typical for p in model.linear]
    free, information = tried.amplitudes, tried.information
    amplitudes = [jnp.clip(free[i], low[i], high[i]) for i in linear]
    if len(amplitudes) > 1:
        for _ in range(_SWEEPS):
            for i in linear:
                pull = _total(
                    information[i][k] * (free[k] - amplitudes[k]) for k in linear if k != i
                )
                amplitudes[i] = jnp.clip(free[i] + pull / information[i][i], low[i], high[i])
    moved = tuple(map(jnp.subtract, tried.amplitudes, amplitudes))
    squared = _total(moved[i] * tried.information[i][k] * moved[k] for i in linear for k in linear)
    costs = tried.cost + soft_l1(jnp.sqrt(jnp.maximum(squared, 0.0)), f_scale)
    values = dict(zip(model.names, centres_inside(problem), strict=True))
    values |= {p.name: at[:, None] for p, at in zip(model.kinked, points, strict=True)}
    values |= {p.name: p.typical * at for p, at in zip(model.linear, amplitudes, strict=True)}
    for distance in prior_residuals([values[name] for name in model.names], problem):
        costs += prior_weight * soft_l1(distance, f_scale)
    best = jnp.argmin(costs, axis=0)

    def pick(value: Array) -> Array:
        """Of each voxel at its best grid point, of (G, V), (G, 1), (V,) or ()."""
        if value.ndim < 2:
            return jnp.broadcast_to(value, best.shape)
        if value.shape[-1] == 1:
            return value[best, 0]
        return jnp.take_along_axis(value, best[None], axis=0)[0]

    x = [pick(values[p.name]) / p.scale for p in model.parameters]
    return pick(costs), jnp.stack(x)


def _total(terms: Iterable[Array]) -> Array:
    """Sum of arrays of one shape, element by element."""
    return functools.reduce(jnp.add, terms)
