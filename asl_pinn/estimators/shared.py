"""Parameters that all voxels of a brain share, such as the dispersion of the bolus.

One voxel tells little of them, thousands tell them well. So they are settled first, from a sample
of the voxels whose own parameters are integrated over, and held while the voxels are fitted.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.base import Estimate
from asl_pinn.estimators.voxelwise.grid import initial_noise
from asl_pinn.estimators.voxelwise.objective import (
    centres_inside,
    n_determined,
    root_mean_square,
    with_noise,
)
from asl_pinn.models.adjust import fix
from asl_pinn.models.base import KineticModel, Parameter, Timing
from asl_pinn.numerics.descent import descend
from asl_pinn.numerics.least_squares import determinant_small, solve_small
from asl_pinn.problem import Problem, take

_LOG = logging.getLogger(__name__)

# Calibration of the search; the SDs, which are those of the sample, tell whether it is enough.
_SAMPLE = {1: 256, 2: 128}  # voxels, by the number of kinked parameters
# Values of each kinked parameter, likewise. Steps longer than the data resolve look like
# dispersion: with 48 values of ATT, 0.05 s come out as 0.08 s at tSNR 10, with 128 as 0.06 s.
_GRID = {1: 96, 2: 36}
_STARTS = {1: 6, 2: 3}  # values of each shared parameter
# Signal over noise that the grid resolves; quieter data are taken for as noisy as that.
_RESOLVED = {1: 12.0, 2: 4.0}
_LEAST_LOG_NOISE = -0.2
_MOST_STEPS = 40  # of the distributions over the voxels
# What a step of theirs gains, in the log probability, that counts as nothing; at first values.
_SETTLED, _COARSE = 0.003, 0.1
_MOST = 40  # values that are tried by the search
_CLOSE, _LEVEL = 0.02, 0.05  # end of it: over the scale of a parameter, in the log probability

# A twentieth of the voxels, whatever their misfit, may be described by noise of three times the SD:
# vessels and motion, which no kernel describes, must not choose the kernel of a brain.
_OUTLIERS, _OUTLIER_FACTOR = 0.05, 3.0

_PRESENT = 0.1  # part of the voxels that have a sparse amplitude, to begin with
# How widely voxels are distributed, before the data are asked: SDs of a third of the typical value,
# within a factor of 1.6. Else, in much noise, dispersion would pass for a distribution of times.
_SPREAD, _SPREAD_SD = 0.33, 0.5
_UNTOLD = 0.9  # of the prior's SD: where the data leave more, they add nothing to the prior
_FLAT = 0.1  # curvature over the range of a parameter below which there is none
_FILLED = 32  # grid points at a time
_FARTHEST = 2.0  # from where they begin, for means, logarithms, slopes and logits
_STEEPEST = 3.0  # logarithm beyond which a slope ends, as rounding would


class Shared(NamedTuple):
    """What the voxels of a brain share.

    Attributes
    ----------
    values : dict of str to float
        Each shared parameter, in its unit.
    sds : dict of str to float
        Their standard deviations in the same units.
    notes : tuple of str
        A sentence where the data do not tell one.
    """

    values: dict[str, float]
    sds: dict[str, float]
    notes: tuple[str, ...] = ()


class _Normal(NamedTuple):
    """Normal distribution of a parameter over the voxels."""

    mean: Any
    log_sd: Any


class _Unknown(NamedTuple):
    """What is not known of the voxels of a brain, besides what they share.

    Attributes
    ----------
    voxels : dict of str to _Normal
        Of amplitudes over their typical values, and of kinked parameters.
    slopes : dict of str to dict of str to Array
        By amplitude and kinked parameter, how the logarithm of the amplitude's mean and SD changes
        with the parameter.
    log_noise : Array
        Logarithm of the noise over its initial estimate.
    present : Array or None
        Logit of the part of the voxels that have the sparse amplitudes; None without any.
    """

    voxels: dict[str, _Normal]
    slopes: dict[str, dict[str, Any]]
    log_noise: Any
    present: Any


class _Sufficient(NamedTuple):
    """What the data of V voxels say of L amplitudes, whose curves are X, at G points of a grid.

    Attributes
    ----------
    products : list of L lists of L Array, each of shape (G, V)
        X'X, in units of the noise.
    sides : list of L Array, each of shape (G, V)
        X'y.
    square : Array, shape (V,)
        y'y.
    """

    products: list[list[Array]]
    sides: list[Array]
    square: Array


class _Combinations(NamedTuple):
    """G combinations of values of K kinked parameters.

    Attributes
    ----------
    which : tuple of K ndarray of int, each of shape (G,)
        Value of each.
    flat : ndarray of int, shape (G,)
        The same in one number.
    inside : ndarray of bool, shape (G,)
        False for those that fill up.
    """

    which: tuple[Any, ...]
    flat: Any
    inside: Any


def settle_shared(problem: Problem) -> Shared:
    """Settle the parameters that all voxels share, by empirical Bayes.

    What is maximised is the probability of the data of a sample of the voxels, amplitudes and
    kinked parameters integrated over (the amplitudes in closed form, as the signal is nearly
    linear in them), times the priors of the shared parameters. The distributions of the voxels'
    own parameters and the noise are found at the same time; other parameters are at their
    centres. Standard deviations are from the curvature at the maximum (Laplace), all else free.

    Parameters
    ----------
    problem : Problem
        Of V voxels.

    Returns
    -------
    Shared
        Empty where the model shares nothing. A parameter that the data do not tell is at its prior,
        or, without one, at its typical value with the SD of its range, and a note says so.

    References
    ----------
    MacKay, Neural Comput 4:415-447 (1992), for the evidence.
    """
    model = problem.model
    shared = [p for p in model.parameters if p.shared]
    if not shared:
        return Shared({}, {})
    centres = {
        p.name: float(np.mean(np.asarray(centre)))
        for p, centre in zip(model.parameters, centres_inside(problem), strict=True)
        if p.shared
    }
    known = dataclasses.replace(problem, model=fix(model, **centres))
    if problem.n_measurements <= n_determined(known.model):
        return _judged(shared, centres, centres, {p.name: np.inf for p in shared})
    resolved = root_mean_square(known.measured) / _RESOLVED[_axes(known.model)]
    known = with_noise(known, max(initial_noise(known), resolved))
    sample = take(known, slice(None, None, -(-known.n_voxels // _SAMPLE[_axes(known.model)])))
    found, sds = _maximum(sample, model, centres)
    return _judged(shared, centres, found, sds)


def hold_shared(problem: Problem, shared: Shared) -> Problem:
    """A problem whose shared parameters are held at what was settled.

    Parameters
    ----------
    problem : Problem
        Whose model has them.
    shared : Shared
        From `settle_shared`.

    Returns
    -------
    Problem
    """
    return dataclasses.replace(problem, model=fix(problem.model, **shared.values))


def put_back(found: Estimate, model: KineticModel, shared: Shared, seed: int) -> Estimate:
    """An estimate with the parameters that were held, as constants with their SDs.

    Parameters
    ----------
    found : Estimate
        Of the other parameters, in order.
    model : KineticModel
        With all parameters.
    shared : Shared
        From `settle_shared`.
    seed : int
        Of the draws of shared parameters, where the estimate has draws.

    Returns
    -------
    Estimate
        That of the argument where nothing is shared. Draws are of all voxels alike.
    """
    if not shared.values:
        return found

    def with_rows(rows: Any, constants: Mapping[str, ArrayLike]) -> Any:
        """Rows of all parameters, shape (..., P, V), from those of the others."""
        shape = (*rows.shape[:-2], rows.shape[-1])
        others = iter(np.moveaxis(np.asarray(rows), -2, 0))
        return np.stack(
            [
                np.broadcast_to(np.asarray(constants[name], rows.dtype), shape)
                if name in constants
                else next(others)
                for name in model.names
            ],
            axis=-2,
        )

    samples = found.samples
    if samples is not None:
        normal = np.random.default_rng(seed).standard_normal((len(shared.values), len(samples), 1))
        drawn = {
            name: np.clip(value + shared.sds[name] * row, model[name].lower, model[name].upper)
            for (name, value), row in zip(shared.values.items(), normal, strict=True)
        }
        samples = with_rows(samples, drawn)
    return found._replace(
        values=with_rows(found.values, shared.values),
        sd=None if found.sd is None else with_rows(found.sd, shared.sds),
        samples=samples,
    )


def _width(p: Parameter) -> float:
    """SD of what is known of a parameter beforehand."""
    return float((p.upper - p.lower) / np.sqrt(12.0) if p.prior is None else p.prior.sd)


def _judged(
    shared: list[Parameter],
    centres: dict[str, float],
    found: dict[str, float],
    sds: dict[str, float],
) -> Shared:
    """What was found where the data tell it, and else what is known beforehand."""
    values, kept, notes = {}, {}, []
    for p in shared:
        told = np.isfinite(found[p.name]) and sds[p.name] < _UNTOLD * _width(p)
        values[p.name] = found[p.name] if told else centres[p.name]
        kept[p.name] = sds[p.name] if told else _width(p)
        said = f"{values[p.name]:.3g} +- {kept[p.name]:.2g} {p.unit}".removesuffix(" 1")
        _LOG.info("%s of all voxels: %s", p.symbol, said)
        if not told:
            source = "its typical value" if p.prior is None else "the mean of its prior"
            notes.append(f"the data do not tell {p.symbol}: it is held at {source}, {said}")
    return Shared(values, kept, tuple(notes))


def _maximum(
    sample: Problem, model: KineticModel, centres: dict[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Values and standard deviations where the data of a sample are likeliest.

    The distributions of the voxels' own parameters are renewed at each value that is tried, from
    the likeliest so far; the curves, which take longest, are computed once for all of them.
    """
    shared = [model[name] for name in centres]
    scale = np.array([p.scale for p in shared])
    bounds = np.array([(p.lower, p.upper) for p in shared]) / scale[:, None]
    first, combinations = _first(sample), _combinations(sample.model)
    flat, unravel = ravel_pytree(first)
    start: FloatArray = np.asarray(flat, np.float64)
    box = np.stack([start - _FARTHEST, start + _FARTHEST])
    box[0, int(unravel(jnp.arange(len(start), dtype=sample.dtype)).log_noise)] = _LEAST_LOG_NOISE
    curvature: FloatArray | None = None  # inverse of it, which changes little from value to value
    tried: list[tuple[FloatArray, FloatArray, float]] = []

    def in_units(x: FloatArray) -> dict[str, float]:
        return {  # rounded into the bounds
            p.name: min(max(float(value), p.lower), p.upper)
            for p, value in zip(shared, scale * x, strict=True)
        }

    def cost(x: FloatArray) -> float:
        nonlocal curvature
        values = in_units(x)
        told = _sufficient(dataclasses.replace(sample, model=fix(model, **values)), combinations)

        def of_unknown(y: FloatArray) -> tuple[float, FloatArray]:
            value, slope = _surprise(sample, told, combinations, first, np.asarray(y, sample.dtype))
            return float(value), np.asarray(slope, np.float64)

        if curvature is None:
            least, at, curvature = descend(
                of_unknown, start, None, box, tolerance=_SETTLED, most=_MOST_STEPS
            )
        else:
            nearest = min(tried, key=lambda other: float(np.linalg.norm(other[0] - x)))
            likeliest = min(tried, key=lambda other: other[2])
            coarse = len(tried) < len(starts)
            begins = [nearest[1]] if coarse or likeliest is nearest else [nearest[1], likeliest[1]]
            least, at, curvature = min(
                (
                    descend(
                        of_unknown,
                        begin,
                        curvature,
                        box,
                        tolerance=_COARSE if coarse else _SETTLED,
                        most=_MOST_STEPS,
                    )
                    for begin in begins
                ),
                key=lambda end: end[0],
            )
        distances = (
            (values[p.name] - centres[p.name]) / p.prior.sd for p in shared if p.prior is not None
        )
        total = least + 0.5 * sum(distance**2 for distance in distances)
        tried.append((x, at, total))
        return total

    count = _STARTS[min(len(shared), 2)]
    ways = [low + (high - low) * (np.arange(count) + 0.5) / count for low, high in bounds]
    centre = np.array([centres[p.name] for p in shared]) / scale
    starts = [centre, *np.stack(np.meshgrid(*ways), axis=-1).reshape(-1, len(shared))]
    starts.sort(key=lambda x: float(np.linalg.norm(x - centre)))
    best = starts[int(np.argmin([cost(x) for x in starts]))]
    if len(shared) == 1:
        found = _along(cost, best, starts, bounds)
    else:
        widths = np.array([_width(p) for p in shared]) / scale
        steps = np.diag(0.5 * np.minimum((bounds[:, 1] - bounds[:, 0]) / count, widths))
        simplex = np.stack([best, *(best + np.where(best + steps <= bounds[:, 1], steps, -steps))])
        found = scipy.optimize.minimize(
            cost,
            best,
            method="Nelder-Mead",
            bounds=bounds,
            options={"initial_simplex": simplex, "xatol": _CLOSE, "fatol": _LEVEL, "maxfev": _MOST},
        ).x
    sds = np.sqrt(np.diag(_covariance(cost, found, bounds)))
    return (
        in_units(found),
        dict(zip(centres, (scale * sds).tolist(), strict=True)),
    )


