"""The Boston ASL Template and Simulator (BATS), read from the user's copy."""

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from asl_pinn.arrays import FloatArray
from asl_pinn.data import Phantom
from asl_pinn.errors import InputError

BATS_URL = "https://github.com/manueltaso/batsasltemplate"

_FOLDER = "BATS_1mm_unsymmetrized"
_FILES = ("BATS_cbf_1c", "BATS_att", "BATS_m0", "BATS_t1q")
_IN_PLANE = 3  # voxels of 1 mm


def bats_phantom(folder: Path) -> tuple[Phantom, str]:
    """Read the Boston ASL Template and Simulator at 3 x 3 mm in plane.

    Every third voxel along the first two axes is kept, from the first one on: on that grid
    an interpolation returns the voxels themselves, so brain is never mixed with
    background. Slices stay 1 mm thick.

    Parameters
    ----------
    folder : Path
        `BATS_1mm_unsymmetrized` or the folder that holds it, with the maps `BATS_cbf_1c`
        [mL/100g/min], `BATS_att` and `BATS_t1q` [s or ms] and `BATS_m0` [a.u.] as `.nii`
        or `.nii.gz`, 1 mm isotropic.

    Returns
    -------
    phantom : Phantom
        Maps in float64, axes closest to right, anterior, superior. The mask holds the
        voxels where every map is positive and finite; outside it T1 is the brain's median.
        There being no tissue maps, grey matter is where CBF is above the middle of its
        10th and 90th percentile in the brain.
    att_unit : str
        's' or 'ms', the unit in which the file holds ATT.

    Raises
    ------
    InputError
        If files are missing, unreadable or of different grids, voxels are not 1 mm, or
        times are neither in seconds nor in milliseconds.

    References
    ----------
    Taso, Boston ASL Template and Simulator, https://github.com/manueltaso/batsasltemplate
    """
    paths = _find(Path(folder))
    (cbf, att, m0, t1), affine = _load(paths)
    mask = np.logical_and.reduce([np.isfinite(v) & (v > 0.0) for v in (cbf, att, m0, t1)])
    if not mask.any():
        raise InputError(f"{paths[0].parent}: no voxel has positive CBF, ATT, M0 and T1")
    att_unit, att_scale = _time_unit(att[mask], paths[1])
    _, t1_scale = _time_unit(t1[mask], paths[3])
    low, high = np.percentile(cbf[mask], [10.0, 90.0])
    phantom = Phantom(
        values={
            "cbf": np.where(mask, cbf, 0.0),
            "att": np.where(mask, att * att_scale, 0.0),
        },
        m0=np.where(mask, m0, 0.0),
        t1_tissue=np.where(mask, t1, np.median(t1[mask])) * t1_scale,
        mask=mask,
        grey_matter=mask & (cbf > (low + high) / 2.0),
        affine=affine,
    )
    return phantom, att_unit


def _find(folder: Path) -> list[Path]:
    """Paths of the four maps, in the order of `_FILES`."""
    inner = folder / _FOLDER
    folder = inner if inner.is_dir() else folder
    candidates = [[folder / f"{name}{ext}" for ext in (".nii.gz", ".nii")] for name in _FILES]
    found = [[path for path in paths if path.is_file()] for paths in candidates]
    missing = [name for name, paths in zip(_FILES, found, strict=True) if not paths]
    if missing:
        raise InputError(
            f"{folder}: missing {', '.join(missing)} (.nii or .nii.gz); get {_FOLDER} of the "
            f"Boston ASL Template and Simulator from {BATS_URL}"
        )
    return [paths[0] for paths in found]


def _load(paths: list[Path]) -> tuple[list[FloatArray], FloatArray]:
    """Volumes on one grid, thinned in plane, and their affine."""
    images = [_read(path) for path in paths]
    reference = images[0]
    for path, image in zip(paths, images, strict=True):
        same_grid = image.shape == reference.shape and np.allclose(
            image.affine, reference.affine, atol=1e-3
        )
        if not same_grid:
            raise InputError(f"{path}: shape or affine differs from that of {paths[0]}")
    zooms = np.array(reference.header.get_zooms())
    if reference.ndim != 3 or not np.allclose(zooms, 1.0, atol=1e-3):
        raise InputError(f"{paths[0]}: not a volume of 1 mm voxels, but {zooms.tolist()} mm")
    volumes = [np.asanyarray(image.dataobj)[::_IN_PLANE, ::_IN_PLANE] for image in images]
    affine = reference.affine @ np.diag([_IN_PLANE, _IN_PLANE, 1.0, 1.0])
    return [volume.astype(np.float64) for volume in volumes], affine


def _read(path: Path) -> nib.Nifti1Image:
    """Image with its data in memory, axes closest to right, anterior, superior."""
    try:
        image: Any = nib.load(path)
        data = np.asanyarray(image.dataobj, dtype=np.float32)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: unreadable ({reason}); download it again") from error
    return nib.as_closest_canonical(nib.Nifti1Image(data, image.affine))


def _time_unit(times: FloatArray, path: Path) -> tuple[str, float]:
    """Unit of positive times, 's' or 'ms', and its length in seconds."""
    median = float(np.median(times))
    if 0.1 <= median <= 5.0:
        return "s", 1.0
    if 100.0 <= median <= 5000.0:
        return "ms", 1e-3
    raise InputError(
        f"{path}: times in the brain run from {times.min():.3g} to {times.max():.3g} with median "
        f"{median:.3g}, which are neither seconds nor milliseconds; check the file"
    )
