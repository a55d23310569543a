"""Strengths of prior and noise that make the data likely."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.estimators.spatial_map.noise import update_noise
from asl_pinn.estimators.spatial_map.options import SpatialOptions
from asl_pinn.estimators.spatial_map.posterior import Determined
from asl_pinn.estimators.spatial_map.prior import Prior, Strength, priors_of
from asl_pinn.estimators.spatial_map.scene import Fields, Pair, Scene, curves
from asl_pinn.fields import roughness

_MOST_PRECISION = Pair(1e4, 1e6)
_LARGEST_CHANGE = 5.0
_LEAST_DETERMINED = 0.1

# Determined parameters left out of the count, as a gamma law of the roughness's scale would
# have it: else the precision of a field of which the data tell little runs off to infinity.
_NOT_COUNTED = 4.0


@functools.partial(jax.jit, static_argnames="options")
def update(
    options: SpatialOptions,
    scene: Scene,
    strength: Strength,
    mode: Fields,
    draws: Fields,
    determined: Determined,
) -> tuple[Strength, Array]:
    """MacKay's fixed point: determined parameters over what they cost.

    Parameters
    ----------
    options : SpatialOptions
        Law of the roughness, loss.
    scene : Scene
        Data.
    strength : Strength
        With which mode and draws were found.
    mode : Fields
    draws : Fields, with a leading axis S
    determined : Determined
        From `posterior.improve`.

    Returns
    -------
    strength : Strength
    change : Array, shape ()
        Largest absolute change of the logarithm of a precision.

    References
    ----------
    MacKay, Neural Comput 4:415-447 (1992); Chung et al., Psychometrika 78:685-709 (2013), for
    scales kept off the boundary.
    """
    n_voxels = len(scene.voxels.m0)
    by_field = Pair(*(jnp.clip(number, 1.0, n_voxels) for number in determined.by_field))
    one = functools.partial(_one_field, n_parts=scene.lattice.n_parts)
    updated = map(
        one,
        priors_of(options, scene, strength),
        strength.precision,
        strength.edge,
        (mode.cbf, mode.att),
        (draws.cbf, draws.att),
        by_field,
        Pair(options.cbf_edge_dof, options.att_edge_dof),
        _MOST_PRECISION,
    )
    precision, edge = (Pair(*values) for values in zip(*updated, strict=True))
    noise = update_noise(
        strength.noise,
        scene.voxels.delta_m,
        curves(options, scene, mode),
        scene.n_averages,
        determined.by_delay,
        options.loss_scale,
    )
    change = [abs(jnp.log(a / b)) for a, b in zip(precision, strength.precision, strict=True)]
    return Strength(precision, edge, noise), jnp.maximum(*change)


def _one_field(
    prior: Prior,
    precision: Array,
    edge: Array,
    mode: Array,
    draws: Array,
    determined: Array,
    dof: float,
    most: float,
    n_parts: int,
) -> tuple[Array, Array]:
    """New precision and edge weights of one field."""

    def energy(field: Array) -> Array:
        return roughness(prior.lattice, field, prior.order) ** 2

    at_mode, variance = energy(mode), jnp.mean(jax.vmap(energy)(draws), axis=0)
    cost = jnp.maximum(jnp.sum(edge * at_mode), jnp.finfo(at_mode.dtype).tiny)
    new = jnp.maximum(determined - n_parts - _NOT_COUNTED, _LEAST_DETERMINED) / cost
    new = jnp.clip(new, precision / _LARGEST_CHANGE, precision * _LARGEST_CHANGE)
    if dof > 0.0:
        moment = at_mode + variance
        scale = jnp.sum(edge * moment) / jnp.maximum(jnp.sum(moment > 0.0), 1)
        scale = jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)
        edge = (dof + 1.0) / (dof + moment / scale)
        edge = edge / jnp.mean(edge)
    return jnp.minimum(new, most), edge
