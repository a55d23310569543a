"""Where among a dataset's derivatives images of a run are, and which are in its space."""

from collections.abc import Iterator
from pathlib import Path

from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.inheritance import file_entities

ANATOMICAL = ("sub", "ses")
"""Entities that an anatomical scan shares with a series of its participant."""

_OF_ASL = ("asl", "aslref", "perf")  # labels of `space` that name the grid of the series


def anatomy_folders(run: AslRun) -> Iterator[tuple[Path, tuple[str, ...] | None]]:
    """Folders among the derivatives with images of a run's anatomy.

    Parameters
    ----------
    run : AslRun

    Yields
    ------
    folder : Path
        `derivatives/*/<folder of the run>`, and `anat` beside it; of each, last, that of the
        dataset itself, which may be one of derivatives.
    shared : tuple of str or None
        Entities of files there that must be those of the run; None for all, as beside a series.
        An anatomical scan has labels of its own, and the grid tells whether it fits.
    """
    for folder in (run.folder, run.folder.parent / "anat"):
        derived = sorted(run.bids_dir.glob(f"derivatives/*/{folder.as_posix()}"))
        for place in (*derived, run.bids_dir / folder):
            yield place, ANATOMICAL if folder.name == "anat" else None


def is_of_run(
    run: AslRun, path: Path, shared: tuple[str, ...] | None, free: tuple[str, ...]
) -> bool:
    """Whether an image among the derivatives is of a run, and in the space of its series.

    Parameters
    ----------
    run : AslRun
    path : Path
    shared : tuple of str or None
        From `anatomy_folders`.
    free : tuple of str
        Entities that say what the image is of, and not of which scan.

    Returns
    -------
    bool
    """
    entities = file_entities(path)
    return entities.get("space", "asl").lower() in _OF_ASL and all(
        run.entities.get(key) == entities[key]
        for key in (shared or tuple(entities))
        if key in entities and key not in free
    )
