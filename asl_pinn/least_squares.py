"""Bounded, robust non-linear least squares for one small problem, to be vmapped over many."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

SolverName = Literal["dogleg", "lm"]
Residual = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Settings:
    """When a solve ends.

    Attributes
    ----------
    xtol : float
        Largest change of a parameter, in its own unit, below which a rejected step is the last.
    ftol : float
        Relative reduction of the cost that counts as none.
    max_steps : int
        Steps, accepted or not, before a solve is given up.
    loss_scale : float
        Residual at which the soft-L1 loss turns from quadratic to linear.
    """

    xtol: ArrayLike = 1e-4
    ftol: ArrayLike = 1e-6
    max_steps: ArrayLike = 50
    loss_scale: ArrayLike = 1.0


class Solution(NamedTuple):
    """End of a solve with P parameters.

    Attributes
    ----------
    x : Array, shape (P,)
        Parameters.
    cost : Array, shape ()
        Half the sum of the soft-L1 losses, as SciPy's `least_squares` defines it.
    hessian : Array, shape (P, P)
        Gauss-Newton approximation at `x`, the curvature of the loss included.
    n_steps : Array, shape ()
        Steps that were tried.
    converged : Array of bool, shape ()
        Whether a tolerance was met.
    """

    x: Array
    cost: Array
    hessian: Array
    n_steps: Array
    converged: Array


class Model(NamedTuple):
    """Quadratic model of the cost about a point."""

    cost: Array
    gradient: Array
    hessian: Array


class Solver(NamedTuple):
    """A way to choose and to regulate steps.

    Attributes
    ----------
    trust : float
        How far to trust the model at the start.
    propose : callable
        (model, lower, upper, trust) -> step, with bounds relative to the current point.
    regulate : callable
        (trust, ratio, step) -> trust, the ratio being actual over predicted reduction.
    """

    trust: float
    propose: Callable[[Model, Array, Array, Array], Array]
    regulate: Callable[[Array, Array, Array], Array]


def soft_l1_cost(residual: Array, scale: ArrayLike) -> Array:
    """Half the sum of soft-L1 losses, scale^2 * sum(sqrt(1 + (r/scale)^2) - 1).

    Parameters
    ----------
    residual : Array, shape (R,)
        Residuals.
    scale : float
        Residual at which the loss turns from quadratic to linear.

    Returns
    -------
    Array, shape ()
    """
    squared = (residual / scale) ** 2
    return scale**2 * jnp.sum(squared / (jnp.sqrt(1.0 + squared) + 1.0))


def solve(
    residual: Residual,
    start: Array,
    lower: Array,
    upper: Array,
    settings: Settings,
    solver: SolverName = "dogleg",
) -> Solution:
    """Minimise a soft-L1 cost inside a box.

    Parameters
    ----------
    residual : callable
        Parameters of shape (P,) to residuals of shape (R,), differentiable.
    start : Array, shape (P,)
        Starting point, inside the bounds; parameters should be of order one.
    lower, upper : Array, shape (P,)
        Bounds.
    settings : Settings
        Tolerances and loss.
    solver : {'dogleg', 'lm'}
        Powell's dogleg in a rectangular trust region, or Levenberg-Marquardt with
        Marquardt's scaling and projection on the bounds.

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
    one = jnp.ones((), start.dtype)

    def unfinished(state: tuple[Array, ...]) -> Array:
        *_, n_steps, converged = state
        return (n_steps < settings.max_steps) & ~converged

    def advance(state: tuple[Array, ...]) -> tuple[Array, ...]:
        x, cost, gradient, hessian, trust, n_steps, _ = state
        model = _restrict(Model(cost, gradient, hessian), x, lower, upper)
        step = rule.propose(model, lower - x, upper - x, trust)
        step = jnp.clip(x + step, lower, upper) - x
        predicted = -(model.gradient @ step + 0.5 * step @ model.hessian @ step)
        candidate = _linearise(residual, x + step, settings.loss_scale)
        actual = cost - candidate.cost
        accepted = actual > 0.0
        ratio = actual / jnp.maximum(predicted, jnp.finfo(x.dtype).tiny)
        length = jnp.max(jnp.abs(step))
        flat = (jnp.abs(actual) <= settings.ftol * cost) & (predicted <= settings.ftol * cost)
        kept = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (x + step, *candidate),
            (x, cost, gradient, hessian),
        )
        trust = rule.regulate(trust, ratio, step)
        # A tiny step that is accepted may have crossed a kink, beyond which it goes on.
        stuck = (length <= settings.xtol) & ~accepted
        return (*kept, trust, n_steps + 1, flat | stuck)

    first = _linearise(residual, start, settings.loss_scale)
    state = (start, *first, rule.trust * one, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    x, cost, _, hessian, _, n_steps, converged = jax.lax.while_loop(unfinished, advance, state)
    return Solution(x, cost, hessian, n_steps, converged)


def solve_small(matrix: Array, vector: Array) -> Array:
    """Solve a small symmetric positive definite system by unrolled elimination.

    A vmapped call to LAPACK costs a library call per problem; this stays elementwise.

    Parameters
    ----------
    matrix : Array, shape (P, P)
        Positive definite.
    vector : Array, shape (P,) or (P, K)
        Right-hand side.

    Returns
    -------
    Array, of the shape of `vector`
    """
    size = matrix.shape[0]
    rows = [matrix[i] for i in range(size)]
    sides = [vector[i] for i in range(size)]
    for i in range(size):
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = rows[k] - factor * rows[i]
            sides[k] = sides[k] - factor * sides[i]
    solution: list[Array] = [sides[0]] * size
    for i in reversed(range(size)):
        known = sum((rows[i][k] * solution[k] for k in range(i + 1, size)), 0.0 * sides[i])
        solution[i] = (sides[i] - known) / rows[i][i]
    return jnp.stack(solution)


def _linearise(residual: Residual, x: Array, scale: ArrayLike) -> Model:
    value, jacobian = residual(x), jax.jacfwd(residual)(x)
    softened = 1.0 + (value / scale) ** 2
    weighted = jacobian * softened[:, None] ** -1.5
    return Model(
        soft_l1_cost(value, scale),
        jacobian.T @ (value / jnp.sqrt(softened)),
        jacobian.T @ weighted,
    )


def _restrict(model: Model, x: Array, lower: Array, upper: Array) -> Model:
    """Hold the parameters that sit on a bound and want to leave through it."""
    gradient, hessian = model.gradient, model.hessian
    held = ((x <= lower) & (gradient > 0.0)) | ((x >= upper) & (gradient < 0.0))
    free = ~held
    hessian = jnp.where(free[:, None] & free[None, :], hessian, 0.0)
    curvature = jnp.diagonal(hessian)
    floor = jnp.finfo(x.dtype).eps * jnp.max(curvature) + jnp.finfo(x.dtype).tiny
    added = jnp.where(held, 1.0, jnp.where(curvature > floor, 0.0, floor))
    return Model(model.cost, jnp.where(held, 0.0, gradient), hessian + jnp.diag(added))


def _newton_step(model: Model) -> Array:
    curvature = jnp.diagonal(model.hessian)
    jitter = 10.0 * jnp.finfo(curvature.dtype).eps * curvature
    return solve_small(model.hessian + jnp.diag(jitter), -model.gradient)


def _propose_dogleg(model: Model, lower: Array, upper: Array, trust: Array) -> Array:
    lower, upper = jnp.maximum(lower, -trust), jnp.minimum(upper, trust)
    newton = _newton_step(model)
    downhill = -model.gradient
    bend = (downhill @ downhill) / jnp.maximum(
        downhill @ model.hessian @ downhill, jnp.finfo(newton.dtype).tiny
    )
    cauchy = downhill * jnp.minimum(bend, _reach(jnp.zeros_like(newton), downhill, lower, upper))
    onward = newton - cauchy
    dogleg = cauchy + onward * jnp.minimum(1.0, _reach(cauchy, onward, lower, upper))
    inside = jnp.all((newton >= lower) & (newton <= upper))
    return jnp.where(inside, newton, dogleg)


def _reach(origin: Array, direction: Array, lower: Array, upper: Array) -> Array:
    """Largest multiple of a direction that stays inside the box."""
    moving = direction != 0.0
    wall = jnp.where(direction > 0.0, upper, lower) - origin
    limits = jnp.where(moving, wall / jnp.where(moving, direction, 1.0), jnp.inf)
    return jnp.maximum(jnp.min(limits), 0.0)


def _regulate_dogleg(trust: Array, ratio: Array, step: Array) -> Array:
    length = jnp.max(jnp.abs(step))
    grown = jnp.where((ratio > 0.75) & (length > 0.95 * trust), 2.0 * trust, trust)
    return jnp.where(ratio < 0.25, 0.25 * length, grown)


def _propose_lm(model: Model, lower: Array, upper: Array, trust: Array) -> Array:
    damping = jnp.diagonal(model.hessian) / trust
    step = solve_small(model.hessian + jnp.diag(damping), -model.gradient)
    return jnp.clip(step, lower, upper)


def _regulate_lm(trust: Array, ratio: Array, step: Array) -> Array:
    largest = 0.1 / jnp.finfo(trust.dtype).eps
    grown = jnp.where(ratio > 0.75, jnp.minimum(5.0 * trust, largest), trust)
    return jnp.where(ratio < 0.25, 0.25 * trust, grown)


SOLVERS: dict[SolverName, Solver] = {
    "dogleg": Solver(1.0, _propose_dogleg, _regulate_dogleg),
    "lm": Solver(1e3, _propose_lm, _regulate_lm),
}
