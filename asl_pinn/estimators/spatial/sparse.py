"""Amplitudes that most voxels do not have: a spike at 0 and a slab, told apart voxel by voxel.

A field smooth enough to be told from few voxels would smear a vessel over its neighbours, and one
without a preference for 0 would find a little of it everywhere. So the value of each voxel has a
normal prior about 0, narrow in voxels without the component and wide in those with it. In which
of them a voxel is, and where its arrival times are, has several minima and no slope to most of
them; so the grid of the voxel-wise fits is asked, under what the neighbours say of each voxel.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.spatial.fields import (
    FieldProblem,
    to_field,
    to_value,
)
from asl_pinn.estimators.spatial.noise import OwnFit
from asl_pinn.estimators.spatial.options import SpatialOptions
from asl_pinn.estimators.spatial.own_fit import own_fit, refined, unbounded
from asl_pinn.estimators.voxelwise.grid import (
    Normal,
    grid_posterior,
    initial_noise,
    make_grid,
)
from asl_pinn.estimators.voxelwise.objective import NllsOptions, misfit_of, with_noise
from asl_pinn.estimators.voxelwise.sparse import Selection, noise, plain, select, select_under
from asl_pinn.models.base import KineticModel, Parameter
from asl_pinn.models.compose import components
from asl_pinn.problem import Problem

_SPIKE = 0.02
"""SD of the spike over that of the slab: small enough to be none, wide enough to be inverted."""

_LEAST_FRACTION, _MOST_FRACTION = 1e-4, 0.9
_PSEUDO_VOXELS = 4.0
_GRID = NllsOptions()


class Sparsity(NamedTuple):
    """Spike and slab of one sparse amplitude.

    Attributes
    ----------
    fraction : Array, shape ()
        Of the voxels that have it.
    slab : Array, shape ()
        SD of its field in these.
    probability : Array, shape (V,)
        That a voxel has it.
    square : Array, shape (V,)
        Expected square of its field where a voxel has it.
    """

    fraction: Array
    slab: Array
    probability: Array
    square: Array

    @property
    def precision(self) -> Array:
        """Of the normal prior of each voxel's field about 0, shape (V,)."""
        slab = 1.0 / self.slab**2
        return slab * (self.probability + (1.0 - self.probability) / _SPIKE**2)


class Found(NamedTuple):
    """Fields of sparse components, and where they are.

    Attributes
    ----------
    fields : dict of str to Array, each of shape (V,)
        By name of the parameters of the components.
    sparsity : tuple of P (Sparsity or None)
        Of the parameters of the model.
    own : OwnFit
        What the best parameters of each voxel by itself leave.
    present : dict of str to (ndarray, ndarray), each of shape (V,)
        Mean and SD of the parameters of the components where a voxel has them, in their units.
    """

    fields: dict[str, Array]
    sparsity: tuple[Sparsity | None, ...]
    own: OwnFit
    present: dict[str, tuple[FloatArray, FloatArray]]


def first_sparse(options: SpatialOptions, known: FieldProblem, problem: Problem) -> Found:
    """Sparse components as voxel-wise fits find them.

    Parameters
    ----------
    options : SpatialOptions
        Links.
    known : FieldProblem
        V voxels.
    problem : Problem
        The same on the host.

    Returns
    -------
    Found
        Without fields where nothing is sparse.
    """
    if not components(problem.model):
        at_noise = with_noise(unbounded(problem), initial_noise(problem))
        x = refined(at_noise, grid_posterior(at_noise, _GRID).x)
        own = own_fit(at_noise, x, misfit_of(at_noise, x), np.ones(problem.n_voxels))
        return Found({}, (None,) * len(known.parameters), own, {})
    at_noise = with_noise(problem, noise(problem, _GRID))
    return _found(options, known, at_noise, select(at_noise, _GRID))


def sparse_among_neighbours(
    options: SpatialOptions,
    known: FieldProblem,
    problem: Problem,
    noise_sd: Array,
    conditional: dict[str, tuple[Array, Array]],
    now: Found,
) -> Found:
    """Ask the grid again, each voxel under what the fields of its neighbours say of it.

    Parameters
    ----------
    options : SpatialOptions
        Links.
    known : FieldProblem
        V voxels.
    problem : Problem
        The same on the host.
    noise_sd : Array, shape (D,)
        Of each measurement [unit of measured].
    conditional : dict of str to (Array, Array), each of shape (V,)
        Mean and SD of each field that is not sparse, those of its neighbours given.
    now : Found
        As it is.

    Returns
    -------
    Found
    """
    variance = np.asarray(noise_sd) ** 2
    weighted = dataclasses.replace(problem, weights=np.asarray(problem.weights) / variance)
    at_noise = with_noise(weighted, 1.0)

    def normal(p: Parameter, centre: Array, sparsity: Sparsity | None) -> Normal:
        if sparsity is None:
            return _in_unit(p, *conditional[p.name], centre, options)
        return Normal(0.0, p.scale * sparsity.slab)

    normals = {
        p.name: normal(p, centre, sparsity)
        for p, centre, sparsity in zip(known.parameters, known.centres, now.sparsity, strict=True)
        if p.linear or p.kinked
    }
    by_voxel = jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf, problem.dtype), (problem.n_voxels,)), normals
    )
    [fraction] = [each.fraction for each in now.sparsity if each is not None]
    chosen = select_under(at_noise, _GRID, by_voxel, fraction)
    return _found(options, known, at_noise, chosen)


