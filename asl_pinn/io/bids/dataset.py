"""The ASL runs of a BIDS dataset, found by the names of folders and files."""

import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from asl_pinn.errors import InputError
from asl_pinn.io.bids.inheritance import applicable_files, file_entities, inherited_sidecar
from asl_pinn.io.bids.sidecar import Sidecar, read_json

IMAGE_EXTENSIONS = (".nii.gz", ".nii")
_PARTICIPANT = re.compile(r"sub-[0-9A-Za-z+]+")
_SESSION = re.compile(r"ses-[0-9A-Za-z+]+")


@dataclasses.dataclass(frozen=True)
class AslRun:
    """One ASL series of a dataset; its sidecars are read when they are asked for.

    Attributes
    ----------
    path : Path
        The `_asl.nii[.gz]` file.
    entities : dict of str to str
        Of its name, in their order there: {'sub': '01', 'run': '1'}.
    bids_dir : Path
        The dataset.
    m0scans : tuple of Path
        All of the participant.
    images : Path or None
        Series to be read in place of `path`, which it was made from.
    """

    path: Path
    entities: dict[str, str]
    bids_dir: Path
    m0scans: tuple[Path, ...] = ()
    images: Path | None = None

    @property
    def stem(self) -> str:
        """Name without suffix and extension, 'sub-01_ses-1_run-1'."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items())

    @property
    def output_stem(self) -> str:
        """Name of what is made from it: the description in it is that of the method."""
        kept = {key: value for key, value in self.entities.items() if key != "desc"}
        return dataclasses.replace(self, entities=kept).stem

    @property
    def maps_stem(self) -> str:
        """With what the names of its maps begin, 'sub-01/ses-1/perf/sub-01_ses-1_run-1'."""
        return (self.folder / self.output_stem).as_posix()

    @property
    def folder(self) -> Path:
        """Folder of the run inside the dataset, 'sub-01/ses-1/perf'."""
        return self.path.parent.relative_to(self.bids_dir)

    @property
    def context(self) -> Path | None:
        """The `_aslcontext.tsv` that describes the series."""
        found = applicable_files(self.path, self.bids_dir, "aslcontext.tsv")
        return found[0] if found else None

    @functools.cached_property
    def sidecar(self) -> Sidecar:
        """Metadata, inherited keys included, with the file to name where they are at fault."""
        return inherited_sidecar(self.path, self.bids_dir)


def find_runs(bids_dir: Path, participant_labels: Sequence[str] = ()) -> list[AslRun]:
    """ASL series of a BIDS dataset, sorted by name.

    They are looked for in sub-*/perf and sub-*/ses-*/perf. Nothing but names is read: what a
    dataset holds decides neither where else is looked nor how.

    Parameters
    ----------
    bids_dir : Path
        Folder with a dataset_description.json.
    participant_labels : sequence of str
        With or without 'sub-'; all participants when empty.

    Returns
    -------
    list of AslRun

    Raises
    ------
    InputError
        If the folder is no BIDS dataset or cannot be read, a participant is not in it, or a
        participant that was asked for (or, when none was, every one) has no ASL series.
    """
    bids_dir = Path(os.path.abspath(bids_dir))
    _check_dataset(bids_dir)
    try:
        return _find(bids_dir, participant_labels)
    except OSError as error:
        raise InputError(
            f"{error.filename or bids_dir}: cannot be read ({error.strerror}); check who may"
        ) from None


def _find(bids_dir: Path, participant_labels: Sequence[str]) -> list[AslRun]:
    folders = {path.name.removeprefix("sub-"): path for path in _folders(bids_dir, _PARTICIPANT)}
    wanted = [label.removeprefix("sub-") for label in participant_labels]
    for label in wanted:
        if label not in folders:
            present = ", ".join(path.name for path in folders.values()) or "none"
            raise InputError(f"{bids_dir}: no participant sub-{label}; present: {present}")
    runs: list[AslRun] = []
    for label in dict.fromkeys(wanted or folders):
        found = _runs_of(folders[label], bids_dir)
        if wanted and not found:
            raise InputError(f"{bids_dir}: participant sub-{label} has no perf/*_asl.nii.gz")
        runs += found
    if not runs:
        raise InputError(f"{bids_dir}: no sub-*/perf/*_asl.nii.gz; there is nothing to quantify")
    return sorted(runs, key=lambda run: run.path)


def _check_dataset(bids_dir: Path) -> None:
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir}: no such folder; give the folder of a BIDS dataset")
    description = bids_dir / "dataset_description.json"
    if not description.exists():
        raise InputError(f"{bids_dir}: no BIDS dataset, it has no dataset_description.json")
    read_json(description)


def _runs_of(participant: Path, bids_dir: Path) -> list[AslRun]:
    perf = [folder / "perf" for folder in (participant, *_folders(participant, _SESSION))]
    images = [path for folder in perf if folder.is_dir() for path in sorted(folder.iterdir())]
    m0scans = tuple(path for path in images if _is_image(path, "m0scan"))
    series = [(path, file_entities(path)) for path in images if _is_image(path, "asl")]
    return [
        AslRun(path, entities, bids_dir, m0scans)
        for path, entities in series
        if entities.get("part", "mag") == "mag"
    ]


def _folders(parent: Path, name: re.Pattern[str]) -> list[Path]:
    return [
        path for path in sorted(parent.iterdir()) if name.fullmatch(path.name) and path.is_dir()
    ]


def _is_image(path: Path, suffix: str) -> bool:
    endings = tuple(f"_{suffix}{extension}" for extension in IMAGE_EXTENSIONS)
    return path.name.endswith(endings) and "sub" in file_entities(path)
