"""The posterior of the fields at given hyperparameters: its mode, and draws about it.

The mode minimises, up to a constant, the negative logarithm of the posterior density,

    J(x) = sum_k w_k sum_dv rho((y_dv - M_dv(x + n_k)) / sigma_dv) + sum_p x_p' Q_p x_p / 2,

with the soft-L1 loss rho, the kinetic model M, the noise sigma (`noise`), the priors Q (`prior`)
and points n_k of weights w_k over which the kinks of the model are averaged (`_points`). Close to
it the posterior is nearly normal with precision H + Q (Laplace approximation), where H is the
Gauss-Newton approximation of the curvature of the data term: a P x P block for each voxel.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.scipy.sparse.linalg import cg
from numpy.typing import NDArray

from asl_pinn.estimators.spatial.fields import (
    FieldProblem,
    Fields,
    curves,
    totals,
    within_bounds,
)
from asl_pinn.estimators.spatial.noise import precision_root, robust_weight
from asl_pinn.estimators.spatial.options import SpatialOptions
from asl_pinn.estimators.spatial.prior import (
    RIDGE,
    Hyperparameters,
    Prior,
    priors_of,
    stated_precisions,
)
from asl_pinn.models.base import Parameter
from asl_pinn.numerics.least_squares import soft_l1_cost, solve_small

_STEPS = (1.0, 0.5, 0.25, 0.1, 0.0)
_LARGEST_STEP = 0.5  # of a field that is no amplitude: of a logarithm, a factor of 1.6
_LARGEST_SD = 0.5  # over which a kinked parameter is averaged, on the scale of its field
_CG_STEPS = 300
_CG_TOL = 1e-3  # looser, the smooth modes of the draws do not converge

# Gauss-Hermite: points and weights of a standard normal distribution.
_NODES = (-2.857, -1.356, 0.0, 1.356, 2.857)
_WEIGHTS = (0.01126, 0.22208, 0.53332, 0.22208, 0.01126)

Solve = Callable[[Fields, Fields | None], Fields]
Block = tuple[tuple[Array, ...], ...]
"""P rows of P arrays of shape (V,): a matrix for each voxel."""


class Linearisation(NamedTuple):
    """The model about the mode, at each of the K points that average over its kinks.

    Attributes
    ----------
    residual : Array, shape (K, D, V)
        Misfits in noise SDs.
    slopes : tuple of P Array, each of shape (K, D, V)
        Of the curve by each field, in noise SDs.
    weight : Array, shape (K, D, V)
        Weight of the point, times the weight that makes a square of soft-L1.
    """

    residual: Array
    slopes: tuple[Array, ...]
    weight: Array


EffectiveDof = tuple[Array, ...]
"""Effective degrees of freedom of P fields, each of shape (): how many values the data determine.

