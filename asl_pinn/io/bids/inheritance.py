"""BIDS's rule of inheritance: which sidecars and tables of a dataset apply to an image."""

from pathlib import Path
from typing import Any

from asl_pinn.io.bids.sidecar import Sidecar, read_json


def file_entities(path: Path) -> dict[str, str]:
    """Entities of a BIDS file name, in their order there.

    Parameters
    ----------
    path : Path
        Name such as 'sub-01_run-2_asl.nii.gz'; the folder does not matter.

    Returns
    -------
    dict of str to str
        Such as {'sub': '01', 'run': '2'}.
    """
    parts = path.name.split("_")[:-1]
    return dict(part.split("-", 1) for part in parts if "-" in part)


def applicable_files(image: Path, bids_dir: Path, ending: str) -> list[Path]:
    """Files that apply to an image: in its folder or one above, with no entity that it lacks.

    Parameters
    ----------
    image : Path
        An image of the dataset.
    bids_dir : Path
        The dataset, where the search ends.
    ending : str
        Suffix and extension of the files, such as 'asl.json'.

    Returns
    -------
    list of Path
        The nearest first, and of one folder the one with the most entities first.

    References
    ----------
    The inheritance principle of the Brain Imaging Data Structure, version 1.10.
    """
    entities = file_entities(image).items()
    depth = len(image.relative_to(bids_dir).parts)
    return [
        path
        for folder in image.parents[:depth]
        for path in sorted(folder.glob(f"*{ending}"), key=lambda p: (-len(file_entities(p)), p))
        if path.name.split("_")[-1] == ending and file_entities(path).items() <= entities
    ]


def inherited_sidecar(image: Path, bids_dir: Path) -> Sidecar:
    """Metadata of an image: keys of all sidecars that apply to it, the nearest first.

    Parameters
    ----------
    image : Path
        An image of the dataset.
    bids_dir : Path
        The dataset.

    Returns
    -------
    Sidecar
        Empty where there is none; its path is the image where that has no sidecar of its own.

    Raises
    ------
    InputError
        If a sidecar cannot be read.
    """
    name = image.name.split(".")[0]
    metadata: dict[str, Any] = {}
    for path in reversed(applicable_files(image, bids_dir, f"{name.split('_')[-1]}.json")):
        metadata |= read_json(path)
    own = image.with_name(f"{name}.json")
    return Sidecar(own if own.is_file() else image, metadata)
