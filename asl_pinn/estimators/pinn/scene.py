"""The data as the networks see them: lists of voxels, one for each training."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.data import AslData
from asl_pinn.estimators import survey, voxelwise
from asl_pinn.estimators.pinn.options import PinnOptions
from asl_pinn.guide import tissue_features
from asl_pinn.voxels import Voxels, gather


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """What one training sees: a slice, or the whole volume, its voxels in random order.

    Stacked for several trainings, every leaf has a leading axis, and the voxels are padded
    to one length with copies of weight 0.

    Attributes
    ----------
    position : ndarray, shape (V, N)
        Coordinates of order one, N = 2 or 3, about the centre of the voxels.
    features : ndarray, shape (V, F)
        Tissue maps that CBF may follow.
    voxels : Voxels
        Their data and constants.
    weight : ndarray, shape (V, D)
        Weight of each square: averages, over their mean; 0 for padding.
    fold : ndarray of int, shape (V, D)
        Which of the members' held-out shares each datum belongs to.
    n_voxels : ndarray of int, shape ()
        Voxels that are not padding.
    cbf, att : ndarray, shape ()
        Constants that match the mean curve [mL/100g/min, s].
    signal_unit : ndarray, shape ()
        Largest mean difference [unit of delta_m].
    noise_sd : ndarray, shape ()
        Rough standard deviation of one difference image [unit of delta_m].
    """

    position: FloatArray
    features: FloatArray
    voxels: Voxels
    weight: FloatArray
    fold: IntArray
    n_voxels: IntArray
    cbf: FloatArray
    att: FloatArray
    signal_unit: FloatArray
    noise_sd: FloatArray


class Part(NamedTuple):
    """A scene and where it comes from.

    Attributes
    ----------
    number : int
        Index of the slice, 0 for the volume.
    place : ndarray of int, shape (V,)
        Place of its voxels in `volume[data.valid]`.
    scene : Scene
    """

    number: int
    place: IntArray
    scene: Scene


def split(
    data: AslData, options: PinnOptions, seed: int, dtype: np.dtype
) -> tuple[list[Part], float]:
    """Split the data into what is trained apart.

    Parameters
    ----------
    data : AslData
        Volumes.
    options : PinnOptions
        Resolved.
    seed : int
        Of the held-out shares and of the order of the voxels.
    dtype : numpy dtype
        Floating-point type.

    Returns
    -------
    parts : list of Part
        One for each slice with valid voxels, or one in all if `spatial_dims` is 3.
    noise_sd : float
        Rough standard deviation of one difference image [unit of delta_m].
    """
    voxels = gather(data, dtype)
    features = tissue_features(voxels, options.guide, squares=False)
    noise_sd = survey.rough_noise(voxels, data, voxelwise.NllsOptions())
    grid = np.argwhere(data.valid)
    slice_of = grid[:, 2] if options.spatial_dims == 2 else np.zeros(len(grid), int)
    parts = []
    for number in np.unique(slice_of):
        rng = np.random.default_rng((seed, int(number)))
        index = rng.permutation(np.flatnonzero(slice_of == number))
        chosen = jax.tree.map(lambda values, index=index: values[index], voxels)
        position = _position(grid[index], data, options)
        scene = _scene(position, features[index], chosen, data, options, rng, noise_sd)
        parts.append(Part(int(number), index, scene))
    return parts, noise_sd


def stack(scenes: list[Scene], length: int) -> Scene:
    """Put scenes side by side, each padded to `length` voxels.

    Parameters
    ----------
    scenes : list of Scene
        S scenes, of at most `length` voxels each.
    length : int
        Voxels of each after padding; the added ones weigh nothing.

    Returns
    -------
    Scene
        Leaves with a leading axis of S.
    """

    def pad(scene: Scene) -> Scene:
        missing = length - len(scene.position)

        def fill(values: NDArray[Any], mode: Literal["edge", "constant"]) -> NDArray[Any]:
            return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), mode=mode)

        return dataclasses.replace(
            scene,
            position=fill(scene.position, "edge"),
            features=fill(scene.features, "edge"),
            voxels=jax.tree.map(lambda values: fill(values, "edge"), scene.voxels),
            weight=fill(scene.weight, "constant"),
            fold=fill(scene.fold, "constant"),
        )

    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *map(pad, scenes))


def _position(grid: IntArray, data: AslData, options: PinnOptions) -> FloatArray:
    """Coordinates about the middle of the voxels' extent, shape (V, N).

    They are millimetres over `options.coordinate_mm`, so that a network's bandwidth is one
    in the brain and not in the grid: finer voxels give more data, not rougher maps.
    """
    edges = voxel_sizes(data.affine)
    millimetres = (grid * edges)[:, : options.spatial_dims]
    centre = (millimetres.min(axis=0) + millimetres.max(axis=0)) / 2.0
    return (millimetres - centre) / options.coordinate_mm


def _scene(
    position: FloatArray,
    features: FloatArray,
    voxels: Voxels,
    data: AslData,
    options: PinnOptions,
    rng: np.random.Generator,
    noise_sd: float,
) -> Scene:
    dtype = voxels.delta_m.dtype
    shape = voxels.delta_m.shape
    cbf, att = survey.mean_curve(voxels, data)
    largest = np.max(np.abs(voxels.delta_m.mean(axis=0)))
    weight = data.n_averages / np.mean(data.n_averages)
    return Scene(
        position=position.astype(dtype),
        features=features,
        voxels=voxels,
        weight=np.broadcast_to(weight, shape).astype(dtype),
        fold=rng.integers(options.n_folds, size=shape, dtype=np.int32),
        n_voxels=np.asarray(len(position), np.int32),
        cbf=dtype.type(cbf),
        att=dtype.type(att),
        signal_unit=dtype.type(largest),
        noise_sd=dtype.type(noise_sd),
    )
