"""How voxels with and without a sparse component are distributed: empirical Bayes.

A sample of the voxels tells of how many of them have the component, and the distributions of all
parameters: those under which its data are likeliest.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.arrays import FloatArray
from asl_pinn.estimators.voxelwise.curves import (
    Curves,
    Grid,
    look_up,
    make_grid,
    searched,
    tabulate,
)
from asl_pinn.estimators.voxelwise.grid import (
    Normal,
    PopulationPrior,
    Posterior,
    Profile,
    first_population,
    posterior,
    profile,
)
from asl_pinn.estimators.voxelwise.objective import NllsOptions, noise_sample
from asl_pinn.models.base import KineticModel
from asl_pinn.models.compose import components, without_sparse
from asl_pinn.numerics.fixed_point import fixed_point
from asl_pinn.problem import Problem, take

_FIRST_FRACTION = 0.1
_LEAST_FRACTION = 1e-4
_LOGITS = np.log(_LEAST_FRACTION / (1.0 - _LEAST_FRACTION)) * np.array([1.0, -1.0])
_ROUNDS = 60
_SETTLED = 5e-4
"""Change of a mean over its scale, of the logarithm of an SD, or of the fraction's logit."""
_PSEUDO_VOXELS = 4.0
"""Voxels' worth of the first guess of a component's distribution, so that none is enough."""
_TILE = 512
"""Voxels at a time: samples of all sizes are served by one compilation."""


class Mixture(NamedTuple):
    """Distribution of the parameters over voxels, some of which have a sparse component.

    Attributes
    ----------
    fraction : array_like, shape ()
        Of the voxels that have it.
    without, whole : PopulationPrior
        Of the parameters of voxels without and with it.
    """

    fraction: ArrayLike
    without: PopulationPrior
    whole: PopulationPrior


class _Tile(NamedTuple):
    """What the grid tells of some voxels, without and with the component.

    Those that fill the tile up have the weight 0, others 1.
    """

    without: Profile
    whole: Profile
    weight: FloatArray


class _Told(NamedTuple):
    """Sums over voxels: of those that have the component, and of moments of each parameter.

    First and second ones; of parameters of the component, in voxels that have it.
    """

    present: Any
    moments: dict[str, tuple[Any, Any]]


def population(model: KineticModel, normals: Mapping[str, Normal]) -> PopulationPrior:
    """Prior of a model's parameters.

    Parameters
    ----------
    model : KineticModel
        With amplitudes and kinked parameters.
    normals : mapping of str to Normal
        Of all these, and perhaps of others, by name.

    Returns
    -------
    PopulationPrior
    """
    return PopulationPrior(
        tuple(normals[p.name] for p in model.linear), tuple(normals[p.name] for p in model.kinked)
    )


def normals_of(model: KineticModel, prior: PopulationPrior) -> dict[str, Normal]:
    """Normal distributions by name: what `population` makes a prior of.

    Parameters
    ----------
    model : KineticModel
        With amplitudes and kinked parameters.
    prior : PopulationPrior
        Of these.

    Returns
    -------
    dict of str to Normal
    """
    names = (p.name for p in (*model.linear, *model.kinked))
    return dict(zip(names, (*prior.linear, *prior.kinked), strict=True))


def mixture_prior(problem: Problem, options: NllsOptions, begin: Mixture | None = None) -> Mixture:
    """Distribution under which the data of a sample of the voxels are likeliest.

    Parameters
    ----------
    problem : Problem
        V voxels, whose noise is known; its model has a sparse component.
    options : NllsOptions
        Grid and loss.
    begin : Mixture, optional
        Where to begin: what was found for nearly the same.

    Returns
    -------
    Mixture

    References
    ----------
    Mitchell and Beauchamp, J Am Stat Assoc 83:1023-1032 (1988), for spike and slab; Dempster, Laird
    and Rubin, J R Stat Soc B 39:1-38 (1977), for expectation and maximisation.
    """
    sample = noise_sample(problem)
    model, small = sample.model, without_sparse(sample.model)
    first = normals_of(model, first_population(sample))
    normals, fraction = first, _FIRST_FRACTION
    if begin is not None:
        normals, fraction = normals_of(model, begin.whole), float(np.asarray(begin.fraction))
    tiles = _tiles(sample, options)
    models = searched(small), searched(model)

    def renew(state: FloatArray) -> FloatArray:
        now, share = _unpacked(state, model)
        constants = jax.tree.map(lambda value: np.asarray(value, sample.dtype), (now, share))
        parts = [_expected(models, tile, *constants, options) for tile in tiles]
        told = jax.tree.map(lambda *each: float(np.sum(each, dtype=np.float64)), *parts)
        new, share = _maximised(told, now, first, model, sample.n_voxels)
        return _packed(new, share, model)

    found = fixed_point(renew, _packed(normals, fraction, model), tolerance=_SETTLED, most=_ROUNDS)
    settled, share = jax.tree.map(
        lambda value: np.asarray(value, sample.dtype), _unpacked(found, model)
    )
    return Mixture(share, population(small, settled), population(model, settled))


