"""A Gaussian blur in which voxels outside a mask take no part."""

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from asl_pinn.arrays import FloatArray

_FWHM_PER_SD = 2.0 * np.sqrt(2.0 * np.log(2.0))
_REACH = 4.0  # standard deviations


def blur_widths(
    fwhm: float, affine: FloatArray, shape: tuple[int, ...], n_axes: int = 3
) -> FloatArray:
    """Standard deviations of a blur along the axes of a volume.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum [mm].
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    shape : tuple of int
        (X, Y, Z).
    n_axes : int
        2 to blur within slices, 3 to blur volumes.

    Returns
    -------
    ndarray, shape (3,)
        In voxels; 0 along axes of one voxel.
    """
    from nibabel.affines import voxel_sizes  # takes a while, for which --help should not wait

    blurred = (np.asarray(shape) > 1) & (np.arange(3) < n_axes)
    return np.where(blurred, fwhm / _FWHM_PER_SD / voxel_sizes(affine), 0.0)


def blur_inside(volume: FloatArray, where: NDArray[np.bool_], widths: FloatArray) -> FloatArray:
    """Blur a volume, each voxel of a mask by its neighbours in the mask alone.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z)
        Values.
    where : ndarray of bool, shape (X, Y, Z)
        The mask.
    widths : ndarray, shape (3,)
        Standard deviations, from `blur_widths` [voxels].

    Returns
    -------
    ndarray, shape (X, Y, Z)
        Of the dtype of `volume`, which it is outside the mask.
    """
    # The blurred mask tells how much of the kernel's weight falls on it; what falls outside is
    # made up for, so that constants stay constants up to the edge (normalised convolution,
    # Knutsson and Westin, CVPR 1993).
    weight = np.where(where, _filter(where, widths), 1.0)
    blurred = _filter(np.where(where, volume, 0.0), widths) / weight
    return np.where(where, blurred, volume).astype(volume.dtype)


def blur_kernel(widths: FloatArray) -> FloatArray:
    """Weights with which a voxel far from the edge of the mask takes its neighbours.

    Parameters
    ----------
    widths : ndarray, shape (3,)
        Standard deviations, from `blur_widths` [voxels].

    Returns
    -------
    ndarray, shape (A, B, C)
        Odd numbers of voxels, the voxel itself in the middle; they sum to 1.
    """
    reach = np.ceil(_REACH * widths).astype(int)
    impulse = np.zeros(1 + 2 * reach)
    impulse[tuple(reach)] = 1.0
    return _filter(impulse, widths)


def _filter(volume: ArrayLike, widths: FloatArray) -> FloatArray:
    values = np.asarray(volume, np.float64)
    return scipy.ndimage.gaussian_filter(values, widths, mode="constant", truncate=_REACH)
