"""Which voxels to quantify: a given mask, the dataset's own, or one made from M0."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import IMAGE_EXTENSIONS, AslRun
from asl_pinn.io.bids.images import Image, check_same_grid, load_image
from asl_pinn.io.bids.inheritance import file_entities
from asl_pinn.io.bids.places import ANATOMICAL, anatomy_folders, is_of_run

_PADDING = 4


def find_mask(run: AslRun, reference: Image) -> Path | None:
    """Brain mask of a run among the dataset's derivatives.

    Looked at are `*_mask.nii[.gz]` in `derivatives/*/<folder of the run>` and beside the series,
    whose entities do not contradict the run's, but for masks in another space, of one tissue or of
    grey matter. `desc-brain` comes before other descriptions, and a mask that shares more entities
    with the run before one that shares fewer. Where there is none, the same of the participant's
    anatomy counts (`derivatives/*/<participant>/anat`), if it is on the grid of the series.

    Parameters
    ----------
    run : AslRun
    reference : Image
        The ASL series.

    Returns
    -------
    Path or None
        None where there is no such file.

    Raises
    ------
    InputError
        If several are equally good.
    """
    places = [place for place, _ in anatomy_folders(run)]
    beside = [place for place in places if place.name == run.folder.name]
    anatomical = [place for place in places if place.name != run.folder.name]
    fitting = [path for path in _masks(beside) if _fits(run, path, None)]
    if not fitting:
        own = [path for path in _masks(anatomical) if _fits(run, path, ANATOMICAL)]
        fitting = [path for path in own if _on_grid(path, reference)]
    ranks = {path: _rank(run, path) for path in fitting}
    best = [path for path, rank in ranks.items() if rank == max(ranks.values())]
    if len(best) > 1:
        names = ", ".join(path.relative_to(run.bids_dir).as_posix() for path in best)
        raise InputError(f"{run.path}: several masks fit ({names}); choose one with --mask")
    return best[0] if best else None


def load_mask(path: Path, reference: Image) -> NDArray[np.bool_]:
    """Load a mask on the grid of the ASL series.

    Parameters
    ----------
    path : Path
        An image of zeros and one other value.
    reference : Image
        The ASL series.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)

    Raises
    ------
    InputError
        If the image is unreadable, on another grid, empty, or no mask.
    """
    image = load_image(path)
    check_same_grid(image, reference)
    if not image.values.any():
        raise InputError(f"{path}: the mask is empty; give one with voxels to quantify")
    inside = image.values != 0.0
    if not (image.values[inside] == image.values[inside][0]).all():
        raise InputError(f"{path}: holds more values than 0 and 1; threshold it to make a mask")
    return inside


def read_grey_matter(run: AslRun, data: AslData) -> NDArray[np.bool_] | None:
    """Grey matter of a run from the dataset's derivatives, where it is known on the ASL grid.

    Looked at are `*_label-GM_probseg`, whose voxels above one half count, `*_label-GM_mask` and
    `*_desc-greymatter_mask` in `derivatives/*/<folder of the run>`, with entities that do not
    contradict the run's. Images that are unreadable or on another grid are passed over.

    Parameters
    ----------
    run : AslRun
    data : AslData
        Read from it.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z), or None
        None where there is no such image, or it has no such voxel in the mask.
    """
    for pattern in ("label-GM_probseg", "label-GM_mask", "desc-greymatter_mask"):
        for folder in sorted(run.bids_dir.glob(f"derivatives/*/{run.folder.as_posix()}")):
            for path in sorted(folder.glob(f"*_{pattern}.nii*")):
                if not _matches(run, path):
                    continue
                try:
                    image = load_image(path)
                    check_same_grid(image, Image(run.path, data.m0, data.affine))
                except InputError:
                    continue  # it serves the report alone, for which no fit is given up
                grey_matter = image.values > 0.5
                if (grey_matter & data.valid).any():
                    return grey_matter
    return None


def mask_from_m0(m0: NDArray[np.float32], affine: FloatArray) -> NDArray[np.bool_]:
    """Brain mask from the gap in the histogram of M0, after nilearn's `compute_epi_mask`.

    The edge slices are repeated outwards beforehand, so that the mask's morphology does not
    eat thin slabs and brains that reach the edge of the image.

    Parameters
    ----------
    m0 : ndarray of float32, shape (X, Y, Z)
        Equilibrium magnetisation [a.u.].
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Where M0 is positive; empty where no brain was found.
    """
    from nilearn.masking import compute_epi_mask

    finite = np.where(np.isfinite(m0), m0, 0.0).astype(np.float64)
    finite /= 2.0 ** np.frexp(np.abs(finite).max())[1]  # nilearn's squares must not overflow
    padded = np.pad(finite.astype(np.float32), _PADDING, mode="edge")
    with warnings.catch_warnings():
        # an empty mask is reported by the caller, with the name of the file
        warnings.simplefilter("ignore")
        mask = compute_epi_mask(nib.Nifti1Image(padded, affine))
    inner = slice(_PADDING, -_PADDING)
    return (np.asarray(mask.dataobj)[inner, inner, inner] > 0) & (m0 > 0.0)


def _masks(folders: Sequence[Path]) -> list[Path]:
    return [
        path
        for folder in folders
        for extension in IMAGE_EXTENSIONS
        for path in sorted(folder.glob(f"*_mask{extension}"))
    ]


def _fits(run: AslRun, path: Path, shared: tuple[str, ...] | None) -> bool:
    entities = file_entities(path)
    other_desc = entities.get("desc") == "greymatter"
    other_label = entities.get("label", "brain") != "brain"
    fits = is_of_run(run, path, shared, ("desc", "label", "space"))
    return fits and not other_desc and not other_label


def _on_grid(path: Path, reference: Image) -> bool:
    try:
        check_same_grid(load_image(path), reference)
    except InputError:
        return False
    return True


def _matches(run: AslRun, path: Path) -> bool:
    """Whether no entity of a file contradicts the run's; desc and label say what a mask is of."""
    entities = file_entities(path).items()
    return all(run.entities.get(k) == v for k, v in entities if k not in ("desc", "label"))


def _rank(run: AslRun, path: Path) -> tuple[bool, int]:
    entities = file_entities(path)
    return entities.get("desc") == "brain", len(entities.keys() & run.entities.keys())