def _tiles(sample: Problem, options: NllsOptions) -> list[_Tile]:
    """Profiles of a sample, which stay on the device."""
    both = [dataclasses.replace(sample, model=without_sparse(sample.model)), sample]
    told = [(each, *tabulate(each, options)) for each in both]
    tiles = []
    for begin in range(0, sample.n_voxels, _TILE):
        index = np.arange(begin, begin + _TILE)
        inside = np.minimum(index, sample.n_voxels - 1)
        without, whole = (
            _profile(
                dataclasses.replace(take(each, inside), model=searched(each.model)),
                tables,
                which[inside],
                options,
            )
            for each, tables, which in told
        )
        tiles.append(_Tile(without, whole, np.asarray(index == inside, sample.dtype)))
    return tiles


@jax.jit
def _profile(problem: Problem, tables: Curves, which: Array, options: NllsOptions) -> Profile:
    grid = make_grid(problem.model, options, problem.dtype)
    return profile(problem, look_up(tables, which), grid, options.f_scale)


@jax.jit
def _expected(
    models: tuple[KineticModel, KineticModel],
    tile: _Tile,
    normals: dict[str, Normal],
    fraction: Array,
    options: NllsOptions,
) -> _Told:
    """Expectations over the voxels of a tile."""
    found = []
    for model, tried in zip(models, (tile.without, tile.whole), strict=True):
        grid = make_grid(model, options, tile.weight.dtype)
        at = posterior(tried, population(model, normals), grid.points, model)
        found.append((_moments(model, grid, at), at.log_evidence))
    (without, log_without), (whole, log_whole) = found
    log_odds = jnp.log(fraction) - jnp.log1p(-fraction) + log_whole - log_without
    present = tile.weight * jax.nn.sigmoid(log_odds)
    moments: dict[str, tuple[Any, Any]] = {}
    for name, of_whole in whole.items():
        sums = [present @ moment for moment in of_whole]
        if name in without:
            absent = tile.weight - present
            sums = [
                each + absent @ moment for each, moment in zip(sums, without[name], strict=True)
            ]
        moments[name] = sums[0], sums[1]
    return _Told(jnp.sum(present), moments)


def _maximised(
    told: _Told,
    now: Mapping[str, Normal],
    first: Mapping[str, Normal],
    model: KineticModel,
    n_voxels: int,
) -> tuple[dict[str, Normal], float]:
    """Distributions and fraction under which what is expected is likeliest."""
    own, new = _own(model), {}
    for p in (*model.linear, *model.kinked):
        if p.knowledge is not None:
            new[p.name] = now[p.name]
            continue
        count, (total, squares) = float(n_voxels), told.moments[p.name]
        if p.name in own:
            mean, sd = _numbers(first[p.name])
            count = told.present + _PSEUDO_VOXELS
            total += _PSEUDO_VOXELS * mean
            squares += _PSEUDO_VOXELS * (mean**2 + sd**2)
        centre = 0.0 if p.sparse else total / count
        new[p.name] = Normal(centre, max(squares / count - centre**2, 1e-12) ** 0.5)
    share = np.clip(told.present / n_voxels, _LEAST_FRACTION, 1.0 - _LEAST_FRACTION)
    return new, float(share)


def _numbers(normal: Normal) -> tuple[float, float]:
    return float(np.asarray(normal.mean)), float(np.asarray(normal.sd))


def _own(model: KineticModel) -> set[str]:
    """Names of the parameters of sparse components."""
    return {name for amplitude, rest in components(model).items() for name in (amplitude, *rest)}


def _packed(normals: Mapping[str, Normal], fraction: float, model: KineticModel) -> FloatArray:
    """Means over the parameters' scales, logarithms of SDs, logit of the fraction."""
    parameters = (*model.linear, *model.kinked)
    numbers = [_numbers(normals[p.name]) for p in parameters]
    means = [mean / p.scale for p, (mean, _) in zip(parameters, numbers, strict=True)]
    log_sds = [np.log(sd / p.scale) for p, (_, sd) in zip(parameters, numbers, strict=True)]
    return np.array([*means, *log_sds, np.log(fraction) - np.log1p(-fraction)])


def _unpacked(state: FloatArray, model: KineticModel) -> tuple[dict[str, Normal], float]:
    parameters = (*model.linear, *model.kinked)
    means, log_sds = np.split(state[:-1], 2)
    normals = {
        p.name: Normal(p.scale * mean, p.scale * np.exp(log_sd))
        for p, mean, log_sd in zip(parameters, means, log_sds, strict=True)
    }
    logit = float(np.clip(state[-1], *_LOGITS))
    return normals, 1.0 / (1.0 + np.exp(-logit))


def _moments(model: KineticModel, grid: Grid, found: Posterior) -> dict[str, tuple[Array, Array]]:
    """First and second moment of each parameter in each voxel, by name."""
    moments = {}
    for p, mean, variance in zip(model.linear, found.mean, found.variance, strict=True):
        moments[p.name] = (
            jnp.sum(found.probability * mean, axis=0),
            jnp.sum(found.probability * (variance + mean**2), axis=0),
        )
    for p, values, axis in zip(model.kinked, grid.points, grid.axes, strict=True):
        # A point stands for an interval about it, whose variance is a twelfth of its square.
        within = (axis[1] - axis[0]) ** 2 / 12.0
        moments[p.name] = values @ found.probability, values**2 @ found.probability + within
    return moments
