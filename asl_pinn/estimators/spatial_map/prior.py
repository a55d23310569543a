"""How smooth the fields are, and what that means for them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.estimators.spatial_map.noise import Noise
from asl_pinn.estimators.spatial_map.options import SpatialOptions
from asl_pinn.estimators.spatial_map.scene import Pair, Scene
from asl_pinn.fields import Lattice, roughness, roughness_adjoint, roughness_diagonal

RIDGE = 1e-3
"""Precision of every unknown besides, which the data outweigh: what nothing tells stays near 0."""


class Strength(NamedTuple):
    """Hyperparameters.

    Attributes
    ----------
    precision : Pair of Array, shape ()
        Of the roughness.
    edge : Pair of Array, shape (A, V) or (1, V)
        Weight of each roughness, lower where it is an edge.
    noise : Noise
        Of the data.
    """

    precision: Pair
    edge: Pair
    noise: Noise


class Prior(NamedTuple):
    """Precision matrix of one field: its roughness, weighed, and a ridge for what is free."""

    lattice: Lattice
    order: int
    weight: Array

    def __call__(self, field: Array) -> Array:
        """Product of the precision matrix and a field."""
        values = self.weight * roughness(self.lattice, field, self.order)
        return roughness_adjoint(self.lattice, values, self.order) + RIDGE * field

    def draw(self, key: Array) -> Array:
        """Sample whose covariance is the precision matrix."""
        key, ridge_key = jax.random.split(key)
        noise = jnp.sqrt(self.weight) * jax.random.normal(key, self.weight.shape, self.weight.dtype)
        rough = roughness_adjoint(self.lattice, noise, self.order)
        return rough + math.sqrt(RIDGE) * jax.random.normal(ridge_key, rough.shape, rough.dtype)

    def diagonal(self) -> Array:
        """Roughly its diagonal, for the preconditioner."""
        return jnp.mean(self.weight) * roughness_diagonal(self.lattice, self.order) + RIDGE


def priors_of(options: SpatialOptions, scene: Scene, strength: Strength) -> Pair:
    """Priors of both fields, a `Pair` of `Prior`.

    Parameters
    ----------
    options : SpatialOptions
        Orders of the roughness.
    scene : Scene
        Neighbours of the voxels.
    strength : Strength
        Precisions and edges.

    Returns
    -------
    Pair of Prior
        Of CBF and of ATT.
    """
    weights = [p * edge for p, edge in zip(strength.precision, strength.edge, strict=True)]
    priors = [
        Prior(scene.lattice, order, w) for order, w in zip(orders(options), weights, strict=True)
    ]
    return Pair(*priors)


def orders(options: SpatialOptions) -> Pair:
    """Orders of both fields' roughness, a `Pair` of int.

    Parameters
    ----------
    options : SpatialOptions
        Of the method.

    Returns
    -------
    Pair of int
        1 or 2, of CBF and of ATT.
    """
    return Pair(options.cbf_order, options.att_order)
