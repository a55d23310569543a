"""Atlases: labels of regions on the grid of a series."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.images import Image, check_same_grid, load_image
from asl_pinn.io.bids.inheritance import file_entities
from asl_pinn.io.bids.places import anatomy_folders, is_of_run
from asl_pinn.io.bids.tables import read_table

_NAMING = ("atlas", "seg")  # entities that tell one segmentation from another
_IMAGES = (".nii.gz", ".nii")


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Regions of a brain.

    Attributes
    ----------
    name : str
        Letters and digits, for names of files.
    labels : ndarray of int, shape (X, Y, Z)
        Of each voxel; 0 for none.
    regions : mapping of int to str
        Names by label; those that no table names have their label as name.
    sources : tuple of Path
        Files that it was read from.
    """

    name: str
    labels: NDArray[np.int32]
    regions: Mapping[int, str]
    sources: tuple[Path, ...]


def read_atlases(
    run: AslRun, series: Image, rois: Sequence[str], notes: list[str]
) -> tuple[Atlas, ...]:
    """Atlases that the user names, and those among the dataset's derivatives.

    Parameters
    ----------
    run : AslRun
    series : Image
        Whose grid they must have.
    rois : sequence of str
        'LABELS.nii.gz' or 'LABELS.nii.gz:LABELS.tsv'; the table has the columns index and name.
        Else it is that beside the image, LABELS.tsv, if there is one.
    notes : list of str
        Gets a line for each image beside the series that cannot be used.

    Returns
    -------
    tuple of Atlas
        Of the derivatives, `derivatives/*/<folder of the run, or anat>/*_dseg.nii[.gz]` that name
        an atlas or segmentation (`atlas-`, `seg-`), whose entities do not contradict the run's,
        and which are in no other space than that of the series.

    Raises
    ------
    InputError
        If what the user names is missing, unreadable, on another grid or no segmentation, or two
        atlases have one name.
    """
    found = [_load(*roi_files(text), series=series) for text in rois]
    for path in _among_derivatives(run):
        try:
            found.append(_load(path, series=series))
        except InputError as error:
            if path.parent.name == run.folder.name:  # those of an anatomical scan have its grid
                notes.append(f"no regions from {path.name}: {error}")
    named: dict[str, Atlas] = {}
    for atlas in found:
        if atlas.name in named:
            files = " and ".join(str(each.sources[0]) for each in (named[atlas.name], atlas))
            raise InputError(f"{files} have one name, {atlas.name}; rename one of them")
        named[atlas.name] = atlas
    return tuple(named.values())


def roi_files(text: str) -> tuple[Path, ...]:
    """Image of an atlas that a user names, and table if that is named too.

    Parameters
    ----------
    text : str
        'IMAGE' or 'IMAGE:TABLE'.

    Returns
    -------
    tuple of Path
        One or two, absolute.
    """
    for extension in _IMAGES:
        image, mark, table = text.partition(f"{extension}:")
        if mark:
            return Path(f"{image}{extension}").absolute(), Path(table).absolute()
    return (Path(text).absolute(),)


def table_beside(image: Path) -> Path:
    """Where the table of an atlas is unless one is named.

    Parameters
    ----------
    image : Path

    Returns
    -------
    Path
        Whether there is such a file or not.
    """
    return image.with_name(f"{_stem(image)}.tsv")


def _stem(image: Path) -> str:
    return image.name.removesuffix(".gz").removesuffix(".nii")


def _among_derivatives(run: AslRun) -> list[Path]:
    return [
        path
        for place, shared in anatomy_folders(run)
        for path in sorted(place.glob("*_dseg.nii*"))
        if path.name.endswith(_IMAGES)
        and not file_entities(path).keys().isdisjoint(_NAMING)
        and is_of_run(run, path, shared, ("desc", "label", "space", *_NAMING))
    ]


def _load(path: Path, table: Path | None = None, *, series: Image) -> Atlas:
    image = load_image(path)
    check_same_grid(image, series)
    values = np.nan_to_num(image.values)
    labels = np.rint(values).astype(np.int32)
    if (values < 0.0).any() or np.abs(values - labels).max() > 1e-3:
        raise InputError(
            f"{path}: holds values that are no labels of regions; give whole numbers, 0 for none"
        )
    present = [int(label) for label in np.unique(labels) if label]
    if not present:
        raise InputError(f"{path}: has no region, it is 0 everywhere")
    beside = table_beside(path)
    table = beside if table is None and beside.is_file() else table
    names = {} if table is None else _names(table)
    regions = {label: names.get(label, str(label)) for label in present}
    return Atlas(_name(path, _stem(path)), labels, regions, (path, *([table] if table else [])))


def _names(table: Path) -> dict[int, str]:
    """Names of regions by label."""
    names = {}
    for row in read_table(table):
        index, name = row.get("index", ""), row.get("name")
        if not index.lstrip("-").isdecimal() or name is None:
            raise InputError(
                f"{table}: needs the columns 'index', whole numbers, and 'name' in every line"
            )
        names[int(index)] = name
    return names


def _name(path: Path, stem: str) -> str:
    """The name of an atlas: that of its file's entities, or its file's, without marks."""
    entities = file_entities(path)
    stated = next((entities[key] for key in _NAMING if key in entities), "")
    words = re.findall(r"[A-Za-z0-9]+", stated or entities.get("desc", "") or stem)
    return "".join(words) or "regions"