Traces of the posterior covariance times the precision of the data, tr((H + Q)^-1 H).
"""


@functools.partial(jax.jit, static_argnames="options")
def gauss_newton_step(
    options: SpatialOptions,
    known: FieldProblem,
    hyperparameters: Hyperparameters,
    mode: Fields,
    draws: Fields,
    key: Array,
) -> tuple[Fields, Fields, EffectiveDof]:
    """One Gauss-Newton step of the mode, and draws of the deviation from it.

    Parameters
    ----------
    options : SpatialOptions
        Scale, loss, number of draws S.
    known : FieldProblem
        Data and what is known beforehand.
    hyperparameters : Hyperparameters
        Of the priors and the noise.
    mode : Fields
        Now.
    draws : Fields, with a leading axis S
        Of the last round: their SD is the posterior's, and the solves start from them.
    key : Array, shape ()
        The same in every round, so that rounds differ by the hyperparameters alone.

    Returns
    -------
    mode : Fields
    draws : Fields, with a leading axis S
    effective_dof : EffectiveDof
    """
    shifts, weights = _shifts(known, draws)
    linear = _linearise(options, known, hyperparameters, mode, shifts, weights)
    priors = priors_of(options, known, hyperparameters)
    stated = stated_precisions(known, hyperparameters)
    linear = _released(known, mode, linear)
    solve = _solver(known, priors, stated, linear)
    step = solve(_descent(known, priors, stated, mode, linear), None)
    draw = functools.partial(_draw, known, priors, stated, linear, solve)
    draws, effective_dof = jax.vmap(draw)(jax.random.split(key, options.samples), draws)
    moved = _line_search(options, known, hyperparameters, mode, step, shifts, weights)
    dof = jax.tree.map(lambda values: jnp.mean(values, axis=0), effective_dof)
    return moved, draws, dof


@functools.partial(jax.jit, static_argnames="options")
def data_cost(
    options: SpatialOptions, known: FieldProblem, hyperparameters: Hyperparameters, mode: Fields
) -> Array:
    """What the data add to the cost at a mode: half the squares of the misfits, soft-L1.

    Parameters
    ----------
    options : SpatialOptions
        Scale, loss.
    known : FieldProblem
        Data and what is known beforehand.
    hyperparameters : Hyperparameters
        Of the noise.
    mode : Fields
        Where.

    Returns
    -------
    Array, shape ()
        In squares of noise SDs.
    """
    misfit = _misfit(options, known, hyperparameters, mode, *mode.fields)
    return soft_l1_cost(misfit.ravel(), options.f_scale)


def _points(kinked: tuple[bool, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (K, P) and weights (K,) of the mean over standard normal numbers, where any are.

    For one kinked parameter these are the five points of Gauss and Hermite. The product rule for N
    has 5^N; here all N move along their points together, with signs from the rows of a Hadamard
    matrix. Then each alone is averaged by the rule for one, they are uncorrelated, no weight is
    negative (which would spoil the curvature), and two cost 9 points.
    """
    if not any(kinked):
        return np.zeros((1, len(kinked))), np.ones(1)
    n_signs = 1 << (sum(kinked) - 1).bit_length()
    signs = np.zeros((n_signs, len(kinked)))
    signs[:, np.flatnonzero(kinked)] = scipy.linalg.hadamard(n_signs)[:, : sum(kinked)]
    points = np.concatenate([np.outer(_NODES, row) for row in signs]) + 0.0
    # The centre is the same for all signs.
    points, which = np.unique(points, axis=0, return_inverse=True)
    weights = np.bincount(which.ravel(), np.tile(_WEIGHTS, n_signs) / n_signs)
    return points, weights.astype(np.float64)


def _shifts(known: FieldProblem, draws: Fields) -> tuple[Array, Array]:
    """Shifts of the fields at each point, shape (K, P, V), and weights, shape (K,).

    The curve jumps in slope where a bolus arrives and where it ends, which gives the cost a
    local minimum between any two delays. So the cost is a mean over each voxel's own posterior of
    the kinked parameters, as wide as the draws are: a smooth function of its centre. This is the
    expected log-likelihood of variational Bayes (Chappell et al., IEEE Trans Signal Process
    57:223-236 (2009)), by quadrature in place of a linear model.
    """
    points, weights = _points(tuple(p.kinked and not p.linear for p in known.parameters))
    dtype = known.problem.dtype
    sds = [jnp.sqrt(jnp.mean(deviation**2, axis=0)) for deviation in totals(known, draws)]
    sd = jnp.minimum(jnp.stack(sds), _LARGEST_SD)
    return jnp.asarray(points, dtype)[:, :, None] * sd, jnp.asarray(weights, dtype)


def _misfit(
    options: SpatialOptions,
    known: FieldProblem,
    hyperparameters: Hyperparameters,
    mode: Fields,
    *fields: Array,
) -> Array:
    """Data less curve in noise SDs at fields with the coefficients of a mode, shape (D, V)."""
    problem = known.problem
    root = precision_root(hyperparameters.noise, problem.weights)
    curve = curves(options, known, mode._replace(fields=fields))
    return problem.measured * root - curve * root


def _linearise(
    options: SpatialOptions,
    known: FieldProblem,
    hyperparameters: Hyperparameters,
    mode: Fields,
    shifts: Array,
    weights: Array,
) -> Linearisation:
    misfit = functools.partial(_misfit, options, known, hyperparameters, mode)
    n_fields = len(mode.fields)

    def at(shift: Array) -> tuple[Array, tuple[Array, ...]]:
        residual, push = jax.linearize(misfit, *map(jnp.add, mode.fields, shift))
        # A voxel's curve depends on its own values alone: one tangent serves all voxels.
        slopes = [
            -push(*(jnp.full_like(field, i == k) for k, field in enumerate(mode.fields)))
            for i in range(n_fields)
        ]
        return residual, tuple(slopes)

    residual, slopes = jax.lax.map(at, shifts)
    weight = weights[:, None, None] * robust_weight(residual, options.f_scale)
    return Linearisation(residual, slopes, weight)


