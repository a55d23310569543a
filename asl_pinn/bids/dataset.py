"""The ASL runs of a BIDS dataset, found with pybids."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asl_pinn.bids.sidecar import Sidecar, read_json, refuse_large_text
from asl_pinn.errors import InputError

if TYPE_CHECKING:
    from bids import BIDSLayout
    from bids.layout.models import BIDSFile

IMAGE_EXTENSIONS = (".nii.gz", ".nii")


@dataclasses.dataclass(frozen=True)
class AslRun:
    """One ASL series of a dataset.

    Attributes
    ----------
    path : Path
        The `_asl.nii[.gz]` file.
    entities : dict of str to str
        Of its name, in their order there: {'sub': '01', 'run': '1'}.
    metadata : dict
        Of its sidecar, inherited keys included.
    bids_dir : Path
        The dataset.
    context : Path, optional
        The `_aslcontext.tsv` that describes it.
    m0scans : tuple of Path
        The M0 scan with the same name, or those that are intended for it.
    m0_metadata : dict
        Of the sidecar of the first.
    """

    path: Path
    entities: dict[str, str]
    metadata: dict[str, Any]
    bids_dir: Path
    context: Path | None = None
    m0scans: tuple[Path, ...] = ()
    m0_metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

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
    def folder(self) -> Path:
        """Folder of the run inside the dataset, 'sub-01/ses-1/perf'."""
        return self.path.parent.relative_to(self.bids_dir)

    @property
    def sidecar(self) -> Sidecar:
        """Metadata, with the file to name where they are at fault."""
        own = self.path.with_name(f"{self.stem}_asl.json")
        return Sidecar(own if own.is_file() else self.path, self.metadata)


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


def _find(layout: "BIDSLayout", bids_dir: Path, participant_labels: Sequence[str]) -> list[AslRun]:
    present = layout.get_subjects()
    wanted = [label.removeprefix("sub-") for label in participant_labels]
    for label in wanted:
        if label not in present:
            raise InputError(
                f"{bids_dir}: no participant sub-{label}; "
                f"present: {', '.join(f'sub-{other}' for other in present) or 'none'}"
            )
    images = layout.get(suffix="asl", extension=list(IMAGE_EXTENSIONS), subject=wanted or present)
    found = (_run(layout, image, bids_dir) for image in images if _is_magnitude(image))
    runs = sorted(found, key=lambda run: run.path)
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
    for pattern in ("*.json", "sub-*/**/*.json"):
        for sidecar in filter(Path.is_file, bids_dir.glob(pattern)):
            refuse_large_text(sidecar)
    with warnings.catch_warnings():
        # pybids warns of its own deprecations and of entities that this package does not use
        warnings.simplefilter("ignore")
        from bids import BIDSLayout, BIDSLayoutIndexer

        indexer = BIDSLayoutIndexer(validate=False, suffix=["asl", "m0scan"])
        try:
            return BIDSLayout(bids_dir, validate=False, derivatives=False, indexer=indexer)
        except Exception as error:  # pybids and its database raise many kinds
            for sidecar in sorted(bids_dir.rglob("*.json")):
                if sidecar.stem.endswith(("asl", "m0scan")):
                    _check_intention(sidecar)
            reason = " ".join(str(error).split())
            raise InputError(f"{bids_dir}: pybids cannot index it ({reason})") from None


def _check_intention(sidecar: Path) -> None:
    """Refuse what pybids stumbles over, by the name of the file that it leaves out."""
    intended = read_json(sidecar).get("IntendedFor", [])
    targets = intended if isinstance(intended, list) else [intended]
    if not all(isinstance(target, str) for target in targets):
        raise InputError(f"{sidecar}: IntendedFor must be a file or a list of files of the dataset")


def _run(layout: "BIDSLayout", image: "BIDSFile", bids_dir: Path) -> AslRun:
    path = Path(image.path)
    m0scans = _m0scans(layout, image)
    context = layout.get_nearest(
        path,
        suffix="aslcontext",
        extension=".tsv",
        ignore_strict_entities=["suffix", "extension"],
    )
    return AslRun(
        path=path,
        entities=file_entities(path),
        metadata=image.get_metadata(),
        bids_dir=bids_dir,
        context=None if context is None else Path(context),
        m0scans=tuple(Path(scan.path) for scan in m0scans),
        m0_metadata=m0scans[0].get_metadata() if m0scans else {},
    )


def _is_magnitude(image: "BIDSFile") -> bool:
    return file_entities(Path(image.path)).get("part", "mag") == "mag"


def _m0scans(layout: "BIDSLayout", image: "BIDSFile") -> "list[BIDSFile]":
    path = Path(image.path)
    entities = file_entities(path)
    scans = layout.get(
        suffix="m0scan", extension=list(IMAGE_EXTENSIONS), subject=image.entities["subject"]
    )
    same_name = [
        scan
        for scan in scans
        if Path(scan.path).parent == path.parent and file_entities(Path(scan.path)) == entities
    ]
    return same_name or [scan for scan in scans if _is_intended_for(scan.get_metadata(), path)]


def _is_intended_for(metadata: dict[str, Any], path: Path) -> bool:
    intended = metadata.get("IntendedFor")
    targets = intended if isinstance(intended, list) else [intended]
    return any(
        f"/{path.as_posix()}".endswith(f"/{target.removeprefix('bids::').removeprefix('/')}")
        for target in targets
        if isinstance(target, str)
    )
