"""`asl-pinn quantify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from asl_pinn.acquisition.calibration import Calibration
from asl_pinn.errors import InputError
from asl_pinn.estimators.options import define_flags as define_option_flags
from asl_pinn.estimators.registry import (
    DEFAULT_METHOD,
    get_estimator,
    method_names,
    option_types,
)
from asl_pinn.models.choice import AUTO
from asl_pinn.workflow.commands import flag_help
from asl_pinn.workflow.commands.arguments import positional

USAGE = (
    "BIDS_DIR OUTPUT_DIR participant|group [--participant_label=01] [--method=spatial-map] "
    "[--model=auto] ...; or --from=SIDECAR [OUTPUT_DIR]"
)

ARGUMENTS = {
    "BIDS_DIR": "A BIDS dataset, with dataset_description.json and sub-*/perf/*_asl.nii.gz.",
    "OUTPUT_DIR": "Folder of the maps, reports and tables, a BIDS derivatives dataset; made where "
    "there is none.",
    "participant|group": "participant: quantify runs, and bring the page and the tables about all "
    "up to date. group: the page and the tables alone.",
}


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command, the options of every method among them."""
    _define_common_flags({"flag_values": values, "module_name": flag_help.COMMON})
    reading = {"flag_values": values, "module_name": flag_help.READING}
    define_reading_flags(reading)
    _define_rois(reading)
    _define_method_flags({"flag_values": values, "module_name": flag_help.METHOD})
    define_option_flags({"calibration": Calibration}, values, "{}")
    define_option_flags(option_types(), values)


def define_participants(to: dict[str, Any]) -> None:
    """Define the flag that chooses participants.

    Parameters
    ----------
    to : dict
        Arguments of absl that say where, and in which group.
    """
    flags.DEFINE_multi_string(
        "participant_label",
        [],
        "Participants, with or without 'sub-': 01,02, or each after a space or with a flag of its "
        "own; all unless given.",
        **to,
    )


def _define_common_flags(to: dict[str, Any]) -> None:
    define_participants(to)
    flags.DEFINE_bool("quiet", False, "Print errors alone; the log has the rest.", **to)
    flags.DEFINE_bool("verbose", False, "Print what goes to the log as well.", **to)
    flags.DEFINE_bool(
        "json",
        False,
        "Print one JSON object to standard output at the end, in place of lines: state, medians, "
        "notes and report of each run, and the files about all.",
        **to,
    )
    flags.DEFINE_string(
        "checkpoint_dir",
        None,
        "Where long trainings keep their state; else in OUTPUT_DIR/.checkpoints until they end.",
        **to,
    )
    flags.DEFINE_bool(
        "resume",
        True,
        "Leave runs alone whose maps are complete, unchanged since they were written, and made "
        "by the same inputs, method, model, options, seed and versions; --noresume makes them "
        "anew.",
        **to,
    )
    flags.DEFINE_bool(
        "keep_going",
        False,
        "End with status 0 although maps are unusable, which is then only told.",
        **to,
    )
    flags.DEFINE_string(
        "from",
        None,
        "Sidecar of maps that are to be made again, with the method, model, options, seed and "
        "inputs that it states; refused if an input has changed. OUTPUT_DIR is where the sidecar "
        "is unless given.",
        **to,
    )
    flags.DEFINE_integer(
        "n_jobs",
        1,
        "Runs at a time, each in a process of its own. On a GPU they share its memory: set "
        "XLA_PYTHON_CLIENT_MEM_FRACTION to less than 1/n_jobs.",
        1,
        1024,
        **to,
    )
    flags.DEFINE_string(
        "scheduler",
        None,
        "Address of a Dask scheduler to whose workers the runs are sent (tcp://HOST:8786). They "
        "need the same file system and versions, and one thread each (dask worker --nthreads 1). "
        "Runs of a lost worker go to another. Needs asl-pinn[cohort].",
        **to,
    )


