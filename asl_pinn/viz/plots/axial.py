"""Axial slices for display, in neurological convention."""

import dataclasses
import math
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray


@dataclasses.dataclass(frozen=True)
class AxialView:
    """A volume as a stack of axial pictures in neurological convention.

    Attributes
    ----------
    slices : ndarray, shape (Z, Y, X)
        Slices from inferior to superior, rows from posterior to anterior, columns from
        left to right.
    aspect : float
        Height of a pixel over its width.
    height : ndarray, shape (Z,)
        Position of each slice's centre along the superior axis [mm].
    """

    slices: FloatArray
    aspect: float
    height: FloatArray


def axial_view(volume: NDArray[Any], affine: FloatArray) -> AxialView:
    """Reorient a volume for display, whatever the order and direction of its axes.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z)
        Numbers or booleans.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].

    Returns
    -------
    AxialView
        Slices along the axis closest to inferior-superior, in float64.
    """
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(volume, np.float64), affine))
    width, depth, _ = nib.affines.voxel_sizes(image.affine)
    nx, ny, nz = image.shape
    centres = [((nx - 1) / 2.0, (ny - 1) / 2.0, k) for k in range(nz)]
    height = nib.affines.apply_affine(image.affine, centres)[:, 2]
    return AxialView(image.get_fdata().transpose(2, 1, 0), float(depth / width), height)


def framed(slices: FloatArray, brain: FloatArray) -> FloatArray:
    """Cut slices to the brain and a margin of 8 % of its extent.

    Parameters
    ----------
    slices : ndarray, shape (Z, Y, X)
        Slices of an `AxialView`.
    brain : ndarray, shape (K, Y, X)
        Slices whose non-zero pixels, one at least, have to stay in the frame.

    Returns
    -------
    ndarray, shape (Z, Y', X')
        Slices with NaN where the frame reaches beyond the edge.
    """
    filled = np.any(brain, axis=0)
    spans = [np.flatnonzero(filled.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    margin = math.ceil(0.08 * max(last - first + 1 for first, last in spans))
    padded = np.pad(slices, ((0, 0), (margin, margin), (margin, margin)), constant_values=np.nan)
    rows, columns = (slice(first, last + 1 + 2 * margin) for first, last in spans)
    return padded[:, rows, columns]