def _released(known: FieldProblem, mode: Fields, linear: Linearisation) -> Linearisation:
    """Without the data's hold on sparse fields at 0 that they would pull below it.

    These are the active constraints of a projected Newton step (Bertsekas, SIAM J Control Optim
    20:221-246, 1982): kept in the system, they would bend the other fields to make up for what the
    projection undoes.
    """

    def one(p: Parameter, field: Array, slope: Array) -> Array:
        if not p.sparse:
            return slope
        pull = jnp.sum(linear.weight * slope * linear.residual, axis=(0, 1))
        return jnp.where((field <= 0.0) & (pull < 0.0), 0.0, slope)

    return linear._replace(slopes=tuple(map(one, known.parameters, mode.fields, linear.slopes)))


def _pull(linear: Linearisation, weighted: Array) -> tuple[Array, ...]:
    """Adjoint of the linear model: values of shape (K, D, V) to P fields."""
    return tuple(jnp.sum(slope * weighted, axis=(0, 1)) for slope in linear.slopes)


def _to_coefficients(known: FieldProblem, pulls: tuple[Array, ...]) -> tuple[Array, ...]:
    """Adjoint of what covariates explain: P fields to P vectors of coefficients."""
    return tuple(maps @ pull for maps, pull in zip(known.covariates, pulls, strict=True))


def _descent(
    known: FieldProblem,
    priors: tuple[Prior, ...],
    stated: tuple[Array | None, ...],
    mode: Fields,
    linear: Linearisation,
) -> Fields:
    """Descent direction of the cost, before it is solved for: -dJ/dx."""
    pulls = tuple(
        pull if precision is None else pull - precision * total
        for pull, precision, total in zip(
            _pull(linear, linear.weight * linear.residual),
            stated,
            totals(known, mode),
            strict=True,
        )
    )
    along = _to_coefficients(known, pulls)
    return Fields(
        tuple(pull - prior(f) for pull, prior, f in zip(pulls, priors, mode.fields, strict=True)),
        tuple(pull - RIDGE * c for pull, c in zip(along, mode.coefficients, strict=True)),
    )


def _data_precision(stated: tuple[Array | None, ...], linear: Linearisation) -> Block:
    """H, a P x P block for each voxel: of the data, and of what a model states of single voxels.

    The normal prior of a voxel's parameter counts as one more measurement of the voxel.
    """

    def entry(i: int, k: int) -> Array:
        total = jnp.sum(linear.weight * linear.slopes[i] * linear.slopes[k], axis=(0, 1))
        prior = stated[i]
        return total if i != k or prior is None else total + prior

    size = len(linear.slopes)
    upper = {(i, k): entry(i, k) for i in range(size) for k in range(i, size)}
    return tuple(tuple(upper[min(i, k), max(i, k)] for k in range(size)) for i in range(size))


def _solver(
    known: FieldProblem,
    priors: tuple[Prior, ...],
    stated: tuple[Array | None, ...],
    linear: Linearisation,
) -> Solve:
    """Solver of (H + Q) x = b by conjugate gradients, from a guess.

    The preconditioner inverts, for each voxel, its block of H with the diagonal of Q added (block
    Jacobi), and for the coefficients their own block. So the parameters of a voxel, which the data
    couple closely, are solved together, and what is left to the iterations is smoothing. The
    inverses are taken once, as an iteration then divides by nothing.
    """
    block = _data_precision(stated, linear)
    damped = [
        [value + prior.diagonal() if i == k else value for k, value in enumerate(row)]
        for i, (row, prior) in enumerate(zip(block, priors, strict=True))
    ]
    inverse = _inverse(damped)
    inverse_grams = tuple(
        jnp.linalg.pinv((row[i] * maps) @ maps.T + RIDGE * jnp.eye(len(maps), dtype=maps.dtype))
        for i, (row, maps) in enumerate(zip(block, known.covariates, strict=True))
    )

    def product(x: Fields) -> Fields:
        pulls = _times(block, totals(known, x))
        along = _to_coefficients(known, pulls)
        return Fields(
            tuple(pull + prior(f) for pull, prior, f in zip(pulls, priors, x.fields, strict=True)),
            tuple(pull + RIDGE * c for pull, c in zip(along, x.coefficients, strict=True)),
        )

    def precondition(x: Fields) -> Fields:
        return Fields(
            _times(inverse, x.fields), tuple(map(jnp.matmul, inverse_grams, x.coefficients))
        )

    def solve(right: Fields, guess: Fields | None) -> Fields:
        found: Fields = cg(product, right, guess, tol=_CG_TOL, maxiter=_CG_STEPS, M=precondition)[0]
        return found

    return solve


