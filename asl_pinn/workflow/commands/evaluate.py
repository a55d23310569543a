"""`asl-pinn evaluate`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from asl_pinn import models
from asl_pinn.errors import InputError
from asl_pinn.evaluation.metrics import scores
from asl_pinn.io.atomic import write_json
from asl_pinn.io.bids.images import check_same_grid, load_image
from asl_pinn.models.partial_volume import TISSUE_LABELS
from asl_pinn.workflow.columns import aligned
from asl_pinn.workflow.commands import flag_help
from asl_pinn.workflow.commands.arguments import positional

USAGE = "ESTIMATE_DIR TRUTH_DIR [--output=FILE.json]"

ARGUMENTS = {
    "ESTIMATE_DIR": "Folder with maps, sub-*_desc-<method>_<suffix>.nii.gz, at any depth.",
    "TRUTH_DIR": "Folder with the truth, sub-*_desc-truth_<suffix>.nii.gz, and the masks, "
    "sub-*_desc-brain_mask.nii.gz.",
}


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of one map.

    Attributes
    ----------
    run : str
        Name of the run, 'sub-01'.
    method : str
        Label of the method in the file name.
    map : str
        Suffix of the file, 'cbf'.
    scores : dict of str to float
        From `asl_pinn.evaluation.metrics.scores`.
    """

    run: str
    method: str
    map: str
    scores: dict[str, float]


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command."""
    to: dict[str, Any] = {"flag_values": values, "module_name": flag_help.COMMON}
    flags.DEFINE_string("output", None, "JSON file to write the scores to.", **to)
    flags.DEFINE_bool("json", False, "Print the scores as JSON in place of a table.", **to)


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Print the scores, and write them where asked to."""
    estimate_dir, truth_dir = positional(arguments, USAGE, 2)
    scored = evaluate(Path(estimate_dir), Path(truth_dir))
    print(json.dumps(as_json(scored)) if values.json else table(scored))
    if values.output is not None:
        write_json(Path(values.output), as_json(scored))
    return 0


def evaluate(estimate_dir: Path, truth_dir: Path) -> list[Scored]:
    """Score every map below one folder against the truth below another.

    Parameters
    ----------
    estimate_dir : Path
        Holds `sub-*_desc-<method>_<suffix>.nii.gz`, with suffixes of parameters of the registered
        models: cbf, att, ...
    truth_dir : Path
        Holds `sub-*_desc-truth_<suffix>.nii.gz` and `sub-*_desc-brain_mask.nii.gz`.

    Returns
    -------
    list of Scored

    Raises
    ------
    InputError
        If a folder holds no maps, or a map's truth is missing or on another grid.
    """
    for folder in (estimate_dir, truth_dir):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    suffixes = {p.file_suffix for make in models.available().values() for p in make().parameters}
    truths = {path.name: path for path in truth_dir.rglob("*_desc-*.nii.gz")}
    found = []
    for path in sorted(estimate_dir.rglob("*_desc-*.nii.gz")):
        run_name, _, rest = path.name.removesuffix(".nii.gz").partition("_desc-")
        method, _, suffix = rest.partition("_")
        if suffix in suffixes and not method.startswith("truth") and not method.endswith("Sd"):
            tissue = next((label for label in TISSUE_LABELS if method.endswith(label)), "")
            names = (f"{run_name}_desc-truth{tissue}_{suffix}", f"{run_name}_desc-brain_mask")
            known, mask = (_truth(truths, f"{name}.nii.gz", truth_dir, path) for name in names)
            told_alone = bool(tissue)
            found.append(Scored(run_name, method, suffix, _scores(path, known, mask, told_alone)))
    if not found:
        known_suffixes = ", ".join(sorted(suffixes))
        raise InputError(
            f"{estimate_dir}: no *_desc-<method>_<suffix>.nii.gz in it, with a suffix of "
            f"{known_suffixes}"
        )
    return found


def table(scored: Sequence[Scored]) -> str:
    """Scores as lines of text, one for each map.

    Parameters
    ----------
    scored : sequence of Scored
        At least one.

    Returns
    -------
    str
        Columns in line, the names of the scores first.
    """
    names = list(scored[0].scores)
    header = ["run", "method", "map", *names]
    rows = [
        [entry.run, entry.method, entry.map, *(f"{entry.scores[name]:.3f}" for name in names)]
        for entry in scored
    ]
    return "\n".join(aligned([header, *rows]))


def as_json(scored: Sequence[Scored]) -> dict[str, Any]:
    """Scores as a mapping for a JSON file.

    Parameters
    ----------
    scored : sequence of Scored
        What to write.

    Returns
    -------
    dict
        Of plain numbers, strings and lists.
    """
    return {"Scores": [dataclasses.asdict(entry) for entry in scored]}


def _truth(truths: dict[str, Path], name: str, truth_dir: Path, estimate: Path) -> Path:
    if name not in truths:
        raise InputError(f"{truth_dir}: no {name} in it, which {estimate} is to be scored with")
    return truths[name]


def _scores(estimate: Path, truth: Path, mask: Path, told_alone: bool) -> dict[str, float]:
    """Scores in a mask; of a single tissue, where the estimate has some of it."""
    image, known, inside = (load_image(path) for path in (estimate, truth, mask))
    check_same_grid(known, image)
    check_same_grid(inside, image)
    where = np.asarray(inside.values) > 0.5
    if told_alone:
        where &= image.values != 0.0
    try:
        return scores(image.values, known.values, where)
    except InputError as error:
        raise InputError(f"{estimate}: {error}") from None
