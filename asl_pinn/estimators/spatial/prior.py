"""How smooth the fields are, and what that means for them."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.estimators.spatial.fields import FieldProblem, Fields, explained
from asl_pinn.estimators.spatial.gmrf import (
    Lattice,
    roughness,
    roughness_adjoint,
    roughness_diagonal,
    roughness_gram_diagonal,
)
from asl_pinn.estimators.spatial.noise import Noise
from asl_pinn.estimators.spatial.options import SpatialOptions
from asl_pinn.estimators.spatial.sparse import Sparsity

RIDGE = 1e-3
"""Precision of every unknown besides, which the data outweigh: what nothing tells stays near 0."""


class Hyperparameters(NamedTuple):
    """What the data tell about all voxels together.

    Attributes
    ----------
    precision : tuple of P Array, each of shape ()
        Of each field's roughness.
    edge : tuple of P Array, each of shape (A, V) or (1, V)
        Weight of each roughness, lower where it is an edge.
    noise : Noise
        Of the data.
    sparsity : tuple of P (Sparsity or None)
        Of each field that most voxels do not have.
    """

    precision: tuple[Array, ...]
    edge: tuple[Array, ...]
    noise: Noise
    sparsity: tuple[Sparsity | None, ...]


class Prior(NamedTuple):
    """Normal prior of one field x, with density proportional to exp(-x'Qx / 2).

    With the roughness R x (differences of neighbours, or the Laplacian), its precision lambda and
    the edge weights W,

        Q = lambda R' W R + RIDGE I,

    an intrinsic Gaussian Markov random field, made proper by the ridge (Rue and Held, Gaussian
    Markov Random Fields, 2005, chapter 3; Penny et al., NeuroImage 24:350-362 (2005), have W = I).
    Q is never formed: its products cost some gathers.

    Attributes
    ----------
    lattice : Lattice
        Neighbours of V voxels.
    order : int
        1 for differences of neighbours, 2 for the Laplacian.
    weight : Array, shape (A, V) or (1, V)
        lambda W.
    """

    lattice: Lattice
    order: int
    weight: Array

    def __call__(self, field: Array) -> Array:
        """Product of the precision matrix and a field."""
        values = self.weight * roughness(self.lattice, field, self.order)
        return roughness_adjoint(self.lattice, values, self.order) + RIDGE * field

    def draw(self, key: Array) -> Array:
        """Normal numbers of covariance Q = B'B, shape (V,): B'e for standard normal e."""
        key, ridge_key = jax.random.split(key)
        noise = jnp.sqrt(self.weight) * jax.random.normal(key, self.weight.shape, self.weight.dtype)
        rough = roughness_adjoint(self.lattice, noise, self.order)
        return rough + math.sqrt(RIDGE) * jax.random.normal(ridge_key, rough.shape, rough.dtype)

    def exact_diagonal(self) -> Array:
        """Its diagonal, edges as they are, shape (V,)."""
        return roughness_gram_diagonal(self.lattice, self.weight, self.order) + RIDGE

    def diagonal(self) -> Array:
        """Roughly its diagonal, for the preconditioner."""
        return jnp.mean(self.weight) * roughness_diagonal(self.lattice, self.order) + RIDGE


def priors_of(
    options: SpatialOptions, known: FieldProblem, hyperparameters: Hyperparameters
) -> tuple[Prior, ...]:
    """Prior of each field.

    Parameters
    ----------
    options : SpatialOptions
        Orders of the roughness.
    known : FieldProblem
        Neighbours of the voxels.
    hyperparameters : Hyperparameters
        Precisions and edges.

    Returns
    -------
    tuple of P Prior
    """
    return tuple(
        Prior(known.lattice, order, precision * edge)
        for order, precision, edge in zip(
            orders(options, known), hyperparameters.precision, hyperparameters.edge, strict=True
        )
    )


def stated_precisions(
    known: FieldProblem, hyperparameters: Hyperparameters
) -> tuple[Array | None, ...]:
    """Precision of the normal prior of single voxels about 0, of each field.

    Parameters
    ----------
    known : FieldProblem
        What the model states.
    hyperparameters : Hyperparameters
        Spikes and slabs.

    Returns
    -------
    tuple of P (Array of shape (V,), or None)
        None where neither says anything of single voxels.
    """
    return tuple(
        stated if sparsity is None else sparsity.precision
        for stated, sparsity in zip(known.prior_precision, hyperparameters.sparsity, strict=True)
    )


@functools.partial(jax.jit, static_argnames="options")
def given_neighbours(
    options: SpatialOptions, known: FieldProblem, hyperparameters: Hyperparameters, mode: Fields
) -> dict[str, tuple[Array, Array]]:
    """Distribution of each voxel's field when the fields of all others are known.

    That of one component of a normal distribution of precision matrix Q given the others has the
    mean x - (Q x)_v / Q_vv and the variance 1 / Q_vv (Rue and Held 2005, section 2.2).

    Parameters
    ----------
    options : SpatialOptions
        Orders of the roughness.
    known : FieldProblem
        V voxels.
    hyperparameters : Hyperparameters
        Of the priors.
    mode : Fields
        All fields.

    Returns
    -------
    dict of str to (Array, Array), each of shape (V,)
        Mean, what covariates explain included, and SD of each field that is not sparse.
    """
    found = {}
    for p, prior, field, added, stated in zip(
        known.parameters,
        priors_of(options, known, hyperparameters),
        mode.fields,
        explained(known, mode),
        stated_precisions(known, hyperparameters),
        strict=True,
    ):
        if p.sparse:
            continue
        diagonal, pull = prior.exact_diagonal(), prior(field)
        mean = field - pull / diagonal + added
        if stated is not None:
            mean = mean * diagonal / (diagonal + stated)
            diagonal = diagonal + stated
        found[p.name] = mean, 1.0 / jnp.sqrt(diagonal)
    return found


def orders(options: SpatialOptions, known: FieldProblem) -> tuple[int, ...]:
    """Order of each field's roughness.

    Parameters
    ----------
    options : SpatialOptions
        Of the method.
    known : FieldProblem
        Its parameters have the names.

    Returns
    -------
    tuple of P int
        1 or 2.
    """
    return tuple(int(options.order[p.name]) for p in known.parameters)
