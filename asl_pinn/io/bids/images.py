"""NIfTI images as arrays, checked before they are trusted."""

import dataclasses
import gzip
import logging
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.io.bids.sidecar import require_file

MAX_VOXELS = 2**30
_MAX_EXTENSION = 2**26
_EXTENSION_FLAG = 4  # bytes behind the header, before the voxels of a .nii file
_MAX_DEFLATE_RATIO = 1032
_MAX_SURPLUS = 2**20
_VOXEL_EDGES = (0.05, 200.0)
_GRID_TOLERANCE = 1e-3
_REFUSED_FAULT = 30  # of nibabel's levels: from here on it would guess what was meant
_SILENT = logging.Logger("nibabel", logging.CRITICAL + 1)
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
    affine: FloatArray


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
    require_file(path)
    try:
        with np.errstate(all="ignore"), nib.imageglobals.LoggingOutputSuppressor():
            image = _read(path, ndim)
            values = np.asarray(image.dataobj, dtype=np.float32)
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: does not fit into memory; crop or split the series") from None
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


def _read(path: Path, ndim: Sequence[int]) -> nib.Nifti1Image:
    """Image whose header was checked before its voxels were read, to the checksum at the end."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        head = stream.read(nib.Nifti2Header.sizeof_hdr)
        kinds = (nib.Nifti1Image, nib.Nifti2Image)
        kind = next((k for k in kinds if k.header_class.may_contain_header(head)), None)
        if kind is None:
            raise InputError(f"{path}: not a NIfTI image; convert it to .nii.gz")
        header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
        _check_offset(path, header)
        header.check_fix(logger=_SILENT, error_level=_REFUSED_FAULT)
        claimed = _claimed_bytes(path, header, ndim)
        content = head + stream.read(claimed - len(head)) if claimed > len(head) else head
        if len(content) < claimed:
            raise InputError(
                f"{path}: truncated, the header claims {claimed} bytes and the file holds "
                f"{len(content)}; replace the file"
            )
        if len(stream.read(_MAX_SURPLUS + 1)) > _MAX_SURPLUS:
            raise InputError(f"{path}: holds far more than its header claims; replace the file")
    return kind.from_bytes(content)


def _check_offset(path: Path, header: nib.Nifti1Header) -> None:
    offset = header["vox_offset"]
    least = header.sizeof_hdr + _EXTENSION_FLAG
    if not least <= offset <= _MAX_EXTENSION:
        raise InputError(
            f"{path}: header claims that the voxels begin at byte {offset}, and they can from "
            f"{least} to {_MAX_EXTENSION}; replace the file"
        )


def _claimed_bytes(path: Path, header: nib.Nifti1Header, ndim: Sequence[int]) -> int:
    """Size of the uncompressed file that a header claims, if it can be an image to quantify."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: holds {dtype} values; real-valued magnitude data are needed")
    if len(shape) not in ndim:
        accepted = " or ".join(f"{n}D" for n in ndim)
        raise InputError(f"{path}: image is {len(shape)}D with shape {shape}, not {accepted}")
    if min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise InputError(f"{path}: header claims an impossible shape, {shape}; replace the file")
    offset = header.get_data_offset()
    slope, intercept = header["scl_slope"], header["scl_inter"]
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise InputError(
            f"{path}: header claims a scale of {slope:g} and an offset of {intercept:g}, by which "
            "no values are known; repair the header"
        )
    claimed = offset + math.prod(shape) * dtype.itemsize
    ratio = _MAX_DEFLATE_RATIO if path.suffix == ".gz" else 1
    if claimed > path.stat().st_size * ratio:
        raise InputError(
            f"{path}: header claims shape {shape}, more than a file of this size can hold; "
            "the image is truncated, replace the file"
        )
    _check_affine(path, header.get_best_affine())
    return claimed


def _check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise InputError(f"{path}: affine is not invertible; repair the header's orientation")
    edges = nib.affines.voxel_sizes(affine)
    if edges.min() < _VOXEL_EDGES[0] or edges.max() > _VOXEL_EDGES[1]:
        stated = " x ".join(f"{edge:g}" for edge in edges)
        raise InputError(
            f"{path}: header states voxels of {stated} mm; repair its orientation, in millimetres"
        )
