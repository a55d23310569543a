"""Gaussian Markov random fields on the voxels of a mask: roughness and its adjoint."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from numpy.typing import ArrayLike, DTypeLike, NDArray

from asl_pinn.arrays import FloatArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lattice:
    """Which voxels of a mask touch, along each of A axes.

    Attributes
    ----------
    following, preceding : Array of int, shape (A, V)
        Index of the next and of the previous voxel along each axis; a voxel's own where
        there is none.
    link, back_link : Array, shape (A, V)
        Weight of the difference to the next and from the previous voxel: the finest voxel
        edge over this axis' edge; 0 where there is none.
    n_parts : int
        Connected parts of the mask: constants on each are smooth.
    """

    following: Array
    preceding: Array
    link: Array
    back_link: Array
    n_parts: int = dataclasses.field(metadata={"static": True})


def make_lattice(
    mask: NDArray[np.bool_], edges: ArrayLike, n_axes: int, dtype: DTypeLike
) -> Lattice:
    """Find the neighbours of the voxels of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        V voxels, in the order of `volume[mask]`.
    edges : array_like, shape (3,)
        Voxel edges [mm].
    n_axes : int
        2 for neighbours within slices alone, 3 for all.
    dtype : dtype
        Floating-point type of the weights.

    Returns
    -------
    Lattice
    """
    own = np.arange(np.count_nonzero(mask), dtype=np.int32)
    number = np.full(mask.shape, -1, np.int32)
    number[mask] = own
    padded = np.pad(number, 1, constant_values=-1)
    tables: list[tuple[FloatArray, FloatArray]] = []
    for shift in (-1, 1):
        moved = [np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1][mask] for axis in range(n_axes)]
        neighbour = np.stack(moved)
        weight = np.min(edges) / np.asarray(edges)[:n_axes, None] * (neighbour >= 0)
        tables.append((np.where(neighbour >= 0, neighbour, own), weight.astype(dtype)))
    (following, link), (preceding, back_link) = tables
    touching = scipy.ndimage.generate_binary_structure(3, 1)
    touching[:, :, (0, 2)] &= n_axes == 3
    n_parts = scipy.ndimage.label(mask, touching)[1]
    return Lattice(
        following=jnp.asarray(following),
        preceding=jnp.asarray(preceding),
        link=jnp.asarray(link),
        back_link=jnp.asarray(back_link),
        n_parts=n_parts,
    )


def differences(lattice: Lattice, field: Array) -> Array:
    """Weighted differences to the next voxel along each axis, shape (A, V).

    Parameters
    ----------
    lattice : Lattice
        Of V voxels and A axes.
    field : Array, shape (V,)
        Values.

    Returns
    -------
    Array, shape (A, V)
        In the unit of `field`.
    """
    return lattice.link * (field[lattice.following] - field)


def adjoint(lattice: Lattice, values: Array) -> Array:
    """Adjoint of `differences`: (A, V) to (V,).

    Parameters
    ----------
    lattice : Lattice
        Of V voxels and A axes.
    values : Array, shape (A, V)
        One for each difference.

    Returns
    -------
    Array, shape (V,)
        In the unit of `values`.
    """
    axis = jnp.arange(len(values))[:, None]
    arriving = lattice.back_link * values[axis, lattice.preceding]
    return jnp.sum(arriving - lattice.link * values, axis=0)


def roughness(lattice: Lattice, field: Array, order: int) -> Array:
    """What a smooth field keeps small.

    Parameters
    ----------
    lattice : Lattice
        Of V voxels.
    field : Array, shape (V,)
        Values.
    order : int
        1 for differences of neighbours, 2 for the Laplacian.

    Returns
    -------
    Array, shape (A, V) or (1, V)
    """
    steps = differences(lattice, field)
    return steps if order == 1 else adjoint(lattice, steps)[None]


def roughness_adjoint(lattice: Lattice, values: Array, order: int) -> Array:
    """Adjoint of `roughness`: back to shape (V,).

    Parameters
    ----------
    lattice : Lattice
        Of V voxels and A axes.
    values : Array, shape (A, V) or (1, V)
        As `roughness` returns them.
    order : int
        1 or 2, as in `roughness`.

    Returns
    -------
    Array, shape (V,)
        In the unit of `values`.
    """
    if order == 1:
        return adjoint(lattice, values)
    return adjoint(lattice, differences(lattice, values[0]))


def roughness_diagonal(lattice: Lattice, order: int) -> Array:
    """Diagonal of the adjoint of the roughness times the roughness, shape (V,).

    Parameters
    ----------
    lattice : Lattice
        Of V voxels and A axes.
    order : int
        1 or 2, as in `roughness`.

    Returns
    -------
    Array, shape (V,)
        Without a unit.
    """
    degree = jnp.sum(lattice.link**2 + lattice.back_link**2, axis=0)
    if order == 1:
        return degree
    neighbours = jnp.sum(lattice.link**4 + lattice.back_link**4, axis=0)
    return degree**2 + neighbours


def roughness_gram_diagonal(lattice: Lattice, weight: Array, order: int) -> Array:
    """Diagonal of the adjoint of the roughness times its weights times the roughness, shape (V,).

    Parameters
    ----------
    lattice : Lattice
        Of V voxels and A axes.
    weight : Array, shape (A, V) or (1, V)
        Of each roughness.
    order : int
        1 or 2, as in `roughness`.

    Returns
    -------
    Array, shape (V,)
        In the unit of `weight`.
    """
    axis = jnp.arange(len(lattice.link))[:, None]
    if order == 1:
        arriving = weight[axis, lattice.preceding] * lattice.back_link**2
        return jnp.sum(weight * lattice.link**2 + arriving, axis=0)
    # A voxel enters its own Laplacian by its degree, those of its neighbours by the link's square.
    degree = jnp.sum(lattice.link**2 + lattice.back_link**2, axis=0)
    after = weight[0][lattice.following] * lattice.link**4
    before = weight[0][lattice.preceding] * lattice.back_link**4
    return weight[0] * degree**2 + jnp.sum(after + before, axis=0)