def _inverse(rows: Sequence[Sequence[Array]]) -> Block:
    """Inverse of a small symmetric positive definite matrix for each voxel."""
    ones = jnp.ones_like(rows[0][0])
    return tuple(
        solve_small(rows, [ones * (i == k) for k in range(len(rows))]) for i in range(len(rows))
    )


def _times(rows: Block, vector: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(functools.reduce(jnp.add, map(jnp.multiply, row, vector)) for row in rows)


def _draw(
    known: FieldProblem,
    priors: tuple[Prior, ...],
    stated: tuple[Array | None, ...],
    linear: Linearisation,
    solve: Solve,
    key: Array,
    guess: Fields,
) -> tuple[Fields, EffectiveDof]:
    """A deviation from the mode, and the effective degrees of freedom by its own noise.

    Perturb and solve: with normal noise e on the data and e' on the priors, x = (H + Q)^-1 (J'W^1/2
    e + Q^1/2 e') has the covariance (H + Q)^-1 (H + Q) (H + Q)^-1 = (H + Q)^-1, which is the
    posterior's (Papandreou and Yuille, Gaussian sampling by local perturbations, NIPS 2010).
    Since e and e' are independent, the mean of (J'W^1/2 e)'x is tr((H + Q)^-1 H), the effective
    degrees of freedom, by the same solve (Hutchinson, Commun Stat Simul Comput 19:433-450 (1990)).
    """
    n_fields, dtype = len(priors), linear.residual.dtype
    noise_key, *keys = jax.random.split(key, 1 + 3 * n_fields)
    field_keys, coefficient_keys, stated_keys = (
        keys[i * n_fields : (i + 1) * n_fields] for i in range(3)
    )
    n_points, n_measurements, n_voxels = linear.residual.shape
    # Voxel by voxel, as results of a seed hang on the order of its numbers.
    normal = jax.random.normal(noise_key, (n_points, n_voxels, n_measurements), dtype)
    noise = jnp.sqrt(linear.weight) * jnp.swapaxes(normal, 1, 2)
    pulls = tuple(
        pull
        if precision is None
        else pull + jnp.sqrt(precision) * jax.random.normal(stated_key, pull.shape, dtype)
        for pull, precision, stated_key in zip(
            _pull(linear, noise), stated, stated_keys, strict=True
        )
    )
    right = Fields(
        tuple(
            pull + prior.draw(field_key)
            for pull, prior, field_key in zip(pulls, priors, field_keys, strict=True)
        ),
        tuple(
            along + math.sqrt(RIDGE) * jax.random.normal(coefficient_key, along.shape, dtype)
            for along, coefficient_key in zip(
                _to_coefficients(known, pulls), coefficient_keys, strict=True
            )
        ),
    )
    found = solve(right, guess)
    return found, tuple(map(jnp.vdot, pulls, found.fields))


def _line_search(
    options: SpatialOptions,
    known: FieldProblem,
    hyperparameters: Hyperparameters,
    mode: Fields,
    step: Fields,
    shifts: Array,
    weights: Array,
) -> Fields:
    """The best of the mode and points along the step, within the bounds of the model."""
    priors = priors_of(options, known, hyperparameters)
    stated_ = stated_precisions(known, hyperparameters)
    steps = tuple(
        along if p.linear else jnp.clip(along, -_LARGEST_STEP, _LARGEST_STEP)
        for p, along in zip(known.parameters, step.fields, strict=True)
    )

    def moved(size: Array) -> Fields:
        aim = jax.tree.map(lambda x, along: x + size * along, mode, step._replace(fields=steps))
        return within_bounds(options, known, aim)

    def cost(fields: Fields) -> Array:
        def loss(shift: Array) -> Array:
            shifted = map(jnp.add, fields.fields, shift)
            misfit = _misfit(options, known, hyperparameters, fields, *shifted)
            return soft_l1_cost(misfit.ravel(), options.f_scale)

        rough = sum(jnp.vdot(f, prior(f)) for f, prior in zip(fields.fields, priors, strict=True))
        ridge = RIDGE * sum(jnp.vdot(c, c) for c in fields.coefficients)
        stated = sum(
            jnp.vdot(total, precision * total)
            for total, precision in zip(totals(known, fields), stated_, strict=True)
            if precision is not None
        )
        return weights @ jax.lax.map(loss, shifts) + 0.5 * (rough + ridge + stated)

    sizes = jnp.asarray(_STEPS, known.problem.dtype)
    return moved(sizes[jnp.argmin(jax.lax.map(lambda size: cost(moved(size)), sizes))])
