"""What flows through the package: difference images in, perfusion maps out."""

import dataclasses
import enum
import functools
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.protocol import Protocol


class Status(enum.IntEnum):
    """What became of a voxel."""

    OUTSIDE = 0
    FITTED = 1
    ON_BOUND = 2
    NOT_CONVERGED = 3
    SKIPPED = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AslData:
    """Decoded difference images with all that is needed to quantify them.

    Attributes
    ----------
    delta_m : ndarray, shape (X, Y, Z, D)
        Control - label differences [a.u.].
    m0 : ndarray, shape (X, Y, Z)
        Equilibrium magnetisation of tissue, in the unit of `delta_m`.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to quantify.
    t1_tissue : ndarray, shape (X, Y, Z)
        Longitudinal relaxation time of tissue [s].
    readout_delay : ndarray, shape (X, Y, Z)
        What a slice's readout adds to every post-labelling delay [s]; 0 for 3D readouts.
    n_averages : ndarray, shape (D,)
        How many differences were averaged for each delay: the weight of its squares.
    protocol : Protocol
        Timing and constants.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    """

    delta_m: FloatArray
    m0: FloatArray
    mask: NDArray[np.bool_]
    t1_tissue: FloatArray
    readout_delay: FloatArray
    n_averages: FloatArray
    protocol: Protocol
    affine: FloatArray

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Voxels of the mask with finite data, M0 > 0 and T1 >= 0.1 s, shape (X, Y, Z)."""
        images = np.moveaxis(self.delta_m, -1, 0)
        finite = functools.reduce(np.logical_and, map(np.isfinite, images))
        positive = (self.m0 > 0.0) & np.isfinite(self.m0)
        relaxing = (self.t1_tissue >= 0.1) & np.isfinite(self.t1_tissue)
        return np.asarray(self.mask, dtype=bool) & finite & positive & relaxing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerfusionMaps:
    """Result of an estimator; every map is 0 outside the fitted voxels.

    Attributes
    ----------
    cbf : ndarray, shape (X, Y, Z)
        Cerebral blood flow [mL/100g/min].
    att : ndarray, shape (X, Y, Z)
        Arterial transit time [s].
    status : ndarray of int8, shape (X, Y, Z)
        `Status` of each voxel.
    cbf_sd, att_sd : ndarray or None
        Standard deviations in the same units, where the method has them.
    noise_sd : float or None
        Estimated standard deviation of one difference image [unit of `delta_m`].
    """

    cbf: FloatArray
    att: FloatArray
    status: NDArray[np.int8]
    cbf_sd: FloatArray | None = None
    att_sd: FloatArray | None = None
    noise_sd: float | None = None


def to_volume(values: Array | NDArray[Any], where: NDArray[np.bool_]) -> NDArray[Any]:
    """Put one value per selected voxel back into a volume that is 0 elsewhere.

    Parameters
    ----------
    values : array, shape (V,)
        In the order of `volume[where]`.
    where : ndarray of bool, shape (X, Y, Z)
        The V selected voxels.

    Returns
    -------
    ndarray, shape (X, Y, Z)
        Of the dtype of `values`.
    """
    flat = np.asarray(values)
    volume = np.zeros(where.shape, dtype=flat.dtype)
    volume[where] = flat
    return volume


def status_volume(state: NDArray[np.integer[Any]], data: AslData) -> NDArray[np.int8]:
    """Status of every voxel, from those that were fitted.

    Parameters
    ----------
    state : array, shape (V,)
        `Status` of the valid voxels, in the order of `volume[data.valid]`.
    data : AslData
        What was fitted; the mask's other voxels were skipped.

    Returns
    -------
    ndarray of int8, shape (X, Y, Z)
    """
    valid = data.valid
    status = to_volume(state.astype(np.int8), valid)
    status[np.asarray(data.mask, dtype=bool) & ~valid] = Status.SKIPPED
    return status


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Phantom:
    """A brain whose perfusion is known; every map has shape (X, Y, Z).

    Attributes
    ----------
    cbf : ndarray
        Cerebral blood flow [mL/100g/min].
    att : ndarray
        Arterial transit time [s].
    m0 : ndarray
        Equilibrium magnetisation of tissue [a.u.].
    t1_tissue : ndarray
        Longitudinal relaxation time of tissue [s].
    mask : ndarray of bool
        The brain; the maps are 0 outside it, but for `t1_tissue`, which stays positive.
    grey_matter : ndarray of bool
        Voxels that are mostly grey matter, inside the brain.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    """

    cbf: FloatArray
    att: FloatArray
    m0: FloatArray
    t1_tissue: FloatArray
    mask: NDArray[np.bool_]
    grey_matter: NDArray[np.bool_]
    affine: FloatArray
