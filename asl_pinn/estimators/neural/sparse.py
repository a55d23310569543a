"""Sparse components beside the networks: arteries, which no smooth field could represent.

A network smooth enough to be told from few voxels would smear a vessel over its neighbours. So the
networks are those of the rest of the model, fitted to what voxel-wise fits leave after the sparse
component; then each voxel is asked again, and what the networks say of its tissue is the prior.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.base import Estimate, voxel_status
from asl_pinn.estimators.neural.deviations import (
    LEAST_SD,
    deviate,
    deviation_sd,
    standard_deviations,
    starts_of,
)
from asl_pinn.estimators.voxelwise.grid import Normal, make_grid
from asl_pinn.estimators.voxelwise.mixture import Mixture, normals_of
from asl_pinn.estimators.voxelwise.objective import NllsOptions, check, values_of, with_noise
from asl_pinn.estimators.voxelwise.sparse import (
    Selection,
    noise_and_mixture,
    plain,
    select,
    select_under,
)
from asl_pinn.problem import Problem, predict, take

_GRID = NllsOptions()


class Found(NamedTuple):
    """Sparse components as voxel-wise fits find them.

    Attributes
    ----------
    mixture : Mixture
        Distribution of all parameters over the voxels.
    rest : Problem
        What is left of the data and of the model without them.
    """

    mixture: Mixture
    rest: Problem


def find_sparse(problem: Problem) -> Found:
    """Find a sparse component voxel by voxel.

    Parameters
    ----------
    problem : Problem
        Its model has a sparse component.

    Returns
    -------
    Found

    Raises
    ------
    InputError
        If there are too few measurements, or the model cannot be fitted to them.
    """
    check(problem, _GRID)
    noise_sd, mixture = noise_and_mixture(problem, _GRID)
    known = with_noise(problem, noise_sd)
    chosen = select(known, _GRID, begin=mixture)
    return Found(chosen.mixture, _rest(known, chosen))


def with_sparse(fields: Estimate, found: Found, problem: Problem, *, deviations: bool) -> Estimate:
    """Ask each voxel for the component again, and put it beside the fields.

    Parameters
    ----------
    fields : Estimate
        What networks made of `found.rest`.
    found : Found
        From `find_sparse`, the noise of its `rest` being known.
    problem : Problem
        Of the whole model.
    deviations : bool
        Whether other parameters may deviate from the fields in single voxels.

    Returns
    -------
    Estimate
        Of all parameters, those of the component 0 where it is absent.
    """
    rest, model = found.rest, problem.model
    scale = np.asarray([[p.scale] for p in model.parameters], problem.dtype)
    own = np.array([model.names.index(name) for name in rest.model.names])
    field = fields.values / scale[own]
    size = np.full(len(field), LEAST_SD, field.dtype)
    if deviations:
        size = deviation_sd(rest, field, starts_of(rest))
    known = with_noise(problem, float(rest.noise_sd))
    normals = _normals(found.mixture, known, field, size)
    on_grid = _resolved(normals, known)
    chosen = select_under(known, _GRID, on_grid, np.asarray(found.mixture.fraction))
    spread = np.zeros((len(model.names), problem.n_voxels), problem.dtype)
    if fields.sd is not None:
        spread[own] = fields.sd / scale[own]
    values, sd = np.zeros_like(spread), np.zeros_like(spread)
    parts = (
        (plain(known), chosen.without, ~chosen.present),
        (known, chosen.whole, chosen.present),
    )
    for each, at_grid, here in parts:
        which = np.flatnonzero(here)
        if not which.size:
            continue
        rows = np.array([model.names.index(name) for name in each.model.names])
        mean, about = (
            np.stack(column)[:, which] / scale[rows]
            for column in zip(*(normals[name] for name in each.model.names), strict=True)
        )
        at = deviate(take(each, which), mean, at_grid.x[:, which], about)
        values[rows[:, None], which] = scale[rows] * at.x
        of_field = spread[rows[:, None], which]
        sd[rows[:, None], which] = scale[rows] * standard_deviations(at, of_field)
    for i, p in enumerate(model.parameters):
        if p.follows in model.names:
            values[i] = np.minimum(values[i], values[model.names.index(p.follows)])
    return fields._replace(
        values=values,
        status=voxel_status(values, model),
        sd=None if fields.sd is None else sd,
    )


def _normals(
    mixture: Mixture, problem: Problem, field: FloatArray, sd: FloatArray
) -> dict[str, Normal]:
    """Prior of each parameter in each voxel: the field's, or the component's distribution."""
    model = problem.model
    normals = normals_of(model, mixture.whole)
    for p, at, size in zip(plain(problem).model.parameters, field, sd, strict=True):
        normals[p.name] = Normal(p.scale * at, p.scale * size)

    def of_each(value: ArrayLike) -> FloatArray:
        return np.full(problem.n_voxels, value, problem.dtype)

    return {name: Normal(*map(of_each, normal)) for name, normal in normals.items()}


def _resolved(normals: dict[str, Normal], problem: Problem) -> dict[str, Normal]:
    """No narrower than the grid: or it would be the prior alone that picks a grid point."""
    model = problem.model
    axes = make_grid(model, _GRID, problem.dtype).axes
    least = {p.name: 0.5 * (axis[1] - axis[0]) for p, axis in zip(model.kinked, axes, strict=True)}
    return {
        p.name: normals[p.name]._replace(
            sd=np.maximum(normals[p.name].sd, np.asarray(least.get(p.name, 0.0), problem.dtype))
        )
        for p in (*model.linear, *model.kinked)
    }


def _rest(known: Problem, chosen: Selection[FloatArray]) -> Problem:
    """The plain model's problem, of the data less what the component contributes."""
    values = values_of(np.where(chosen.present, chosen.whole.x, 0.0), known.model)
    small = plain(known)
    tissue = [values[known.model.names.index(name)] for name in small.model.names]
    component = np.asarray(predict(known, tuple(values))) - np.asarray(
        predict(small, tuple(tissue))
    )
    measured = known.measured - np.where(chosen.present, component, 0.0)
    return dataclasses.replace(small, measured=measured.astype(known.dtype))
