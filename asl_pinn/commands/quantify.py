"""`asl-pinn quantify`."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import flags

from asl_pinn import bids, kinetics, provenance
from asl_pinn.commands.arguments import define_execution_flags, execution, positional
from asl_pinn.data import AslData, PerfusionMaps, Status
from asl_pinn.errors import InputError
from asl_pinn.estimators import ESTIMATORS, get_estimator
from asl_pinn.execution import Execution
from asl_pinn.files import require_writable
from asl_pinn.group import write_group_page
from asl_pinn.options import define_flags as define_option_flags
from asl_pinn.options import options_from_flags
from asl_pinn.report import report_files

USAGE = "BIDS_DIR OUTPUT_DIR participant [--participant_label=01] [--method=spatial-map] ..."


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command, the options of every method among them."""
    to = {"flag_values": values}
    methods = "; ".join(f"{name}: {entry.summary}" for name, entry in ESTIMATORS.items())
    flags.DEFINE_list("participant_label", [], "Participants, by commas; else all.", **to)
    flags.DEFINE_enum("method", "spatial-map", list(ESTIMATORS), f"Estimator. {methods}.", **to)
    flags.DEFINE_string("mask", None, "Image of the voxels to quantify.", **to)
    flags.DEFINE_string(
        "t1_tissue",
        str(kinetics.T1_TISSUE),
        "T1 of tissue [s], an image of it, or 'map' for the participant's anat/*_T1map.",
        **to,
    )
    flags.DEFINE_float("t1_blood", kinetics.T1_BLOOD, "T1 of arterial blood [s].", **to)
    flags.DEFINE_string(
        "checkpoint_dir",
        None,
        "Where long trainings keep their state; else in OUTPUT_DIR/.checkpoints until they end.",
        **to,
    )
    define_execution_flags(values)
    define_option_flags({name: entry.options for name, entry in ESTIMATORS.items()}, values)


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Quantify every run of the dataset and say where the maps are."""
    bids_dir, output_dir, level = positional(arguments, USAGE, 3)
    if level != "participant":
        raise InputError(f"analysis level {level!r} is unknown; it must be 'participant'")
    method = values["method"].value
    options = options_from_flags(ESTIMATORS[method].options, values)
    mask = values["mask"].value
    t1_tissue = _t1_tissue(values["t1_tissue"].value)
    require_writable(Path(output_dir))
    kept = values["checkpoint_dir"].value
    all_checkpoints = Path(kept or Path(output_dir) / ".checkpoints")
    for asl_run in bids.find_runs(Path(bids_dir), values["participant_label"].value):
        data, notes = bids.read_run(
            asl_run,
            mask=None if mask is None else Path(mask),
            t1_tissue=t1_tissue,
            t1_blood=values["t1_blood"].value,
        )
        for message in notes.messages:
            print(f"{asl_run.stem}: note: {message}", file=sys.stderr)
        checkpoints = all_checkpoints / f"{asl_run.stem}_{bids.desc_label(method)}"
        circumstances = execution(values, checkpoints)
        maps = quantify(asl_run, data, notes, Path(output_dir), method, options, circumstances)
        print(_summary(asl_run.stem, method, maps))
        if kept is None:
            shutil.rmtree(checkpoints, ignore_errors=True)
    if kept is None and all_checkpoints.is_dir() and not any(all_checkpoints.iterdir()):
        all_checkpoints.rmdir()
    write_group_page(Path(output_dir), method)
    return 0


def quantify(
    asl_run: bids.AslRun,
    data: AslData,
    notes: bids.ReadNotes,
    output_dir: Path,
    method: str,
    options: Any,
    circumstances: Execution,
) -> PerfusionMaps:
    """Fit one run and write its maps, picture and report.

    Parameters
    ----------
    asl_run : AslRun
        What is quantified.
    data : AslData
        Read from it.
    notes : ReadNotes
        What the reader had to say.
    output_dir : Path
        Derivatives dataset to write to.
    method : str
        Name of the estimator.
    options : dataclass
        Options of the estimator.
    circumstances : Execution
        Seed, floating-point type, progress.

    Returns
    -------
    PerfusionMaps

    Raises
    ------
    InputError
        If the data cannot be fitted, or the output not be written.
    """
    maps = get_estimator(method).fit(data, options, circumstances)
    origin = provenance.describe(options, circumstances, notes.sources)
    extra = report_files(asl_run, data, maps, method, origin, notes.messages)
    bids.write_maps(output_dir, asl_run, maps, data.affine, method, origin, extra)
    return maps


def _t1_tissue(text: str) -> float | Path | Literal["map"]:
    if text == "map":
        return "map"
    try:
        return float(text)
    except ValueError:
        return Path(text)


def _summary(name: str, method: str, maps: PerfusionMaps) -> str:
    fitted = maps.status == Status.FITTED
    counts = {status: int((maps.status == status).sum()) for status in Status}
    medians = "no voxel was fitted within the bounds"
    if fitted.any():
        cbf, att = np.median(maps.cbf[fitted]), np.median(maps.att[fitted])
        medians = f"median CBF {cbf:.1f} mL/100g/min, ATT {att:.2f} s"
    return (
        f"{name} {method}: {medians}; {counts[Status.FITTED]} voxels fitted, "
        f"{counts[Status.ON_BOUND]} on a bound, {counts[Status.NOT_CONVERGED]} not converged, "
        f"{counts[Status.SKIPPED]} skipped"
    )
