"""Bounded, robust non-linear least squares for many small problems side by side.

Everything is written out over the few parameters (tuples of long arrays, unrolled loops), so that
XLA fuses a step of all problems into few loops over them; batched matrices of 2 x 2 do not.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

SolverName = Literal["dogleg", "lm"]
Residual = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """When a solve ends, and where its loss turns linear.

    Attributes
    ----------
    xtol : float
        Largest change of a parameter, in its own unit, below which a rejected step is the last.
    ftol : float
        Relative reduction of the cost that counts as none.
    max_steps : int
        Steps, accepted or not, before a solve is given up.
    f_scale : float
        Residual at which the soft-L1 loss turns from quadratic to linear, as SciPy names it.
    """

    xtol: ArrayLike = 1e-4
    ftol: ArrayLike = 1e-6
    max_steps: ArrayLike = 50
    f_scale: ArrayLike = 1.0


class Solution(NamedTuple):
    """End of the solves of problems with P parameters each, laid out in a shape S.

    Attributes
    ----------
    x : Array, shape (P, *S)
        Parameters.
    cost : Array, shape S
        Half the sum of the soft-L1 losses, as SciPy's `least_squares` defines it.
    squares : Array, shape S
        Sum of the squared residuals.
    hessian : Array, shape (P, P, *S)
        Gauss-Newton approximation at `x`, the curvature of the loss included.
    n_steps : Array, shape S
        Steps that were tried.
    converged : Array of bool, shape S
        Whether a tolerance was met.
    at_kink : Array of bool, shape S
        Whether that was by steps too small, as at a kink of the cost, and not by a flat cost.
    trust : Array, shape S
        How far the solver trusts its model at the end, to go on from there.
    """

    x: Array
    cost: Array
    squares: Array
    hessian: Array
    n_steps: Array
    converged: Array
    at_kink: Array
    trust: Array


Vector = tuple[Array, ...]
"""P arrays of shape S: long ones, which run faster than one array whose last axis is as short as
P."""


class LocalModel(NamedTuple):
    """Quadratic model of the cost about a point: value, gradient and rows of the Hessian.

    Beside it, the sum of the squared residuals.
    """

    cost: Array
    squares: Array
    gradient: Vector
    hessian: tuple[Vector, ...]


class _State(NamedTuple):
    """Where the solves stand, each leaf of shape S."""

    x: Vector
    model: LocalModel
    trust: Array
    n_steps: Array
    flat: Array
    at_kink: Array


class Solver(NamedTuple):
    """A way to choose and to regulate steps.

    Attributes
    ----------
    trust : float
        How far to trust the model at the start.
    propose : callable
        (model, lower, upper, trust) -> step, with bounds relative to the current point.
    regulate : callable
        (trust, ratio, length) -> trust, the ratio being actual over predicted reduction and
        the length the largest change of a parameter.
    """

    trust: float
    propose: Callable[[LocalModel, Vector, Vector, Array], Vector]
    regulate: Callable[[Array, Array, Array], Array]


def soft_l1(residual: Array, scale: ArrayLike) -> Array:
    """Half the soft-L1 loss of each residual, scale^2 * (sqrt(1 + (r/scale)^2) - 1).

    Parameters
    ----------
    residual : Array, shape (...)
        Residuals.
    scale : array_like, shape ()
        Residual at which the loss turns from quadratic to linear.

    Returns
    -------
    Array, shape (...)
    """
    squared = (residual * (1.0 / jnp.asarray(scale))) ** 2
    return squared / (jnp.sqrt(1.0 + squared) + 1.0) * scale**2


def soft_l1_cost(residual: Array, scale: ArrayLike) -> Array:
    """Half the sum of soft-L1 losses.

    Parameters
    ----------
    residual : Array, shape (R, ...)
        Residuals.
    scale : array_like, shape ()
        As in `soft_l1`.

    Returns
    -------
    Array, shape (...)
    """
    return jnp.sum(soft_l1(residual, scale), axis=0)


def solve(
    residual: Residual,
    start: Array,
    lower: Array,
    upper: Array,
    tolerances: Tolerances,
    solver: SolverName = "dogleg",
    trust: ArrayLike | None = None,
) -> Solution:
    """Minimise soft-L1 costs inside a box, each problem of a batch by itself.

    The problems of a batch are laid out in a shape S, which may be (); short axes lead and the
    long ones of S trail, as that is the order in which the arithmetic vectorises.

    Parameters
    ----------
    residual : callable
        Parameters of shape (P, *S) to residuals of shape (R, *S), differentiable; those of a
        problem depend on its own parameters alone.
    start : Array, shape (P, *S)
        Starting points, inside the bounds; parameters should be of order one.
    lower, upper : Array, shape (P,) or (P, *S)
        Bounds.
    tolerances : Tolerances
        When to stop, and the scale of the loss.
    solver : {'dogleg', 'lm'}
        Powell's dogleg in a rectangular trust region, or Levenberg-Marquardt with
        Marquardt's scaling and projection on the bounds.
    trust : array_like, shape S, optional
        From an earlier solve that ran out of steps; else the solver's own beginning.

    Returns
    -------
    Solution

    References
    ----------
    Powell, in Numerical Methods for Nonlinear Algebraic Equations (1970); Voglis and
    Lagaris, WSEAS Conf Appl Math (2004); Marquardt, J SIAM 11:431-441 (1963); Triggs et
    al., Vision Algorithms: Theory and Practice, 298-372 (2000), for the robust loss.
    """
    rule = SOLVERS[solver]
    shape = start.shape[1:]
    trust = jnp.broadcast_to(
        jnp.asarray(rule.trust if trust is None else trust, start.dtype), shape
    )
    low, high = tuple(lower), tuple(upper)
    tiny = jnp.finfo(start.dtype).tiny

    def active(state: _State) -> Array:
        return (state.n_steps < tolerances.max_steps) & ~state.flat & ~state.at_kink

    def advance(state: _State) -> _State:
        x, model, trust = state.x, state.model, state.trust
        fresh = jnp.isinf(model.cost)  # the first pass, which evaluates the start; see below
        local = _restrict(model, x, low, high)
        room = tuple(map(jnp.subtract, low, x)), tuple(map(jnp.subtract, high, x))
        aim = map(jnp.add, x, rule.propose(local, *room, trust))
        reached = tuple(map(jnp.clip, aim, low, high))
        step = tuple(map(jnp.subtract, reached, x))
        predicted = -(_dot(local.gradient, step) + 0.5 * _dot(step, _times(local.hessian, step)))
        candidate = _linearise(residual, reached, tolerances.f_scale)
        actual = model.cost - candidate.cost
        working = active(state)
        accepted = (actual > 0.0) & working
        length = _largest(step)
        # How well the model foretold the reduction tells how far to trust it (Powell 1970).
        regulated = rule.regulate(trust, actual / jnp.maximum(predicted, tiny), length)
        regulated = jnp.where(fresh, trust, regulated)
        negligible = tolerances.ftol * model.cost
        flat = (jnp.abs(actual) <= negligible) & (predicted <= negligible) & ~fresh
        # At a kink of the cost no smooth model foretells a reduction: steps are rejected and the
        # region shrinks until xtol. A tiny step that is accepted may have crossed the kink,
        # beyond which it goes on.
        at_kink = (length <= tolerances.xtol) & ~accepted & ~flat
        x, model = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old), (reached, candidate), (x, model)
        )
        return _State(
            x,
            model,
            jnp.where(working, regulated, trust),
            state.n_steps + working,
            jnp.where(working, flat, state.flat),
            jnp.where(working, at_kink, state.at_kink),
        )

    # The start is met as a step of no length from an infinite cost: one copy of the residuals
    # compiles faster than two.
    zero, no = jnp.zeros(shape, start.dtype), jnp.zeros(shape, bool)
    zeros = (zero,) * len(start)
    nothing = LocalModel(jnp.full_like(zero, jnp.inf), zero, zeros, (zeros,) * len(start))
    state = _State(tuple(start), nothing, trust, jnp.full(shape, -1, jnp.int32), no, no)
    end = jax.lax.while_loop(lambda state: active(state).any(), advance, state)
    hessian = jnp.stack([jnp.stack(row) for row in end.model.hessian])
    converged = end.flat | end.at_kink
    return Solution(
        jnp.stack(end.x),
        end.model.cost,
        end.model.squares,
        hessian,
        end.n_steps,
        converged,
        end.at_kink,
        end.trust,
    )


def solve_small(
    rows: Sequence[Sequence[Array]] | Array, side: Sequence[ArrayLike] | Array
) -> Vector:
    """Solve a small symmetric positive definite system by unrolled elimination.

    Parameters
    ----------
    rows : sequence of P sequences of P scalars
        The matrix, positive definite, or one that scaling of rows and columns makes so: then no
        pivoting is needed.
    side : sequence of P arrays
        Right-hand side.

    Returns
    -------
    tuple of P arrays
    """
    rows, side = _eliminate(rows, side)
    size = len(side)
    solution = list(side)
    for i in reversed(range(size)):
        known = sum((rows[i][k] * solution[k] for k in range(i + 1, size)), 0.0)
        solution[i] = (side[i] - known) / rows[i][i]
    return tuple(solution)


def determinant_small(rows: Sequence[Sequence[Array]] | Array) -> Array:
    """Determinant of a small matrix as `solve_small` takes it.

    Parameters
    ----------
    rows : sequence of P sequences of P scalars
        The matrix.

    Returns
    -------
    Array, of the shape of an entry
        The product of the pivots.
    """
    rows, _ = _eliminate(rows, [0.0] * len(rows))
    return functools.reduce(jnp.multiply, (row[i] for i, row in enumerate(rows)))


def _eliminate(
    rows: Sequence[Sequence[Array]] | Array, side: Sequence[ArrayLike] | Array
) -> tuple[list[list[Any]], list[Any]]:
    """Gaussian elimination: the matrix made upper triangular, and the side that goes with it."""
    upper: list[list[Any]] = [list(row) for row in rows]
    changed: list[Any] = list(side)
    size = len(changed)
    for i in range(size):
        for k in range(i + 1, size):
            factor = upper[k][i] / upper[i][i]
            upper[k] = [low - factor * high for low, high in zip(upper[k], upper[i], strict=True)]
            changed[k] = changed[k] - factor * changed[i]
    return upper, changed


def _linearise(residual: Residual, x: Vector, scale: ArrayLike) -> LocalModel:
    """Cost, its gradient and its Gauss-Newton Hessian.

    Half the loss of a residual r is rho(r) = s^2 (sqrt(1 + (r/s)^2) - 1), so rho' = r w with
    w = 1 / sqrt(1 + (r/s)^2), and rho'' = w^3. The Hessian is J' diag(rho'') J: the curvature of
    the loss is kept (Triggs et al. 2000, section 4.3). The weights w of iteratively reweighted
    least squares in its place would count outliers as information, and standard deviations
    from the Hessian would be too small. For soft-L1, rho'' is never negative.

    Where the signal has a kink (`jnp.maximum` of equal arguments), JAX's slope is the mean of
    those of both sides.
    """
    value, push = jax.linearize(lambda *x: residual(jnp.stack(x)), *x)
    columns = [push(*(jnp.full_like(at, i == k) for k, at in enumerate(x))) for i in range(len(x))]
    slope = 1.0 / jnp.sqrt(1.0 + (value * (1.0 / jnp.asarray(scale))) ** 2)
    curved = [column * slope**3 for column in columns]
    return LocalModel(
        soft_l1_cost(value, scale),
        jnp.sum(value**2, axis=0),
        tuple(jnp.sum(column * (value * slope), axis=0) for column in columns),
        tuple(tuple(jnp.sum(one * other, axis=0) for other in columns) for one in curved),
    )


def _restrict(model: LocalModel, x: Vector, lower: Vector, upper: Vector) -> LocalModel:
    """Hold the parameters that sit on a bound and want to leave through it."""
    held = [  # the active set of Voglis and Lagaris (2004)
        ((at <= low) & (slope > 0.0)) | ((at >= high) & (slope < 0.0))
        for at, low, high, slope in zip(x, lower, upper, model.gradient, strict=True)
    ]
    real = jnp.finfo(model.cost.dtype)
    floor = real.eps * _largest([row[i] for i, row in enumerate(model.hessian)]) + real.tiny

    def entry(i: int, k: int) -> Array:
        if i != k:
            return jnp.where(held[i] | held[k], 0.0, model.hessian[i][k])
        return jnp.where(held[i], 1.0, jnp.maximum(model.hessian[i][i], floor))

    indices = range(len(x))
    return LocalModel(
        model.cost,
        model.squares,
        tuple(jnp.where(held[i], 0.0, model.gradient[i]) for i in indices),
        tuple(tuple(entry(i, k) for k in indices) for i in indices),
    )


def _damped_step(model: LocalModel, damping: ArrayLike) -> Vector:
    """Step to the minimum of the model, its curvatures raised by a fraction of themselves.

    The damping scales with the curvature of each parameter (Marquardt 1963), so that their units
    do not matter.
    """
    rows = [
        [value * (1.0 + damping) if i == k else value for k, value in enumerate(row)]
        for i, row in enumerate(model.hessian)
    ]
    return solve_small(rows, [-slope for slope in model.gradient])


def _propose_dogleg(model: LocalModel, lower: Vector, upper: Vector, trust: Array) -> Vector:
    """Downhill to the Cauchy point, thence towards the Newton point, up to the region's edge.

    The region is a box (Voglis and Lagaris 2004), whose intersection with the bounds is one too.
    """
    lower = tuple(jnp.maximum(low, -trust) for low in lower)
    upper = tuple(jnp.minimum(high, trust) for high in upper)
    real = jnp.finfo(model.cost.dtype)
    newton = _damped_step(model, 10.0 * real.eps)
    downhill = tuple(-slope for slope in model.gradient)
    curvature = _dot(downhill, _times(model.hessian, downhill))
    bend = _dot(downhill, downhill) / jnp.maximum(curvature, real.tiny)
    origin = tuple(map(jnp.zeros_like, downhill))
    far = jnp.minimum(bend, _reach(origin, downhill, lower, upper))
    cauchy = tuple(far * slope for slope in downhill)
    onward = tuple(map(jnp.subtract, newton, cauchy))
    fraction = jnp.minimum(1.0, _reach(cauchy, onward, lower, upper))
    inside = functools.reduce(
        jnp.logical_and,
        ((at >= low) & (at <= high) for at, low, high in zip(newton, lower, upper, strict=True)),
    )
    return tuple(
        jnp.where(inside, direct, begin + fraction * way)
        for direct, begin, way in zip(newton, cauchy, onward, strict=True)
    )


def _reach(origin: Vector, direction: Vector, lower: Vector, upper: Vector) -> Array:
    """Largest multiple of a direction that stays inside the box."""

    def limit(begin: Array, way: Array, low: Array, high: Array) -> Array:
        wall = jnp.where(way > 0.0, high, low) - begin
        return jnp.where(way != 0.0, wall / jnp.where(way != 0.0, way, 1.0), jnp.inf)

    limits = map(limit, origin, direction, lower, upper)
    return jnp.maximum(functools.reduce(jnp.minimum, limits), 0.0)


def _regulate_dogleg(trust: Array, ratio: Array, length: Array) -> Array:
    grown = jnp.where((ratio > 0.75) & (length > 0.95 * trust), 2.0 * trust, trust)
    return jnp.where(ratio < 0.25, 0.25 * length, grown)


def _propose_lm(model: LocalModel, lower: Vector, upper: Vector, trust: Array) -> Vector:
    """Damped step, projected on the bounds; `trust` is the inverse of Marquardt's lambda."""
    return tuple(map(jnp.clip, _damped_step(model, 1.0 / trust), lower, upper))


def _regulate_lm(trust: Array, ratio: Array, length: Array) -> Array:
    largest = 0.1 / jnp.finfo(trust.dtype).eps
    grown = jnp.where(ratio > 0.75, jnp.minimum(5.0 * trust, largest), trust)
    return jnp.where(ratio < 0.25, 0.25 * trust, grown)


def _dot(a: Vector, b: Vector) -> Array:
    return functools.reduce(jnp.add, map(jnp.multiply, a, b))


def _times(rows: tuple[Vector, ...], vector: Vector) -> Vector:
    return tuple(_dot(row, vector) for row in rows)


def _largest(vector: Sequence[Array]) -> Array:
    return functools.reduce(jnp.maximum, map(jnp.abs, vector))


SOLVERS: dict[SolverName, Solver] = {
    "dogleg": Solver(1.0, _propose_dogleg, _regulate_dogleg),
    "lm": Solver(1e3, _propose_lm, _regulate_lm),
}
