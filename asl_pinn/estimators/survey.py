"""One look at a grid of transit times in every voxel: where to start, and what each time tells."""

import dataclasses
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from asl_pinn.arrays import FloatArray
from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData
from asl_pinn.estimators.by_att import TYPICAL_CBF, Profile, profile
from asl_pinn.estimators.voxelwise import (
    CBF_UNIT,
    NllsOptions,
    noise_from_squares,
    noise_sample,
    penalty,
    root_mean_square,
)
from asl_pinn.least_squares import soft_l1
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels

_WIDE = 1e4  # in the unit of what it bounds: too wide to matter

A = TypeVar("A", FloatArray, Array)


class Population(NamedTuple):
    """Normal laws of CBF and ATT over the voxels, each of shape () [mL/100g/min, s]."""

    cbf_mean: Array
    cbf_sd: Array
    att_mean: Array
    att_sd: Array


class Survey(NamedTuple, Generic[A]):
    """What a grid of G transit times tells of V voxels.

    Attributes
    ----------
    cost : ndarray, shape (V,)
        Least cost, penalty included.
    x : ndarray, shape (V, 2)
        Where, with CBF inside its bounds: CBF / 50 and ATT [s].
    share : ndarray, shape (V, G)
        Probability of each transit time, given data and population.
    cbf_mean, cbf_variance : ndarray, shape (V,)
        Of CBF, over all transit times [mL/100g/min, and its square].
    """

    cost: A
    x: A
    share: A
    cbf_mean: A
    cbf_variance: A


def survey(
    voxels: Voxels,
    noise_sd: float,
    data: AslData,
    options: NllsOptions,
    population: Population | None = None,
) -> Survey[FloatArray]:
    """Try a grid of transit times in all voxels, each time with its best CBF.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    noise_sd : float
        Standard deviation of one difference image [unit of delta_m].
    data : AslData
        The volumes they come from.
    options : NllsOptions
        Bounds, penalty and grid.
    population : Population, optional
        Law of CBF and ATT over the voxels; `guessed` without it.

    Returns
    -------
    Survey
    """
    dtype = voxels.m0.dtype
    # Of the whole volume, so that a sample of it is served by the same compilation.
    size = chunk_for(int(np.count_nonzero(data.mask)), options.chunk_size)
    averages = np.asarray(data.n_averages, dtype)
    laws = guessed(options, dtype) if population is None else population
    constants = laws, np.asarray(noise_sd, dtype), data.protocol, averages, options
    return map_chunked(_survey, (voxels,), size, constants)


def guessed(options: NllsOptions, dtype: DTypeLike) -> Population:
    """Population before anything is known of it.

    Parameters
    ----------
    options : NllsOptions
        Guess of ATT.
    dtype : dtype
        Floating-point type of the result.

    Returns
    -------
    Population
    """
    numbers = TYPICAL_CBF, TYPICAL_CBF, options.att_guess, options.att_guess_sd
    return Population(*(jnp.asarray(number, dtype) for number in numbers))


def att_grid(options: NllsOptions, dtype: DTypeLike) -> Array:
    """Transit times that are tried, shape (G,) [s]."""
    return jnp.linspace(options.att_min, options.att_max, options.att_grid, dtype=dtype)


def law(tried: Profile, population: Population, att: Array) -> tuple[Array, Array, Array]:
    """What data and population say together.

    Parameters
    ----------
    tried : Profile
        Of V voxels.
    population : Population
        Prior of each voxel.
    att : Array, shape (G,)
        The transit times [s].

    Returns
    -------
    share, mean, variance : Array, shape (G, V)
        Probabilities of the transit times, and mean and variance of CBF at each
        [mL/100g/min, and its square].
    """
    cbf, prior = TYPICAL_CBF * tried.share, population.cbf_sd**2
    precision = tried.information / TYPICAL_CBF**2
    pull = 1.0 / (1.0 + prior * precision)
    gap = population.cbf_mean - cbf
    log_share = (
        -tried.cost
        - 0.5 * gap**2 * precision * pull
        - 0.5 * ((att[:, None] - population.att_mean) / population.att_sd) ** 2
    )
    weight = jnp.sqrt(pull) * jnp.exp(log_share - jnp.max(log_share, axis=0))
    return weight / jnp.sum(weight, axis=0), cbf + pull * gap, pull * prior


def rough_noise(voxels: Voxels, data: AslData, options: NllsOptions) -> float:
    """Noise of one difference image that the best fits on the grid of transit times leave.

    Parameters
    ----------
    voxels : Voxels
        V voxels, of which a sample is looked at.
    data : AslData
        The volumes they come from.
    options : NllsOptions
        Bounds and grid.

    Returns
    -------
    float
        Standard deviation [unit of delta_m].
    """
    scale = max(root_mean_square(voxels.delta_m), float(np.finfo(np.float32).tiny))
    # Half the sum of squares, of misfits that are of order one.
    plain = dataclasses.replace(options, loss_scale=_WIDE, att_guess_sd=_WIDE)
    squares = 2.0 * scale**2 * survey(noise_sample(voxels), scale, data, plain).cost
    return noise_from_squares(squares, data.protocol.n_delays, voxels)


def mean_curve(voxels: Voxels, data: AslData) -> tuple[float, float]:
    """CBF [mL/100g/min] and ATT [s] that match the mean curve of some voxels.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    data : AslData
        The volumes they come from.

    Returns
    -------
    cbf, att : float
    """
    mean = jax.tree.map(lambda values: values.mean(axis=0, keepdims=True), voxels)
    options = NllsOptions()
    [(cbf, att)] = survey(mean, rough_noise(mean, data, options), data, options).x
    return float(CBF_UNIT * cbf), float(att)


def _survey(
    voxels: Voxels,
    population: Population,
    noise_sd: Array,
    protocol: Protocol,
    n_averages: Array,
    options: NllsOptions,
) -> Survey[Array]:
    att = att_grid(options, voxels.m0.dtype)
    tried = profile(voxels, att, noise_sd, protocol, n_averages, options.loss_scale)
    share, mean, variance = law(tried, population, att)
    cbf_mean = jnp.sum(share * mean, axis=0)
    cbf_variance = jnp.sum(share * (variance + (mean - cbf_mean) ** 2), axis=0)
    return Survey(*_least(tried, att, options), share.T, cbf_mean, cbf_variance)


def _least(tried: Profile, att: Array, options: NllsOptions) -> tuple[Array, Array]:
    """Least cost, and where; what a bound of CBF adds is taken as one more residual."""
    share = jnp.clip(tried.share, 0.0, options.cbf_max / TYPICAL_CBF)
    held = soft_l1(jnp.sqrt(tried.information) * (tried.share - share), options.loss_scale)
    pull = soft_l1(penalty(att, options), options.loss_scale)
    costs = tried.cost + held + pull[:, None]
    best = jnp.argmin(costs, axis=0)
    cost, share = (jnp.take_along_axis(values, best[None], axis=0)[0] for values in (costs, share))
    return cost, jnp.stack([TYPICAL_CBF / CBF_UNIT * share, att[best]], axis=-1)