def define_reading_flags(to: dict[str, Any]) -> None:
    """Define the flags that say how a dataset is read.

    Parameters
    ----------
    to : dict
        Arguments of absl that say where, and in which group.
    """
    flags.DEFINE_string(
        "mask",
        None,
        "Image of the voxels to quantify; else the dataset's brain mask, or one made from M0.",
        **to,
    )
    flags.DEFINE_string(
        "t1_tissue",
        None,
        "T1 of tissue [s], an image of it, or 'map' for the participant's anat/*_T1map. Default: "
        "by MagneticFieldStrength.",
        **to,
    )
    flags.DEFINE_float(
        "t1_blood", None, "T1 of arterial blood [s]. Default: by MagneticFieldStrength.", **to
    )
    flags.DEFINE_string(
        "gm",
        None,
        "Image of the fraction of grey matter on the grid of the series, for models that tell "
        "tissues apart; or 't1' to make both from the T1 map. Default: *_label-GM_probseg among "
        "the derivatives.",
        **to,
    )
    flags.DEFINE_string(
        "wm", None, "Image of the fraction of white matter, together with --gm.", **to
    )
    flags.DEFINE_bool(
        "keep_sign",
        False,
        "Take the differences as they are though their mean over the mask is negative, as in a "
        "phantom without flow; else they are refused.",
        **to,
    )
    flags.DEFINE_string(
        "readout_delay",
        None,
        "Image of what the readout adds to every delay [s] in each voxel, in place of SliceTiming: "
        "of 2D readouts that were resampled or realigned.",
        **to,
    )
    flags.DEFINE_bool(
        "preprocessed",
        False,
        "Read *_desc-preproc_asl among the derivatives, as ASLPrep writes it, in place of the "
        "acquired series, whose sidecar, aslcontext and M0 remain.",
        **to,
    )


def _define_rois(to: dict[str, Any]) -> None:
    flags.DEFINE_multi_string(
        "rois",
        [],
        "Labels of regions on the grid of the series, LABELS.nii.gz or LABELS.nii.gz:LABELS.tsv "
        "with the columns index and name, for a table of each parameter by region; may be given "
        "several times. Images *_dseg among the derivatives that name an atlas (atlas-, seg-) are "
        "taken as well.",
        **to,
    )


def _define_method_flags(to: dict[str, Any]) -> None:
    methods = "; ".join(f"{name}: {get_estimator(name).summary}" for name in method_names())
    flags.DEFINE_enum("method", DEFAULT_METHOD, method_names(), f"Estimator. {methods}.", **to)
    flags.DEFINE_string(
        "model",
        AUTO,
        "Kinetic model: models joined by '+', such as buxton+arterial, or 'module:Class'. auto: "
        "tissue alone (buxton, pulsed), with arterial, or with arterial and dispersion-gaussian, "
        "as the evidence of the data and prediction of delays left out choose; tissue alone of "
        "crushed data. The report tells which and why. "
        f"{flag_help.models_help()} Weak priors regularise fits of single voxels alone.",
        **to,
    )
    flags.DEFINE_multi_string(
        "bounds",
        [],
        "Bounds of parameters in place of the model's, in their units: att=0.05:3,cbf=0:150; one "
        "side may be left out: att=:3.",
        **to,
    )
    flags.DEFINE_multi_string(
        "prior",
        [],
        "Mean and standard deviation of the priors of parameters in place of the model's, in "
        "their units: att=1.2:1.0; one may be left out: att=:0.5.",
        **to,
    )
    flags.DEFINE_multi_string(
        "fix",
        [],
        "Values at which parameters are held instead of fitted, in their units: att=1.2.",
        **to,
    )
    flags.DEFINE_integer("seed", 0, "Seed of everything random.", 0, 2**32 - 1, **to)
    flags.DEFINE_enum("dtype", "float32", ["float32", "float64"], "Floating-point type.", **to)


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Quantify every run of the dataset, or make the page about all, and say what became of it."""
    # These import nibabel, SciPy and Matplotlib, for which --help does not wait.
    from asl_pinn.workflow.batch import quantify_all, summarise_all
    from asl_pinn.workflow.commands.quantify_jobs import jobs_from_flags
    from asl_pinn.workflow.console import Console

    n_jobs, scheduler = values.n_jobs, values.scheduler
    if scheduler is not None and n_jobs > 1:
        raise InputError("--n_jobs and --scheduler exclude one another; give one of them")
    if values.quiet and values.verbose:
        raise InputError("--quiet and --verbose exclude one another; give one of them")
    console = Console(values.quiet, values.verbose, values.json)
    if list(arguments[2:]) == ["group"]:
        bids_dir, output_dir, _ = positional(arguments, USAGE, 3)
        return summarise_all(Path(bids_dir), Path(output_dir), values.method, values.model, console)
    jobs = jobs_from_flags(arguments, values, USAGE)
    given = [f"--{name}={values[name].value}" for name in values if values[name].present]
    return quantify_all(
        jobs,
        n_jobs=n_jobs,
        scheduler=scheduler,
        command=["quantify", *arguments, *given],
        keep_going=values.keep_going,
        console=console,
    )
