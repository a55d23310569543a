"""NIfTI images as arrays, checked before they are trusted."""

import dataclasses
import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from asl_pinn.errors import InputError

MAX_VOXELS = 2**31
_MAX_DEFLATE_RATIO = 1032
_CHUNK = 2**20
_GRID_TOLERANCE = 1e-3
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    OverflowError,
)


@dataclasses.dataclass(frozen=True)
class Image:
    """An image and where it came from.

    Attributes
    ----------
    path : Path
    values : ndarray of float32, shape (X, Y, Z) or (X, Y, Z, V)
        With the scale factors of the header applied; NaN where a value is not finite.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    """

    path: Path
    values: NDArray[np.float32]
    affine: NDArray[np.float64]


def load_image(path: Path, ndim: Sequence[int] = (3,)) -> Image:
    """Load a NIfTI image of real numbers.

    The size that the header claims is checked against the file before memory is taken.

    Parameters
    ----------
    path : Path
        A .nii or .nii.gz file.
    ndim : sequence of int
        Numbers of dimensions to accept.

    Returns
    -------
    Image

    Raises
    ------
    InputError
        If the file is missing, unreadable, truncated, too large, of another number of
        dimensions, or holds complex numbers or colours.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            image: Any = nib.load(path, mmap=False)
            _check_header(path, image, ndim)
            values = np.asarray(_verified(path, image).dataobj, dtype=np.float32)
    except InputError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: unreadable or truncated NIfTI image ({reason}); replace the file"
        ) from None
    values = np.where(np.isfinite(values), values, np.float32(np.nan))
    return Image(path, values, image.affine)


def check_same_grid(image: Image, reference: Image) -> None:
    """Refuse an image whose voxels are not those of another.

    Parameters
    ----------
    image : Image
        What is checked.
    reference : Image
        What it must match.

    Raises
    ------
    InputError
        If the spatial shapes differ, or the affines by more than 0.001 mm.
    """
    shape, expected = image.values.shape[:3], reference.values.shape[:3]
    if shape != expected:
        raise InputError(
            f"{image.path}: shape {shape} is not that of {reference.path.name}, {expected}; "
            "resample it to the ASL grid"
        )
    if not np.allclose(image.affine, reference.affine, rtol=0.0, atol=_GRID_TOLERANCE):
        raise InputError(
            f"{image.path}: affine differs from that of {reference.path.name}; "
            "resample it to the ASL grid"
        )


def _verified(path: Path, image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Image read from a compressed file to its very end, where the checksum is."""
    if path.suffix != ".gz":
        return image
    n_bytes = math.prod(image.shape) * image.get_data_dtype().itemsize
    proxy: Any = image.dataobj
    with gzip.open(path) as stream:
        content = stream.read(proxy.offset + n_bytes)
        while stream.read(_CHUNK):
            pass
    return type(image).from_bytes(content)


def _check_header(path: Path, image: SpatialImage, ndim: Sequence[int]) -> None:
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(f"{path}: not a NIfTI image; convert it to .nii.gz")
    shape, dtype = image.shape, image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: holds {dtype} values; real-valued magnitude data are needed")
    if len(shape) not in ndim:
        accepted = " or ".join(f"{n}D" for n in ndim)
        raise InputError(f"{path}: image is {len(shape)}D with shape {shape}, not {accepted}")
    if min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise InputError(f"{path}: header claims an impossible shape, {shape}; replace the file")
    ratio = _MAX_DEFLATE_RATIO if path.suffix == ".gz" else 1
    if math.prod(shape) * dtype.itemsize > path.stat().st_size * ratio:
        raise InputError(
            f"{path}: header claims shape {shape}, more than a file of this size can hold; "
            "the image is truncated, replace the file"
        )
    if not np.isfinite(image.affine).all() or np.linalg.det(image.affine[:3, :3]) == 0.0:
        raise InputError(f"{path}: affine is not invertible; repair the header's orientation")
