"""Equilibrium magnetisation M0 from the images that were taken of it."""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jax.typing import ArrayLike
from numpy.typing import NDArray

from asl_pinn.acquisition.constants import PARTITION_COEFFICIENTS, T1_FLUID
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.numerics.smoothing import blur_inside, blur_widths

_AVERAGED = 2.0  # voxels at half maximum, over which the values are averaged that a rim gets


class Reference(NamedTuple):
    """A tissue whose M0 stands for that of blood.

    Attributes
    ----------
    label : str
        'CSF' or 'WM'.
    t1 : float
        Its longitudinal relaxation time [s].
    partition_coefficient : float
        Its water over that of blood [mL/g].
    """

    label: str
    t1: float
    partition_coefficient: float


def reference(label: str, t1_white_matter: float) -> Reference:
    """Constants of a reference tissue.

    Parameters
    ----------
    label : str
        'CSF' or 'WM'.
    t1_white_matter : float
        At the field strength [s].

    Returns
    -------
    Reference
    """
    t1 = T1_FLUID if label == "CSF" else t1_white_matter
    return Reference(label, t1, PARTITION_COEFFICIENTS[label])


def relaxed_fraction(repetition_time: float, t1: ArrayLike) -> FloatArray:
    """Part of the magnetisation that is back after a repetition time, 1 - exp(-TR/T1).

    Parameters
    ----------
    repetition_time : float
        TR [s].
    t1 : array_like
        Longitudinal relaxation time [s].

    Returns
    -------
    ndarray
        Of the shape of `t1`; 1 where it is not positive.

    Examples
    --------
    >>> relaxed_fraction(2.0, [1.33, 4.3]).round(3)
    array([0.778, 0.372])
    """
    times = np.asarray(t1, np.float64)
    sound = np.isfinite(times) & (times > 0.0)
    return np.where(sound, -np.expm1(-repetition_time / np.where(sound, times, 1.0)), 1.0)


def relaxed_fraction_of_tissues(
    repetition_time: float, gm: FloatArray, wm: FloatArray, t1_gm: float, t1_wm: float
) -> FloatArray:
    """The same of voxels of several tissues, each weighted by its water.

    Parameters
    ----------
    repetition_time : float
        TR [s].
    gm, wm : ndarray, shape (X, Y, Z)
        Fractions of grey and white matter; the rest is fluid.
    t1_gm, t1_wm : float
        Of pure grey and white matter [s].

    Returns
    -------
    ndarray, shape (X, Y, Z)
    """
    fluid = np.clip(1.0 - gm - wm, 0.0, 1.0)
    parts = {"GM": (gm, t1_gm), "WM": (wm, t1_wm), "CSF": (fluid, T1_FLUID)}
    water = {
        label: PARTITION_COEFFICIENTS[label] * np.clip(np.nan_to_num(part), 0.0, 1.0)
        for label, (part, _) in parts.items()
    }
    total = sum(water.values())
    back = sum(
        water[label] * relaxed_fraction(repetition_time, t1) for label, (_, t1) in parts.items()
    )
    return np.asarray(back / np.maximum(total, 1e-6))


def without_rim(
    m0: FloatArray, mask: NDArray[np.bool_], n_voxels: int, affine: FloatArray
) -> FloatArray:
    """M0 whose outermost voxels of the mask take the values of those further inside.

    Voxels at the edge of a brain are partly outside of it, or on the flank of a filter, so that
    their M0 is too small and CBF too high.

    Parameters
    ----------
    m0 : ndarray, shape (X, Y, Z)
        Magnetisation [a.u.].
    mask : ndarray of bool, shape (X, Y, Z)
        The edge of the image is no edge of the mask.
    n_voxels : int
        Width of the rim.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].

    Returns
    -------
    ndarray, shape (X, Y, Z)
        Of the dtype and unit of `m0`. A voxel of the rim has the value of the nearest one inside,
        averaged over its neighbours there.

    Raises
    ------
    InputError
        If nothing is left inside.
    """
    from nibabel.affines import voxel_sizes  # takes a while, for which --help should not wait

    across = np.zeros((3, 3, 3), bool)
    across[1, 1, 1] = True
    for axis, size in enumerate(mask.shape):
        if size > 1:
            across[tuple(slice(None) if k == axis else 1 for k in range(3))] = True
    sound = mask & np.isfinite(m0) & (m0 > 0.0)
    inner = sound & scipy.ndimage.binary_erosion(mask, across, n_voxels, border_value=1)
    if not inner.any():
        raise InputError(f"a rim of {n_voxels} voxels is all of the mask; make it narrower")
    edges = voxel_sizes(affine)
    widths = blur_widths(_AVERAGED * float(edges.min()), affine, mask.shape)
    averaged = blur_inside(np.where(inner, m0, 0.0), inner, widths)
    nearest = scipy.ndimage.distance_transform_edt(
        ~inner, sampling=edges, return_distances=False, return_indices=True
    )
    return np.where(mask & ~inner, averaged[tuple(nearest)], m0).astype(m0.dtype)


def smoothed(
    m0: FloatArray, mask: NDArray[np.bool_], fwhm: float, affine: FloatArray
) -> FloatArray:
    """M0 blurred inside the mask: the sensitivity of the coils, without noise and tissues.

    Parameters
    ----------
    m0 : ndarray, shape (X, Y, Z)
        Magnetisation [a.u.].
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels outside it count for nothing.
    fwhm : float
        Full width at half maximum [mm].
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].

    Returns
    -------
    ndarray, shape (X, Y, Z)
        Of the dtype of `m0`, which it is outside the mask and where that is not positive.
    """
    sound = mask & np.isfinite(m0) & (m0 > 0.0)
    return blur_inside(m0, sound, blur_widths(fwhm, affine, m0.shape))


def from_reference(
    m0: FloatArray,
    where: NDArray[np.bool_],
    tissue: Reference,
    partition_coefficient: float,
    sensitivity: ArrayLike = 1.0,
) -> tuple[FloatArray, float]:
    """M0 of tissue that a reference tissue implies: M0 of blood is that over its own coefficient.

    Parameters
    ----------
    m0 : ndarray, shape (X, Y, Z)
        Magnetisation, relaxed [a.u.].
    where : ndarray of bool, shape (X, Y, Z)
        Voxels of the reference tissue.
    tissue : Reference
        Which it is.
    partition_coefficient : float
        Of the tissue that is quantified [mL/g].
    sensitivity : array_like, broadcastable to (X, Y, Z)
        Of the coils, around 1.

    Returns
    -------
    m0 : ndarray, shape (X, Y, Z)
        Of the dtype of the argument: one value, times the sensitivity.
    value : float
        Median M0 of the reference at a sensitivity of 1.

    References
    ----------
    Chappell et al., Introduction to Perfusion Quantification using Arterial Spin Labelling,
    Oxford University Press (2017), chapter 2.
    """
    bias = np.broadcast_to(np.asarray(sensitivity, np.float64), m0.shape)
    value = float(np.median(m0[where] / bias[where]))
    made = value * partition_coefficient / tissue.partition_coefficient * bias
    return made.astype(m0.dtype), value
