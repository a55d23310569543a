"""`asl-pinn inspect`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from asl_pinn.acquisition.calibration import Calibration
from asl_pinn.estimators.options import define_flags as define_option_flags
from asl_pinn.workflow.commands import flag_help
from asl_pinn.workflow.commands.arguments import positional
from asl_pinn.workflow.commands.quantify import define_participants, define_reading_flags

USAGE = "BIDS_DIR [--participant_label=01] [--mask=FILE] ..."

ARGUMENTS = {"BIDS_DIR": "A BIDS dataset, with dataset_description.json."}

SOME_FAULTY = 1


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command."""
    to: dict[str, Any] = {"flag_values": values, "module_name": flag_help.COMMON}
    define_participants(to)
    define_reading_flags({"flag_values": values, "module_name": flag_help.READING})
    define_option_flags({"calibration": Calibration}, values, "{}")


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Print how each run is read; status 1 where one cannot be quantified."""
    # These import nibabel, for which --help does not wait.
    from asl_pinn.io import bids
    from asl_pinn.workflow.commands.quantify_jobs import participant_labels, reading_from_flags
    from asl_pinn.workflow.inspection import describe, inspect_run

    labels = participant_labels(arguments[1:], values)
    (bids_dir,) = positional(arguments[:1] if labels else arguments, USAGE, 1)
    reading = reading_from_flags(values, values.gm)
    faulty = False
    for found in bids.find_runs(Path(bids_dir), labels):
        inspected = inspect_run(found, reading)
        faulty |= bool(inspected.faults)
        print(describe(inspected))
    return SOME_FAULTY if faulty else 0
