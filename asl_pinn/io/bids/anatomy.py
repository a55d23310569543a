"""What a dataset tells of a brain besides what a fit needs: for tables and reports."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition.constants import relaxation_times
from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.io.bids.atlases import Atlas, read_atlases
from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.images import Image
from asl_pinn.io.bids.masks import read_grey_matter
from asl_pinn.io.bids.places import anatomy_folders, is_of_run
from asl_pinn.io.bids.relaxation import field_strength
from asl_pinn.io.bids.tables import as_number, read_table
from asl_pinn.io.bids.tissues import fractions_from_t1, read_derived_fractions

_DISPLACEMENT = "framewise_displacement"  # as fMRIPrep and ASLPrep call the column


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Tissues, regions and motion of a run, as far as they are known.

    Attributes
    ----------
    grey_matter : ndarray of bool, shape (X, Y, Z), or None
        Voxels that are mostly grey matter.
    tissues : mapping of str to ndarray, shape (X, Y, Z)
        Fractions by label: 'GM', 'WM', 'CSF'; grey matter alone where no more is known.
    tissue_source : str
        'derivatives', 'T1 map', 'grey-matter mask', or 'n/a'.
    atlases : tuple of Atlas
        Regions for tables.
    displacement : ndarray, shape (V,), or None
        Framewise displacement of the volumes [mm], NaN where it has none.
    sources : tuple of Path
        Files that were read, but for those of a fit.
    """

    grey_matter: NDArray[np.bool_] | None = None
    tissues: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)
    tissue_source: str = "n/a"
    atlases: tuple[Atlas, ...] = ()
    displacement: FloatArray | None = None
    sources: tuple[Path, ...] = ()


def read_anatomy(run: AslRun, data: AslData, rois: Sequence[str], notes: list[str]) -> Anatomy:
    """What the dataset tells of tissues, regions and motion of a run.

    Parameters
    ----------
    run : AslRun
    data : AslData
        Read from it.
    rois : sequence of str
        Atlases besides those among the derivatives, as `read_atlases` takes them.
    notes : list of str
        Gets a line for what is there and cannot be used.

    Returns
    -------
    Anatomy

    Raises
    ------
    InputError
        If an atlas that the user names is at fault.
    """
    series = Image(run.path, data.m0, data.affine)
    grey_matter = read_grey_matter(run, data)
    atlases = read_atlases(run, series, rois, notes)
    tissues, source, files = _tissues(run, data, series, grey_matter)
    displacement, confounds = _displacement(run)
    files += tuple(path for atlas in atlases for path in atlas.sources)
    return Anatomy(
        grey_matter,
        tissues,
        source,
        atlases,
        displacement,
        (*files, *([confounds] if confounds else [])),
    )


def _tissues(
    run: AslRun, data: AslData, series: Image, grey_matter: NDArray[np.bool_] | None
) -> tuple[dict[str, FloatArray], str, tuple[Path, ...]]:
    """Fractions by label, where they come from, and the files."""
    if data.gm is not None and data.wm is not None:
        return _with_fluid(data.gm, data.wm), "fractions of the model", ()
    found = read_derived_fractions(run, series, [])
    if found.gm is not None and found.wm is not None:
        return _with_fluid(found.gm, found.wm), "derivatives", found.sources
    if data.valid.any() and np.ptp(data.t1_tissue[data.valid]) > 0.0:
        known = relaxation_times(field_strength(run.sidecar))
        if known is not None:
            gm, wm = fractions_from_t1(data.t1_tissue, known.t1_tissue, known.t1_white_matter)
            return _with_fluid(gm, wm), "T1 map", ()
    if grey_matter is not None:
        return {"GM": grey_matter.astype(np.float32)}, "grey-matter mask", ()
    return {}, "n/a", ()


def _with_fluid(gm: FloatArray, wm: FloatArray) -> dict[str, FloatArray]:
    return {"GM": gm, "WM": wm, "CSF": np.clip(1.0 - gm - wm, 0.0, 1.0)}


def _displacement(run: AslRun) -> tuple[FloatArray | None, Path | None]:
    """Framewise displacement that another program has written among the derivatives."""
    for place, shared in anatomy_folders(run):
        for path in sorted(place.glob("*_timeseries.tsv")):
            if not is_of_run(run, path, shared, ("desc", "space")):
                continue
            try:
                cells = [row.get(_DISPLACEMENT) for row in read_table(path)]
            except InputError:
                continue  # it serves a table alone, for which no fit is given up
            values = [as_number(cell) for cell in cells]
            if any(value is not None for value in values):
                numbers = [np.nan if value is None else value for value in values]
                return np.array(numbers), path
    return None, None
