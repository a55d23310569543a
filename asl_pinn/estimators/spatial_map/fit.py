"""Rounds of better fields and better strengths, the check of their SDs, and the maps."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, PerfusionMaps, Status, status_volume, to_volume
from asl_pinn.estimators import voxelwise
from asl_pinn.estimators.spatial_map.evidence import update
from asl_pinn.estimators.spatial_map.noise import Noise, first_noise
from asl_pinn.estimators.spatial_map.options import SpatialOptions, check
from asl_pinn.estimators.spatial_map.posterior import improve
from asl_pinn.estimators.spatial_map.prior import Strength, orders
from asl_pinn.estimators.spatial_map.scene import Fields, Pair, Scene, make_scene, perfusion
from asl_pinn.execution import Execution
from asl_pinn.fields import roughness

_FIRST_PRECISION = (3.0, 100.0)
_FIRST_SPREAD = 0.3

# Of the spread of the draws, so that intervals cover the errors of simulated slices: the Laplace
# approximation knows of one mode, and of edges as if they were sure.
_CBF_SD_FACTOR = {"tissue": 1.0, "none": 1.4}
_ATT_SD_FACTOR = 1.3


def fit(data: AslData, options: SpatialOptions, execution: Execution) -> PerfusionMaps:
    """Fit CBF and ATT of all voxels at once, with random-field priors.

    The prior of each map says that neighbours differ little (or, of order 2, that the map
    bends little), the heavier its tails the sharper the edges it allows. CBF may follow
    tissue maps besides. Precisions and noise maximise the marginal likelihood, in MacKay's
    fixed point over draws from the Laplace approximation.

    Parameters
    ----------
    data : AslData
        At least 3 delays, so that the noise can be told from the fit.
    options : SpatialOptions
        Scale, orders, law of the roughness.
    execution : Execution
        Seed of the draws, floating-point type, progress bar.

    Returns
    -------
    PerfusionMaps
        Posterior modes, and standard deviations from the spread of the draws.

    Raises
    ------
    InputError
        If there are fewer than 3 delays, no valid voxel, or an option is out of range.

    References
    ----------
    Penny et al., NeuroImage 24:350-362 (2005), and Groves et al., NeuroImage 45:795-809
    (2009), for spatial priors whose strength the data tell.
    """
    check(options)
    voxelwise.check(data, voxelwise.NllsOptions())
    scene, first_noise_sd = make_scene(data, options, execution.dtype)
    key = jax.random.key(execution.seed)
    mode, draws, noise = _solve(options, scene, first_noise_sd, key, execution)
    cbf, att = (np.asarray(values) for values in _to_maps(options, scene, mode, draws))
    return _assemble(data, options, cbf, att, noise)


def _solve(
    options: SpatialOptions, scene: Scene, noise_sd: float, key: Array, execution: Execution
) -> tuple[Fields, Fields, Noise]:
    """Mode, draws of the deviation from it, and the noise, after the last round."""
    mode, draws, strength = _start(options, scene, noise_sd)
    hidden = None if execution.progress else True
    # Runs that differ in these alone share their compilation.
    core = dataclasses.replace(options, rounds=1, rtol=1.0)
    with tqdm(total=options.rounds, desc="spatial-map", disable=hidden, file=sys.stderr) as bar:
        for _ in range(options.rounds):
            mode, draws, determined = improve(core, scene, strength, mode, draws, key)
            strength, change = update(core, scene, strength, mode, draws, determined)
            bar.update()
            if float(change) < options.rtol:
                break
    return mode, draws, strength.noise


def _spread(values: FloatArray) -> FloatArray:
    """Root mean square distance of the draws from the mode, which comes first, shape (V,)."""
    return np.sqrt(np.mean((values[1:] - values[0]) ** 2, axis=0))


def _start(
    options: SpatialOptions, scene: Scene, noise_sd: float
) -> tuple[Fields, Fields, Strength]:
    """Constant fields, (V,), draws of their deviations, (S, V), and first strengths."""
    m0 = scene.voxels.m0
    flat = jnp.zeros_like(m0)
    draws = jnp.full((options.samples, len(m0)), _FIRST_SPREAD, m0.dtype)
    ones = [jnp.ones_like(roughness(scene.lattice, m0, order)) for order in orders(options)]
    precision = Pair(*(jnp.asarray(value, m0.dtype) for value in _FIRST_PRECISION))
    noise = first_noise(noise_sd, scene.voxels.delta_m)
    strength = Strength(precision, Pair(*ones), noise)
    slope = jnp.zeros(scene.features.shape[1], m0.dtype)
    slopes = jnp.zeros((options.samples, len(slope)), m0.dtype)
    return Fields(flat, flat, slope), Fields(draws, draws, slopes), strength


@functools.partial(jax.jit, static_argnames="options")
def _to_maps(
    options: SpatialOptions, scene: Scene, mode: Fields, draws: Fields
) -> tuple[Array, Array]:
    """Maps of the mode, and of the mode with each deviation added, shape (S + 1, V)."""
    states = jax.tree.map(
        lambda field, more: jnp.concatenate([field[None], field + more]), mode, draws
    )
    return jax.vmap(lambda fields: perfusion(options, scene, fields))(states)


def _assemble(
    data: AslData,
    options: SpatialOptions,
    cbf: FloatArray,
    att: FloatArray,
    noise: Noise,
) -> PerfusionMaps:
    """Volumes of the mode, which comes first, and of the spread of the draws after it."""
    valid = data.valid
    cbf_sd = _CBF_SD_FACTOR[options.guide] * _spread(cbf)
    att_sd = _ATT_SD_FACTOR * _spread(att)
    cbf, att = cbf[0], att[0]
    at_bound = (att <= 1.0001 * options.att_min) | (att >= 0.9999 * options.att_max)
    state = np.where(at_bound, Status.ON_BOUND, Status.FITTED)
    return PerfusionMaps(
        cbf=to_volume(cbf, valid),
        att=to_volume(att, valid),
        status=status_volume(state, data),
        cbf_sd=to_volume(cbf_sd, valid),
        att_sd=to_volume(att_sd, valid),
        noise_sd=float(jnp.sqrt(jnp.mean(noise.sd**2))),
    )
