"""The ASL runs of a BIDS dataset, found with pybids."""

import dataclasses
import functools
import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asl_pinn.errors import InputError
from asl_pinn.io.bids.inheritance import applicable_files, file_entities, inherited_sidecar
from asl_pinn.io.bids.sidecar import Sidecar, read_json

if TYPE_CHECKING:
    from bids import BIDSLayout

IMAGE_EXTENSIONS = (".nii.gz", ".nii")


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
        If the folder is no BIDS dataset, a participant is not in it, or a participant that
        was asked for (or, when none was, every one) has no ASL series.
    """
    bids_dir = Path(os.path.abspath(bids_dir))
    layout = _layout(bids_dir)
    try:
        return _find(layout, bids_dir, participant_labels)
    finally:
        layout.session.close()
        layout.connection_manager.engine.dispose()


def _find(layout: "BIDSLayout", bids_dir: Path, participant_labels: Sequence[str]) -> list[AslRun]:
    present = layout.get_subjects()
    wanted = [label.removeprefix("sub-") for label in participant_labels]
    for label in wanted:
        if label not in present:
            raise InputError(
                f"{bids_dir}: no participant sub-{label}; "
                f"present: {', '.join(f'sub-{other}' for other in present) or 'none'}"
            )
    subjects = wanted or present
    m0scans = defaultdict(list)
    for path, entities in _images(layout, "m0scan", subjects):
        m0scans[entities["sub"]].append(path)
    runs = [
        AslRun(path, entities, bids_dir, tuple(m0scans[entities["sub"]]))
        for path, entities in _images(layout, "asl", subjects)
        if entities.get("part", "mag") == "mag"
    ]
    with_asl = {run.entities["sub"] for run in runs}
    for label in wanted:
        if label not in with_asl:
            raise InputError(f"{bids_dir}: participant sub-{label} has no perf/*_asl.nii.gz")
    if not runs:
        raise InputError(f"{bids_dir}: no sub-*/perf/*_asl.nii.gz; there is nothing to quantify")
    return runs


def _layout(bids_dir: Path) -> "BIDSLayout":
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir}: no such folder; give the folder of a BIDS dataset")
    description = bids_dir / "dataset_description.json"
    if not description.is_file():
        raise InputError(f"{bids_dir}: no BIDS dataset, it has no dataset_description.json")
    read_json(description)
    with warnings.catch_warnings():
        # pybids warns of its own deprecations and of entities that this package does not use
        warnings.simplefilter("ignore")
        from bids import BIDSLayout, BIDSLayoutIndexer

        # It would read all sidecars at once, and one that is damaged would stop every run.
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
        try:
            return BIDSLayout(bids_dir, validate=False, derivatives=False, indexer=indexer)
        except Exception as error:  # pybids and its database raise many kinds
            reason = " ".join(str(error).split())
            raise InputError(f"{bids_dir}: pybids cannot index it ({reason})") from None


def _images(
    layout: "BIDSLayout", suffix: str, subjects: Sequence[str]
) -> list[tuple[Path, dict[str, str]]]:
    """Images of a kind, sorted, with the entities of their names, if these name a participant."""
    found = layout.get(suffix=suffix, extension=list(IMAGE_EXTENSIONS), subject=subjects)
    named = ((path, file_entities(path)) for path in sorted(Path(file.path) for file in found))
    return [(path, entities) for path, entities in named if "sub" in entities]
