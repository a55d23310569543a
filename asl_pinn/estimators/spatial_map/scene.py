"""The data, what is known beforehand, and the fields that are to be found."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from nibabel.affines import voxel_sizes

from asl_pinn.data import AslData
from asl_pinn.estimators import survey, voxelwise
from asl_pinn.estimators.spatial_map.options import SpatialOptions
from asl_pinn.fields import Lattice, make_lattice
from asl_pinn.guide import tissue_features
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, gather, predict

_KNEE = 4.0  # relative CBF is linear above about 1 / _KNEE


class Fields(NamedTuple):
    """What is fitted: random fields of shape (V,), and multiples of the features.

    Attributes
    ----------
    cbf : Array, shape (V,)
        Relative CBF, less what the features explain.
    att : Array, shape (V,)
        Logarithm of relative ATT.
    slope : Array, shape (F,)
        Multiples of the features that are added to `cbf`.
    """

    cbf: Array
    att: Array
    slope: Array


class Pair(NamedTuple):
    """The same thing for CBF and ATT."""

    cbf: Any
    att: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """The data and what is known beforehand.

    Attributes
    ----------
    voxels : Voxels
        V voxels.
    protocol : Protocol
        Timing and constants.
    n_averages : Array, shape (D,)
        Images behind each delay.
    lattice : Lattice
        Their neighbours.
    features : Array, shape (V, F)
        Known maps that CBF may follow without a penalty.
    cbf, att : Array, shape ()
        Constants that match the mean curve [mL/100g/min, s].
    """

    voxels: Voxels
    protocol: Protocol
    n_averages: Array
    lattice: Lattice
    features: Array
    cbf: Array
    att: Array


def make_scene(data: AslData, options: SpatialOptions, dtype: np.dtype) -> tuple[Scene, float]:
    """Collect what a fit needs.

    Parameters
    ----------
    data : AslData
        Volumes.
    options : SpatialOptions
        Neighbours and guide.
    dtype : numpy dtype
        Floating-point type.

    Returns
    -------
    scene : Scene
    noise_sd : float
        First estimate, from the best voxel-wise fits on a grid [unit of delta_m].
    """
    voxels = gather(data, dtype)
    noise_sd = survey.rough_noise(voxels, data, voxelwise.NllsOptions())
    cbf, att = survey.mean_curve(voxels, data)
    features = tissue_features(voxels, options.guide, squares=True)
    scene = Scene(
        voxels=jax.tree.map(jnp.asarray, voxels),
        protocol=data.protocol,
        n_averages=jnp.asarray(data.n_averages, dtype),
        lattice=make_lattice(data.valid, voxel_sizes(data.affine), options.spatial_dims, dtype),
        features=jnp.asarray(features, dtype),
        cbf=jnp.asarray(cbf, dtype),
        att=jnp.asarray(att, dtype),
    )
    return scene, noise_sd


def perfusion(options: SpatialOptions, scene: Scene, fields: Fields) -> tuple[Array, Array]:
    """CBF [mL/100g/min] and ATT [s] of fields, both positive, each of shape (V,).

    Parameters
    ----------
    options : SpatialOptions
        Scale of CBF.
    scene : Scene
        V voxels, D delays.
    fields : Fields
        What is fitted.

    Returns
    -------
    cbf, att : Array, shape (V,)
    """
    if options.cbf_scale == "log":
        relative = jnp.exp(fields.cbf + scene.features @ fields.slope)
    else:
        relative = fields.cbf + scene.features @ fields.slope
        relative = jax.nn.softplus(_KNEE * relative + math.log(math.expm1(_KNEE))) / _KNEE
    return scene.cbf * relative, scene.att * jnp.exp(fields.att)


def curves(options: SpatialOptions, scene: Scene, fields: Fields) -> Array:
    """Difference signal of fields, shape (V, D) [unit of delta_m].

    Parameters
    ----------
    options : SpatialOptions
        Scale of CBF.
    scene : Scene
        V voxels, D delays.
    fields : Fields
        What is fitted.

    Returns
    -------
    Array, shape (V, D)
        In the unit of the voxels' M0.
    """
    cbf, att = perfusion(options, scene, fields)
    return jax.vmap(predict, in_axes=(0, 0, 0, None))(cbf, att, scene.voxels, scene.protocol)