def _in_unit(
    p: Parameter, mean: Array, sd: Array, centre: Array, options: SpatialOptions
) -> Normal:
    """Normal distribution of a field as one of the parameter, to first order."""
    value, slope = jax.jvp(
        lambda field: to_value(p, field, centre, options), (mean,), (jnp.ones_like(mean),)
    )
    return Normal(value, slope * sd)


def _found(
    options: SpatialOptions,
    known: FieldProblem,
    problem: Problem,
    chosen: Selection[FloatArray],
) -> Found:
    """Fields of the sparse components and their spikes and slabs, from voxel-wise posteriors."""
    model = problem.model
    probability = chosen.probability
    linear, kinked = ([p.name for p in group] for group in (model.linear, model.kinked))
    axes = make_grid(model, _GRID, problem.dtype).axes
    fields: dict[str, Array] = {}
    sparsity: dict[str, Sparsity] = {}
    present: dict[str, tuple[FloatArray, FloatArray]] = {}
    for p, centre in zip(known.parameters, known.centres, strict=True):
        for amplitude, others in components(model).items():
            if p.name == amplitude:
                i = linear.index(p.name)
                mean, variance = chosen.whole.mean[i], chosen.whole.variance[i]
                present[p.name] = mean, np.sqrt(variance)
                fields[p.name] = jnp.asarray(probability * mean / p.scale, problem.dtype)
                square = (mean**2 + variance) / p.scale**2
                total = np.sum(probability) + _PSEUDO_VOXELS
                slab = np.sqrt((probability @ square + _PSEUDO_VOXELS) / total)
                fraction = np.clip(np.mean(probability), _LEAST_FRACTION, _MOST_FRACTION)
                sparsity[p.name] = Sparsity(
                    *(
                        jnp.asarray(each, problem.dtype)
                        for each in (fraction, slab, probability, square)
                    )
                )
            elif p.name in others and p.name in kinked:
                k = kinked.index(p.name)
                axis, at = np.asarray(axes[k]), chosen.whole.probability[k]
                mean = axis @ at
                # A point stands for an interval, whose variance is a twelfth of its square.
                variance = axis**2 @ at - mean**2 + (axis[1] - axis[0]) ** 2 / 12.0
                present[p.name] = mean, np.sqrt(np.maximum(variance, 0.0))
                weight = probability + np.finfo(np.float32).eps
                usual = np.sum(weight * mean) / np.sum(weight)
                value = probability * mean + (1.0 - probability) * usual
                fields[p.name] = jnp.asarray(to_field(p, value, centre, options), problem.dtype)
    small = plain(problem)
    x = refined(small, chosen.without.x)
    whole = refined(problem, chosen.whole.x)
    misfit = np.where(chosen.present, misfit_of(problem, whole), misfit_of(small, x))
    own = own_fit(small, x, misfit, 1.0 - probability)
    found = tuple(sparsity.get(p.name) for p in known.parameters)
    return Found(fields, found, own, present)


def with_sparse(
    model: KineticModel, found: Found, values: FloatArray, sd: FloatArray, samples: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Put what the grid tells of sparse components in place of the modes of their fields.

    Whether a vessel's blood arrives at the beginning or the end of a sub-bolus may make no
    difference to the data: then a mode says nothing, and a curvature about it too much.

    Parameters
    ----------
    model : KineticModel
        With P parameters.
    found : Found
        Where the components are, and their distributions.
    values, sd : ndarray, shape (P, V)
        Parameters and their standard deviations, in their units.
    samples : ndarray, shape (S, P, V)
        Draws of them.

    Returns
    -------
    values, sd : ndarray, shape (P, V)
        Parameters of a component are 0 in voxels that more probably lack it. The standard deviation
        of its amplitude says how sure that is.
    samples : ndarray, shape (S, P, V)
        With the new means and standard deviations, and nothing where there is none.
    """
    values, sd, samples = values.copy(), sd.copy(), samples.copy()
    for i, each in enumerate(found.sparsity):
        if each is None:
            continue
        p, probability = model.parameters[i], np.asarray(each.probability)
        has = probability > 0.5
        for name in (p.name, *components(model)[p.name]):
            if name not in found.present:
                continue
            k, (mean, own_sd) = model.names.index(name), found.present[name]
            deviation = samples[:, k] - values[k]
            width = np.maximum(np.sqrt(np.mean(deviation**2, axis=0)), np.finfo(np.float32).tiny)
            drawn = np.clip(mean + deviation / width * own_sd, model[name].lower, model[name].upper)
            samples[:, k] = np.where(has, drawn, 0.0)
            values[k], sd[k] = np.where(has, mean, 0.0), np.where(has, own_sd, 0.0)
        square = np.where(
            has, (1.0 - probability) * values[i] ** 2, probability * p.scale**2 * each.square
        )
        sd[i] = np.sqrt(sd[i] ** 2 + square)
    return values, sd, samples