def _along(
    cost: Callable[[FloatArray], float],
    best: FloatArray,
    starts: list[FloatArray],
    bounds: FloatArray,
) -> FloatArray:
    """Minimum of the cost of one value, between the neighbours of the best start."""
    [low], [high] = bounds.T
    others = [low, high, *(float(x[0]) for x in starts if x[0] != best[0])]
    found = scipy.optimize.minimize_scalar(
        lambda value: cost(np.array([value])),
        bounds=(
            max(value for value in others if value <= best[0]),
            min(value for value in others if value >= best[0]),
        ),
        method="bounded",
        options={"xatol": _CLOSE, "maxiter": _MOST},
    )
    return np.array([found.x])


def _covariance(
    cost: Callable[[FloatArray], float], x: FloatArray, bounds: FloatArray
) -> FloatArray:
    """Inverse of the curvature of the cost at its minimum.

    At a bound, the probability falls as exp(-g x - h x²/2): g² adds to the curvature there.
    """
    span = bounds[:, 1] - bounds[:, 0]

    def curved(step: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Differences along each axis, and the centre that they are about."""
        centre = np.clip(x, bounds[:, 0] + step, bounds[:, 1] - step)
        below, above = (
            np.array([cost(centre + sign * shift) for shift in np.diag(step)])
            for sign in (-1.0, 1.0)
        )
        slope = (above - below) / (2.0 * step)
        return (above - 2.0 * cost(centre) + below) / step**2 + slope**2, centre

    first, _ = curved(0.05 * span)
    step = 1.0 / np.sqrt(np.maximum(first, 16.0 / span**2))  # of about one standard deviation
    curvature, centre = curved(step)
    information = np.diag(curvature)
    for i, k in zip(*np.triu_indices(len(x), 1), strict=True):
        ends = [
            a
            * b
            * cost(centre + step * (a * (np.arange(len(x)) == i) + b * (np.arange(len(x)) == k)))
            for a in (-1.0, 1.0)
            for b in (-1.0, 1.0)
        ]
        information[i, k] = information[k, i] = sum(ends) / (4.0 * step[i] * step[k])
    values, vectors = np.linalg.eigh(information * np.outer(span, span))
    return (vectors / np.maximum(values, _FLAT)) @ vectors.T * np.outer(span, span)


def _first(sample: Problem) -> _Unknown:
    """Where the search begins: wide distributions about typical values."""
    model, dtype = sample.model, sample.dtype

    def number(value: float) -> Array:
        return jnp.asarray(value, dtype)

    voxels = {p.name: _Normal(number(1.0), number(0.0)) for p in model.linear}
    centres = dict(zip(model.names, centres_inside(sample), strict=True))
    for p in model.kinked:
        sd = min(0.25 * (p.upper - p.lower), np.inf if p.prior is None else p.prior.sd)
        mean = float(np.mean(np.asarray(centres[p.name])))
        voxels[p.name] = _Normal(number(mean), number(np.log(sd)))
    slopes = {p.name: {other.name: number(0.0) for other in model.kinked} for p in model.linear}
    logit = float(np.log(_PRESENT / (1.0 - _PRESENT)))
    present = number(logit) if any(p.sparse for p in model.linear) else None
    return _Unknown(voxels, slopes, number(0.0), present)


def _combinations(model: KineticModel) -> _Combinations:
    """Those that the parameters allow, filled up to a number that other bounds have too."""
    kinked = model.kinked
    axes = [np.asarray(axis).ravel() for axis in _grid(model, np.dtype(np.float32))]
    counts = tuple(map(len, axes))
    which = np.indices(counts).reshape(len(axes), int(np.prod(counts)))
    allowed = np.ones(which.shape[1], bool)
    values = {p.name: axis[row] for p, axis, row in zip(kinked, axes, which, strict=True)}
    for p in kinked:
        if p.follows in values:
            allowed &= values[p.name] <= values[p.follows]
    index = np.flatnonzero(allowed)
    filled = np.pad(index, (0, -len(index) % _FILLED), mode="edge")
    inside = np.arange(len(filled)) < len(index)
    return _Combinations(tuple(which[:, filled]), filled, inside)


@jax.jit
def _sufficient(problem: Problem, combinations: _Combinations) -> _Sufficient:
    """What the data say of the amplitudes at each point of the grid.

    Each kinked parameter has an axis of its own, so that a curve of one of them is not computed
    for all values of the others.
    """
    grid = _grid(problem.model, problem.dtype)
    t, label_duration, readout_delay = problem.timing
    column = (-1, *[1] * len(grid), 1)
    timing = Timing(jnp.reshape(t, column), jnp.reshape(label_duration, column), readout_delay)
    centres = dict(zip(problem.model.names, centres_inside(problem), strict=True))
    held = [centres[p.name] for p in problem.model.smooth]
    rows = problem.model.basis(held, timing, problem.tissue, problem.blood)(*grid)
    roots = jnp.reshape(jnp.sqrt(problem.weights) / problem.noise_sd, column)
    curves = [roots * row for row in rows]
    measured = roots * jnp.expand_dims(problem.measured, tuple(range(1, len(grid) + 1)))

    def at_points(sums: Array) -> Array:
        """Of each combination, from those of the axes that they depend on."""
        *axes, n_voxels = sums.shape
        index = jnp.zeros(len(combinations.inside), int)
        for row, size in zip(combinations.which, axes, strict=True):
            index = size * index + jnp.minimum(row, size - 1)
        return sums.reshape(-1, n_voxels)[index]

    return _Sufficient(
        [[at_points(jnp.sum(one * other, axis=0)) for other in curves] for one in curves],
        [at_points(jnp.sum(curve * measured, axis=0)) for curve in curves],
        jnp.sum(measured**2, axis=0).ravel(),
    )


@jax.jit
def _surprise(
    problem: Problem, told: _Sufficient, combinations: _Combinations, first: _Unknown, state: Array
) -> tuple[Array, Array]:
    """Minus the log probability of all voxels and of their distributions, and its slope.

    The state is an `_Unknown` as one array; the first one has its structure.
    """
    _, unravel = ravel_pytree(first)

    def of_state(state: Array) -> Array:
        unknown = unravel(state)
        distances = jax.tree.leaves(unknown.slopes)
        for p in (*problem.model.linear, *problem.model.kinked):
            usual = np.log(_SPREAD * (1.0 if p.linear else p.typical))
            distances.append((unknown.voxels[p.name].log_sd - usual) / _SPREAD_SD)
        evidence = _log_evidence(problem, told, combinations, unknown)
        return 0.5 * sum(distance**2 for distance in distances) - jnp.sum(evidence)

    return jax.value_and_grad(of_state)(state)


def _log_evidence(
    problem: Problem, told: _Sufficient, combinations: _Combinations, unknown: _Unknown
) -> Array:
    """Logarithm of the probability of the data of each voxel, shape (V,).

    With curves X of the amplitudes a ~ N(m, S) and misfits r = y - X m in units of the noise, and
    A = X'X, the amplitudes integrate to exp(-½ (r'r - r'X (S⁻¹ + A)⁻¹ X'r)) |1 + S A|^(-1/2). The
    kinked parameters are summed over the grid.
    """
    model, which = problem.model, combinations.which
    grid = _grid(model, problem.dtype)
    n_points = len(combinations.inside)
    at = {p.name: grid[k].ravel()[which[k]] for k, p in enumerate(model.kinked)}
    log_prior = _log_prior(model, grid, unknown.voxels).ravel()[combinations.flat]
    log_prior = jnp.where(combinations.inside, log_prior, -np.inf)
    every = list(range(len(model.linear)))
    dense = [i for i in every if not model.linear[i].sparse]
    means, sds = [], []
    for p in model.linear:
        # M0 exp(-ATT/T1b) CBF stays the same where T1b changes and CBF with it, exponentially in
        # ATT: were amplitudes independent of the times, it would seem as if the data told T1b.
        along = [
            slope * (at[name] - unknown.voxels[name].mean)
            for name, slope in unknown.slopes[p.name].items()
        ]
        total = sum(along, jnp.zeros(n_points, problem.dtype))
        growth = jnp.exp(jnp.clip(total, -_STEEPEST, _STEEPEST))
        means.append(unknown.voxels[p.name].mean * growth)
        sds.append(jnp.exp(unknown.voxels[p.name].log_sd) * growth)
    # A few voxels may have more noise than the others.
    log_noise = jnp.stack([unknown.log_noise, unknown.log_noise + np.log(_OUTLIER_FACTOR)])
    log_noise = log_noise[:, None, None]

    def of_points(some: Any) -> Array:
        """Of some grid points with either noise, shape (2, B, V)."""
        products, sides, means, sds, log_prior = some
        # Curves, measurements and r are over the initial noise; S, over the noise, holds the rest.
        relative = [jnp.exp(-log_noise) * sd[:, None] for sd in sds]

        def of_amplitudes(chosen: list[int]) -> Array:
            left = [
                sides[i] - sum(products[i][k] * means[k][:, None] for k in chosen) for i in chosen
            ]
            misfit = told.square - sum(
                means[i][:, None] * (sides[i] + rest) for i, rest in zip(chosen, left, strict=True)
            )
            shrunk = [
                [relative[i] * products[i][k] * relative[k] + float(i == k) for k in chosen]
                for i in chosen
            ]
            pull = [relative[i] * rest for i, rest in zip(chosen, left, strict=True)]
            explained = sum(map(jnp.multiply, pull, solve_small(shrunk, pull)))
            power = jnp.exp(-2.0 * log_noise) * (misfit - explained)
            return -0.5 * (power + jnp.log(determinant_small(shrunk)))

        points = of_amplitudes(every)
        if unknown.present is not None:
            points = jnp.logaddexp(
                jax.nn.log_sigmoid(unknown.present) + points,
                jax.nn.log_sigmoid(-unknown.present) + of_amplitudes(dense),
            )
        return points + log_prior[:, None]

    some = jax.tree.map(
        lambda values: values.reshape(-1, _FILLED, *values.shape[1:]),
        (told.products, told.sides, means, sds, log_prior),
    )
    # What a block leaves for the slope is computed again, which takes less time than memory does.
    points = jax.lax.map(jax.checkpoint(of_points), some)
    usual, outlying = logsumexp(points, axis=(0, 2)) - problem.n_measurements * log_noise[:, 0]
    return jnp.logaddexp(np.log1p(-_OUTLIERS) + usual, np.log(_OUTLIERS) + outlying)


def _axes(model: KineticModel) -> int:
    """Number of axes of the grid that settings are made for."""
    return min(max(len(model.kinked), 1), 2)


def _grid(model: KineticModel, dtype: Any) -> list[Array]:
    """Values of each of K kinked parameters, of shape (1, .., G, .., 1, 1): one axis each."""
    kinked = model.kinked
    count = _GRID[_axes(model)]
    return [
        jnp.linspace(p.lower, _latest(p), count, dtype=dtype).reshape(
            *[-1 if i == k else 1 for i in range(len(kinked))], 1
        )
        for k, p in enumerate(kinked)
    ]


def _latest(p: Parameter) -> ArrayLike:
    """Last value on the grid: two SDs beyond the mean, if there is a prior, and within bounds."""
    if p.prior is None or p.prior.mean is None:
        return p.upper
    return jnp.minimum(p.upper, p.prior.mean + 2.0 * p.prior.sd)


def _log_prior(model: KineticModel, grid: list[Array], voxels: Mapping[str, _Normal]) -> Array:
    """Logarithm of the probability of each grid point, of the grid's shape."""
    kinked, total = model.kinked, jnp.zeros((), float)
    at = dict(zip((p.name for p in kinked), grid, strict=True))
    for axis, p in enumerate(kinked):
        mean, log_sd = voxels[p.name]
        log_density = -0.5 * ((at[p.name] - mean) * jnp.exp(-log_sd)) ** 2
        if p.follows in at:
            log_density = jnp.where(at[p.name] <= at[p.follows], log_density, -np.inf)
        total += log_density - logsumexp(log_density, axis=axis, keepdims=True)
    return total
