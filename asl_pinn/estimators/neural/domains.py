"""The data as networks see them: a slice or a volume for each training, and batches of it."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.errors import InputError
from asl_pinn.estimators.covariates import CovariatesName, tissue_covariates
from asl_pinn.estimators.neural.outputs import Scaling, scaling
from asl_pinn.estimators.options import ByParameter
from asl_pinn.estimators.voxelwise.grid import initial_noise, mean_values
from asl_pinn.estimators.voxelwise.objective import (
    NllsOptions,
    check,
    check_measurements,
    with_noise,
)
from asl_pinn.problem import Geometry, PerVoxel, Problem, join, split, take


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Domain:
    """What one training sees: a slice, or the whole volume, its voxels in random order.

    Voxels come first here, as batches are rows. Stacked for several trainings, every leaf has
    one more leading axis, and the voxels are padded to one length with copies of weight 0.

    Attributes
    ----------
    position : ndarray, shape (V, N)
        Coordinates of order one, N = 2 or 3, about the centre of the voxels.
    covariates : ndarray, shape (V, F)
        Maps of tissue that some parameters may follow.
    per_voxel : PerVoxel
        Data and constants: `measured` of shape (V, D), the others (V,).
    weight : ndarray, shape (V, D)
        Weight of each square: averages, over their mean; 0 for padding.
    fold : ndarray of int, shape (V, D)
        Which fold of the members' cross-validation each datum belongs to.
    outputs : Scaling
        What the networks' outputs stand for in each voxel, of shape (V, P).
    n_voxels : ndarray of int, shape ()
        Voxels that are not padding.
    signal_unit : ndarray, shape ()
        Largest mean difference [unit of delta_m].
    """

    position: FloatArray
    covariates: FloatArray
    per_voxel: PerVoxel
    weight: FloatArray
    fold: IntArray
    outputs: Scaling
    n_voxels: IntArray
    signal_unit: FloatArray


class Part(NamedTuple):
    """A domain and where it comes from.

    Attributes
    ----------
    number : int
        Index of the slice, 0 for the volume.
    place : ndarray of int, shape (V,)
        Place of its voxels among those of the problem.
    domain : Domain
    """

    number: int
    place: IntArray
    domain: Domain


class Batch(NamedTuple):
    """B voxels of a domain with all of their D measurements; voxels last, but for `position`.

    Attributes
    ----------
    position : Array, shape (B, N)
    covariates : Array, shape (B, F)
    problem : Problem
        Of these voxels.
    weight : Array, shape (D, B)
    fold : Array of int, shape (D, B)
    outputs : Scaling
        Of shape (P, B).
    """

    position: Array
    covariates: Array
    problem: Problem
    weight: Array
    fold: Array
    outputs: Scaling


def prepared(problem: Problem) -> Problem:
    """Check a problem, and estimate its noise.

    Parameters
    ----------
    problem : Problem
        To be fitted.

    Returns
    -------
    Problem
        With the initial noise estimate, from voxel-wise fits on a grid.

    Raises
    ------
    InputError
        If there are too few measurements to tell the noise from the fit, or the model cannot be
        fitted to them.
    """
    check(problem, NllsOptions())
    check_measurements(problem)
    return with_noise(problem, initial_noise(problem))


def split_domains(
    problem: Problem,
    *,
    seed: int,
    spatial_dims: int,
    coordinate_mm: float,
    covariates: CovariatesName,
    output_scale: ByParameter,
    n_folds: int = 1,
) -> list[Part]:
    """Split a problem into what is trained apart.

    Parameters
    ----------
    problem : Problem
        With its geometry.
    seed : int
        Of the folds and of the order of the voxels.
    spatial_dims : {2, 3}
        2 for a domain for each slice, 3 for one over the volume.
    coordinate_mm : float
        Length that a coordinate takes as one [mm].
    covariates : {'tissue', 'none'}
        Which covariates there are.
    output_scale : ByParameter
        As `outputs.scaling` has it.
    n_folds : int
        Number of folds.

    Returns
    -------
    list of Part
        One for each slice with voxels, or one in all.

    Raises
    ------
    InputError
        If the problem does not say where its voxels lie.
    """
    if problem.geometry is None:
        raise InputError("networks are functions of the position; the problem has no geometry")
    maps = tissue_covariates(problem.tissue, covariates)
    grid = np.argwhere(problem.geometry.where)
    slice_of = grid[:, 2] if spatial_dims == 2 else np.zeros(len(grid), int)
    parts = []
    for number in np.unique(slice_of):
        rng = np.random.default_rng((seed, int(number)))
        index = rng.permutation(np.flatnonzero(slice_of == number))
        chosen = take(problem, index)
        per_voxel, _ = split(chosen)
        measured = per_voxel.measured.T
        dtype = measured.dtype
        weight = problem.weights / np.mean(problem.weights)
        domain = Domain(
            position=_position(grid[index], problem.geometry, spatial_dims, coordinate_mm, dtype),
            covariates=maps[:, index].T,
            per_voxel=per_voxel._replace(measured=measured),
            weight=np.broadcast_to(weight, measured.shape).astype(dtype),
            fold=rng.integers(n_folds, size=measured.shape, dtype=np.int32),
            outputs=scaling(chosen, mean_values(chosen), output_scale),
            n_voxels=np.asarray(len(index), np.int32),
            signal_unit=np.max(np.abs(measured.mean(axis=0))),
        )
        parts.append(Part(int(number), index, domain))
    return parts


def stack(domains: list[Domain], length: int) -> Domain:
    """Put domains side by side, each padded to `length` voxels.

    Parameters
    ----------
    domains : list of Domain
        S domains, of at most `length` voxels each.
    length : int
        Voxels of each after padding; the added ones weigh nothing.

    Returns
    -------
    Domain
        Leaves with a leading axis of S.
    """

    def pad(domain: Domain) -> Domain:
        missing = length - len(domain.position)

        def fill(tree: Any, mode: Literal["edge", "constant"] = "edge") -> Any:
            def one(values: NDArray[Any]) -> NDArray[Any]:
                return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), mode=mode)

            return jax.tree.map(one, tree)

        return dataclasses.replace(
            domain,
            position=fill(domain.position),
            covariates=fill(domain.covariates),
            per_voxel=fill(domain.per_voxel),
            weight=fill(domain.weight, "constant"),
            fold=fill(domain.fold, "constant"),
            outputs=fill(domain.outputs),
        )

    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *map(pad, domains))


def rows_in_turn(domain: Domain, batch_size: int, step: Array) -> Array:
    """The voxels of a step, when a training passes over all of them in turn.

    Parameters
    ----------
    domain : Domain
        Shuffled already.
    batch_size : int
        Voxels of a step; 0 for all.
    step : Array of int, shape ()
        Steps done.

    Returns
    -------
    Array of int, shape (B,)
        Rows of the domain; padding among them where a step takes all.
    """
    n_padded = len(domain.weight)
    rows = jnp.arange(n_padded)
    if 0 < batch_size < n_padded:
        rows = (step * batch_size + rows[:batch_size]) % domain.n_voxels
    return rows


def batch_of(domain: Domain, shared: Problem, rows: Array) -> Batch:
    """Some voxels of a domain.

    Parameters
    ----------
    domain : Domain
        One.
    shared : Problem
        What all domains share, from `asl_pinn.problem.split`.
    rows : Array of int, shape (B,)
        Which.

    Returns
    -------
    Batch
    """

    def columns(tree: Any) -> Any:
        return jax.tree.map(lambda values: jnp.asarray(values)[rows].T, tree)

    return Batch(
        position=jnp.asarray(domain.position)[rows],
        covariates=jnp.asarray(domain.covariates)[rows],
        problem=join(columns(domain.per_voxel), shared),
        weight=columns(domain.weight),
        fold=columns(domain.fold),
        outputs=columns(domain.outputs),
    )


def weighted_mean(values: Array, weight: Array) -> Array:
    """Mean of an array with weights of the same shape; 0 where all of them are 0."""
    return jnp.sum(weight * values) / jnp.maximum(jnp.sum(weight), 1.0)


def _position(
    grid: IntArray,
    geometry: Geometry,
    spatial_dims: int,
    coordinate_mm: float,
    dtype: np.dtype[Any],
) -> FloatArray:
    """Coordinates about the middle of the voxels' extent, shape (V, N).

    They are millimetres over `coordinate_mm`, so that a network's bandwidth is one in the brain
    and not in the grid: finer voxels give more data, not rougher maps.
    """
    millimetres = (grid * voxel_sizes(geometry.affine))[:, :spatial_dims]
    centre = (millimetres.min(axis=0) + millimetres.max(axis=0)) / 2.0
    return ((millimetres - centre) / coordinate_mm).astype(dtype)
