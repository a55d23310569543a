"""The posterior of the fields at given strengths: its mode, and draws about it."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.sparse.linalg import cg

from asl_pinn.estimators.spatial_map.noise import precision_root, robust_weight
from asl_pinn.estimators.spatial_map.options import SpatialOptions
from asl_pinn.estimators.spatial_map.prior import RIDGE, Strength, priors_of
from asl_pinn.estimators.spatial_map.scene import Fields, Pair, Scene, curves
from asl_pinn.least_squares import soft_l1_cost

_STEPS = (1.0, 0.5, 0.25, 0.1, 0.0)
_LARGEST_ATT_STEP = 0.5  # of the logarithm
_LARGEST_SPREAD = 0.5  # of the logarithm
_CG_STEPS = 300
_CG_TOL = 1e-3  # looser, the smooth modes of the draws do not converge

# Gauss-Hermite: points and shares of a standard normal law.
_NODES = (-2.857, -1.356, 0.0, 1.356, 2.857)
_SHARES = (0.01126, 0.22208, 0.53332, 0.22208, 0.01126)

Solve = Callable[[Fields, Fields | None], Fields]


class Linear(NamedTuple):
    """The model about the mode, for each point of the law of ATT.

    Attributes
    ----------
    residual : Array, shape (K, V, D)
        Misfits in noise SDs.
    by_cbf, by_att : Array, shape (K, V, D)
        Slopes of the curve by the two fields, in noise SDs.
    weight : Array, shape (K, V, D)
        Share of the point, times the weight that makes a square of soft-L1.
    """

    residual: Array
    by_cbf: Array
    by_att: Array
    weight: Array


class Determined(NamedTuple):
    """Parameters that the data determine: traces of posterior covariance times precision.

    Attributes
    ----------
    by_field : Pair of Array, shape ()
        Of each field.
    by_delay : Array, shape (D,)
        Through each delay, those of the slopes included.
    """

    by_field: Pair
    by_delay: Array


@functools.partial(jax.jit, static_argnames="options")
def improve(
    options: SpatialOptions,
    scene: Scene,
    strength: Strength,
    mode: Fields,
    draws: Fields,
    key: Array,
) -> tuple[Fields, Fields, Determined]:
    """One Gauss-Newton step of the mode, and draws of the deviation from it.

    The curve jumps in slope where a bolus arrives, which gives the cost many local optima.
    So curve and slopes are means over each voxel's posterior of ATT, which is smooth.

    Parameters
    ----------
    options : SpatialOptions
        Scale, bounds, loss.
    scene : Scene
        Data.
    strength : Strength
        Hyperparameters.
    mode : Fields
        Now.
    draws : Fields, with a leading axis S
        Of the last round: their spread is the posterior's, and the solves start from them.
    key : Array, shape ()
        The same in every round, so that rounds differ by the strengths alone.

    Returns
    -------
    mode : Fields
    draws : Fields, with a leading axis S
    determined : Determined
    """
    spread = jnp.minimum(jnp.sqrt(jnp.mean(draws.att**2, axis=0)), _LARGEST_SPREAD)
    linear = _linearise(options, scene, strength, mode, spread)
    solve = _solver(options, scene, strength, linear)
    step = solve(_slopes(options, scene, strength, mode, linear), None)
    draw = functools.partial(_draw, options, scene, strength, linear, solve)
    draws, determined = jax.vmap(draw)(jax.random.split(key, options.samples), draws)
    moved = _descend(options, scene, strength, mode, step, spread)
    return moved, draws, jax.tree.map(lambda values: jnp.mean(values, axis=0), determined)


def _misfit(
    options: SpatialOptions, scene: Scene, strength: Strength, fields: Fields, shift: Array
) -> Array:
    """Data less curve in noise SDs, the logarithm of ATT shifted, shape (V, D)."""
    shifted = fields._replace(att=fields.att + shift)
    root = precision_root(strength.noise, scene.n_averages)
    return scene.voxels.delta_m * root - curves(options, scene, shifted) * root


def _linearise(
    options: SpatialOptions, scene: Scene, strength: Strength, mode: Fields, spread: Array
) -> Linear:
    nodes, shares = (jnp.asarray(values, spread.dtype) for values in (_NODES, _SHARES))
    still = jax.tree.map(jnp.zeros_like, mode)
    one = jnp.ones_like(mode.cbf)

    def at(node: Array) -> tuple[Array, Array, Array]:
        misfit = functools.partial(_misfit, options, scene, strength, shift=node * spread)
        residual, less_cbf = jax.jvp(misfit, (mode,), (still._replace(cbf=one),))
        _, less_att = jax.jvp(misfit, (mode,), (still._replace(att=one),))
        return residual, -less_cbf, -less_att

    residual, by_cbf, by_att = jax.lax.map(at, nodes)
    weight = shares[:, None, None] * robust_weight(residual, options.loss_scale)
    return Linear(residual, by_cbf, by_att, weight)


def _pull(scene: Scene, linear: Linear, weighted: Array) -> Fields:
    """Adjoint of the linear model: (K, V, D) to fields."""
    cbf = jnp.sum(linear.by_cbf * weighted, axis=(0, 2))
    return Fields(cbf, jnp.sum(linear.by_att * weighted, axis=(0, 2)), cbf @ scene.features)


def _slopes(
    options: SpatialOptions, scene: Scene, strength: Strength, mode: Fields, linear: Linear
) -> Fields:
    """Descent direction of the cost, before it is solved for."""
    priors = priors_of(options, scene, strength)
    pulled = _pull(scene, linear, linear.weight * linear.residual)
    return Fields(
        pulled.cbf - priors.cbf(mode.cbf),
        pulled.att - priors.att(mode.att),
        pulled.slope - RIDGE * mode.slope,
    )


def _solver(options: SpatialOptions, scene: Scene, strength: Strength, linear: Linear) -> Solve:
    """Solver of the Gauss-Newton system, by conjugate gradients from a guess."""
    priors = priors_of(options, scene, strength)
    cc, ca, aa = (
        jnp.sum(linear.weight * a * b, axis=(0, 2))
        for a, b in (
            (linear.by_cbf, linear.by_cbf),
            (linear.by_cbf, linear.by_att),
            (linear.by_att, linear.by_att),
        )
    )

    def hessian(step: Fields) -> Fields:
        cbf = step.cbf + scene.features @ step.slope
        by_cbf, by_att = cc * cbf + ca * step.att, ca * cbf + aa * step.att
        return Fields(
            by_cbf + priors.cbf(step.cbf),
            by_att + priors.att(step.att),
            by_cbf @ scene.features + RIDGE * step.slope,
        )

    diagonal = cc + priors.cbf.diagonal(), aa + priors.att.diagonal()
    determinant = diagonal[0] * diagonal[1] - ca**2
    gram = (cc * scene.features.T) @ scene.features
    inverse_gram = jnp.linalg.pinv(gram + RIDGE * jnp.eye(len(gram), dtype=gram.dtype))

    def precondition(x: Fields) -> Fields:
        return Fields(
            (diagonal[1] * x.cbf - ca * x.att) / determinant,
            (diagonal[0] * x.att - ca * x.cbf) / determinant,
            inverse_gram @ x.slope,
        )

    def solve(right: Fields, guess: Fields | None) -> Fields:
        return cg(hessian, right, guess, tol=_CG_TOL, maxiter=_CG_STEPS, M=precondition)[0]

    return solve


def _draw(
    options: SpatialOptions,
    scene: Scene,
    strength: Strength,
    linear: Linear,
    solve: Solve,
    key: Array,
    guess: Fields,
) -> tuple[Fields, Determined]:
    """A deviation from the mode, and what its own data noise says is determined."""
    priors = priors_of(options, scene, strength)
    dtype = linear.residual.dtype
    noise_key, cbf_key, att_key, slope_key = jax.random.split(key, 4)
    noise = jnp.sqrt(linear.weight) * jax.random.normal(noise_key, linear.residual.shape, dtype)
    pulls = _pull(scene, linear, noise)
    ridge = math.sqrt(RIDGE) * jax.random.normal(slope_key, pulls.slope.shape, dtype)
    right = Fields(
        pulls.cbf + priors.cbf.draw(cbf_key),
        pulls.att + priors.att.draw(att_key),
        pulls.slope + ridge,
    )
    found = solve(right, guess)
    cbf = found.cbf + scene.features @ found.slope
    reached = linear.by_cbf * cbf[:, None] + linear.by_att * found.att[:, None]
    determined = Pair(pulls.cbf @ found.cbf, pulls.att @ found.att)
    return found, Determined(determined, jnp.sum(noise * reached, axis=(0, 1)))


def _descend(
    options: SpatialOptions,
    scene: Scene,
    strength: Strength,
    mode: Fields,
    step: Fields,
    spread: Array,
) -> Fields:
    """The best of the mode and points along the step, ATT within its bounds."""
    priors = priors_of(options, scene, strength)
    nodes, shares = (jnp.asarray(values, spread.dtype) for values in (_NODES, _SHARES))
    bounds = [jnp.log(bound / scene.att) for bound in (options.att_min, options.att_max)]
    att_step = jnp.clip(step.att, -_LARGEST_ATT_STEP, _LARGEST_ATT_STEP)

    def moved(size: Array) -> Fields:
        att = jnp.clip(mode.att + size * att_step, *bounds)
        return Fields(mode.cbf + size * step.cbf, att, mode.slope + size * step.slope)

    def cost(fields: Fields) -> Array:
        def loss(node: Array) -> Array:
            misfit = _misfit(options, scene, strength, fields, node * spread)
            return soft_l1_cost(misfit.ravel(), options.loss_scale)

        rough = fields.cbf @ priors.cbf(fields.cbf) + fields.att @ priors.att(fields.att)
        ridge = RIDGE * fields.slope @ fields.slope
        return shares @ jax.lax.map(loss, nodes) + 0.5 * (rough + ridge)

    sizes = jnp.asarray(_STEPS, mode.cbf.dtype)
    return moved(sizes[jnp.argmin(jax.lax.map(lambda size: cost(moved(size)), sizes))])
