"""Tables of numbers: of one run, and of all runs of a method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps
from asl_pinn.evaluation.predictive_check import PredictiveCheck
from asl_pinn.evaluation.quality import quality_columns, quality_numbers
from asl_pinn.evaluation.region_statistics import region_columns, region_rows
from asl_pinn.io.atomic import write_files
from asl_pinn.io.bids import Anatomy, desc_label
from asl_pinn.io.bids.inheritance import file_entities
from asl_pinn.io.bids.sidecar import read_json
from asl_pinn.io.bids.tables import MISSING, read_table, table_files

_COLUMNS = {
    "sub": ("participant_id", "Participant"),
    "ses": ("session_id", "Session"),
    "task": ("task", "Task"),
    "acq": ("acquisition", "Acquisition"),
    "ce": ("ceagent", "Contrast agent"),
    "rec": ("reconstruction", "Reconstruction"),
    "dir": ("direction", "Phase-encoding direction"),
    "run": ("run", "Run"),
}
_WITH_PREFIX = ("sub", "ses")  # whose values BIDS writes as 'sub-01', 'ses-1'
_COMMON = {column: {"Description": text} for column, text in _COLUMNS.values()} | {
    "method": {"Description": "Estimator"},
    "model": {"Description": "Kinetic model"},
    "verdict": {"Description": "Verdict on the maps, as their sidecars state it"},
    "tissue_source": {"Description": "Where the tissues are known from; n/a where they are not"},
}


def run_tables(
    data: AslData,
    maps: Maps,
    images: FloatArray,
    check: PredictiveCheck | None,
    anatomy: Anatomy,
    stated: Mapping[str, Any],
) -> dict[str, bytes]:
    """Tables about one run: its quality, and its regions by atlas.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D)
        What it predicts [unit of delta_m].
    check : PredictiveCheck or None
        Of the result.
    anatomy : Anatomy
        Tissues, atlases and motion.
    stated : mapping of str to Any
        Keys of the sidecars, 'Verdict' among them where there is one.

    Returns
    -------
    dict of str to bytes
        Contents by what follows the run's name: '_desc-nlls_qc.tsv', '_desc-nlls_qc.json',
        '_atlas-<name>_desc-nlls_regions.tsv', ...
    """
    label = desc_label(maps.method)
    which = {
        **_entities(Path(f"{maps.stem}_x")),
        "method": maps.method,
        "model": maps.model.name,
    }
    quality = {
        **which,
        "verdict": _verdict(stated),
        "tissue_source": anatomy.tissue_source,
        **quality_numbers(data, maps, images, check, anatomy.tissues, anatomy.displacement),
    }
    columns = quality_columns(maps, data.protocol.n_delays)
    files = table_files(f"_desc-{label}_qc", [quality], {**_COMMON, **columns})
    for atlas in anatomy.atlases:
        rows = region_rows(maps, atlas.labels, atlas.regions, anatomy.tissues)
        files |= table_files(
            f"_atlas-{atlas.name}_desc-{label}_regions",
            [{**which, **row} for row in rows],
            {**_COMMON, **region_columns(maps)},
        )
    return files


def group_tables(
    output_dir: Path, method: str, participants: Mapping[str, Mapping[str, str]]
) -> dict[str, list[dict[str, str]]]:
    """Tables of all runs of a method, one below the other.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset.
    method : str
        Name of the estimator.
    participants : mapping of str to mapping
        What is known of each, from `asl_pinn.io.bids.read_participants`.

    Returns
    -------
    dict of str to list of dict
        Rows by name without extension, 'group_desc-nlls_qc', 'group_atlas-X_desc-nlls_regions';
        what is known of the participant stands behind its label.

    Raises
    ------
    InputError
        If a table is damaged.
    """
    label = desc_label(method)
    tables: dict[str, list[dict[str, str]]] = {}
    for path in _tables(output_dir, label):
        name = _group_name(path, label)
        for row in read_table(path):
            first = row.get("participant_id", MISSING)
            joined = {"participant_id": first, **participants.get(first, {}), **row}
            tables.setdefault(name, []).append(joined)
    return tables


def write_group_tables(
    output_dir: Path,
    method: str,
    participants: Mapping[str, Mapping[str, str]],
    described: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the tables of all runs of a method, with what each column is beside them.

    Parameters
    ----------
    output_dir, method, participants
        As for `group_tables`.
    described : mapping of str to Any, optional
        What the columns of participants.tsv are.

    Returns
    -------
    list of Path
        The tables, where they were written anew or not.

    Raises
    ------
    InputError
        If a table is damaged or cannot be written.
    """
    label = desc_label(method)
    known: dict[str, Any] = dict(described or {})
    for path in _tables(output_dir, label):
        known |= read_json(path.with_suffix(".json"))
    contents: dict[Path, bytes] = {}
    for name, rows in group_tables(output_dir, method, participants).items():
        for ending, content in table_files(name, rows, known).items():
            contents[output_dir / ending] = content
    changed = {
        path: content
        for path, content in contents.items()
        if not path.is_file() or path.read_bytes() != content
    }
    write_files(changed)
    return [path for path in contents if path.suffix == ".tsv"]


def _tables(output_dir: Path, label: str) -> list[Path]:
    found = output_dir.glob(f"sub-*/**/perf/*_desc-{label}_*.tsv")
    return sorted(path for path in found if path.name.endswith(("_qc.tsv", "_regions.tsv")))


def _group_name(path: Path, label: str) -> str:
    atlas = file_entities(path).get("atlas")
    middle = f"atlas-{atlas}_" if atlas else ""
    return f"group_{middle}desc-{label}_{path.stem.split('_')[-1]}"


def _entities(path: Path) -> dict[str, str]:
    """Columns that say which run it is."""
    return {
        _COLUMNS.get(key, (key, ""))[0]: f"{key}-{value}" if key in _WITH_PREFIX else value
        for key, value in file_entities(path).items()
    }


def _verdict(stated: Mapping[str, Any]) -> str | None:
    verdict = stated.get("Verdict")
    return None if verdict is None else str(verdict)
