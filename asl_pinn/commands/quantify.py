"""`asl-pinn quantify`."""

import contextlib
import dataclasses
import logging
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from absl import flags
from tqdm import tqdm

from asl_pinn import bids, cohort, kinetics, provenance, runlog
from asl_pinn.bids.sidecar import read_json
from asl_pinn.commands.arguments import define_execution_flags, positional, require
from asl_pinn.errors import DiskError, InputError
from asl_pinn.estimators import ESTIMATORS
from asl_pinn.files import require_writable
from asl_pinn.options import define_flags as define_option_flags
from asl_pinn.options import options_from_flags
from asl_pinn.quantify import Job, Outcome, State, quantify_one
from asl_pinn.reports import write_group_page
from asl_pinn.settings import Settings

USAGE = (
    "BIDS_DIR OUTPUT_DIR participant [--participant_label=01] [--method=spatial-map] ...; "
    "or --from=SIDECAR [OUTPUT_DIR]"
)

SOME_FAILED = 1

_DONE = (State.FINISHED, State.COMPLETE)
_ORIGIN = {
    "Method": str,
    "Options": dict,
    "Seed": int,
    "DataType": str,
    "Reading": dict,
    "Device": str,
    "SoftwareVersions": dict,
    "InputDataset": str,
    "SourceChecksums": dict,
    "InputFingerprint": str,
}


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command, the options of every method among them."""
    to: dict[str, Any] = {"flag_values": values}
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
    flags.DEFINE_bool(
        "resume",
        True,
        "Leave runs alone whose maps are complete, unchanged since they were written, and made "
        "by the same inputs, method, options, seed and versions; --noresume makes them anew.",
        **to,
    )
    flags.DEFINE_string(
        "from",
        None,
        "Sidecar of maps that are to be made again, with the options, seed and inputs that it "
        "states; refused if an input has changed. OUTPUT_DIR is where the sidecar is unless given.",
        **to,
    )
    flags.DEFINE_integer(
        "n_jobs",
        1,
        "Runs at a time, each in a process of its own. On a GPU they share its memory: set "
        "XLA_PYTHON_CLIENT_MEM_FRACTION to less than 1/n_jobs.",
        1,
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
    define_execution_flags(values)
    define_option_flags({name: entry.options for name, entry in ESTIMATORS.items()}, values)


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Quantify every run of the dataset, and say what became of each."""
    n_jobs, scheduler = values.n_jobs, values.scheduler
    if scheduler is not None and n_jobs > 1:
        raise InputError("--n_jobs and --scheduler exclude one another; give one of them")
    given = [f"--{name}={values[name].value}" for name in values if values[name].present]
    jobs = _jobs(arguments, values) if values["from"].value is None else [_again(arguments, values)]
    require_writable(jobs[0].output_dir)
    bids.holds_derivatives(jobs[0].output_dir)  # else refused only after the fit
    with runlog.opened(jobs[0].output_dir / "logs", "quantify", [*arguments, *given]) as log:
        outcomes: list[Outcome] = []
        try:
            with contextlib.closing(_outcomes(jobs, n_jobs, scheduler)) as each:
                for outcome in each:
                    outcomes.append(outcome)
                    _tell(outcome, log)
        except KeyboardInterrupt:
            done = sum(outcome.state in _DONE for outcome in outcomes)
            line = f"interrupted; {done} of {len(jobs)} runs are done; run the same command again"
            log.warning("%s", line)
            print(f"asl-pinn: {line}", file=sys.stderr)
            raise
        if any(outcome.state in _DONE for outcome in outcomes):
            write_group_page(jobs[0].output_dir, jobs[0].settings.method)
        return _status(jobs, outcomes, log)


def _jobs(arguments: Sequence[str], values: flags.FlagValues) -> list[Job]:
    """Jobs for all runs that were asked for."""
    bids_dir, output_dir, level = positional(arguments, USAGE, 3)
    if level != "participant":
        raise InputError(f"analysis level {level!r} is unknown; it must be 'participant'")
    settings = _settings(values)
    runs = bids.find_runs(Path(bids_dir), values.participant_label)
    return [_job(found, settings, Path(output_dir), values) for found in runs]


def _again(arguments: Sequence[str], values: flags.FlagValues) -> Job:
    """Job that repeats the one that a sidecar tells of."""
    sidecar = Path(require(values, "from"))
    if len(arguments) > 1:
        raise InputError("with --from, OUTPUT_DIR is the one argument; the sidecar has the rest")
    origin = read_json(sidecar)
    missing = [key for key, kind in _ORIGIN.items() if not isinstance(origin.get(key), kind)]
    if missing:
        raise InputError(
            f"{sidecar}: does not state {missing[0]}; give the sidecar of a map that quantify wrote"
        )
    _set_flags(origin, sidecar, values)
    bids_dir = Path(origin["InputDataset"])
    provenance.check_sources(origin, bids_dir)
    runs = [
        found
        for found in bids.find_runs(bids_dir)
        if provenance.is_source(found.path, origin, bids_dir)
    ]
    if len(runs) != 1:
        raise InputError(f"{sidecar}: names {len(runs)} ASL series of {bids_dir}, not one")
    folder = sidecar.absolute().parent
    depth = len(runs[0].folder.parts)
    if not arguments and folder.parts[-depth:] != runs[0].folder.parts:
        raise InputError(f"{sidecar}: lies in no dataset of maps; give an OUTPUT_DIR")
    output_dir = Path(arguments[0]) if arguments else folder.parents[depth - 1]
    for key, here in provenance.circumstances().items():
        if origin[key] != here:
            print(f"{runs[0].stem}: note: made with other {key}; bits may differ", file=sys.stderr)
    job = _job(runs[0], _settings(values), output_dir, values)
    return dataclasses.replace(job, resume=False, fingerprint=origin["InputFingerprint"])


def _set_flags(origin: Mapping[str, Any], sidecar: Path, values: flags.FlagValues) -> None:
    """Set the flags to what a sidecar states, as if the user had."""
    chosen = {"method": origin["Method"], "seed": origin["Seed"], "dtype": origin["DataType"]}
    chosen |= {**origin["Options"], **origin["Reading"]}
    for name in (*chosen, "participant_label"):
        if name in values and values[name].present:
            raise InputError(f"--{name}: --from takes it from the sidecar; leave it out")
    for name, value in chosen.items():
        if name not in values:
            raise InputError(f"{sidecar}: states {name!r}, which this version does not know")
        if value is not None:
            try:
                values[name].parse(str(value))
            except flags.IllegalFlagValueError as error:
                raise InputError(f"{sidecar}: {' '.join(str(error).split())}") from None


def _settings(values: flags.FlagValues) -> Settings:
    method, mask = values.method, values.mask
    return Settings(
        method,
        options_from_flags(ESTIMATORS[method].options, values),
        values.seed,
        values.dtype,
        {
            "mask": None if mask is None else Path(mask).absolute(),
            "t1_tissue": _t1_tissue(values.t1_tissue),
            "t1_blood": values.t1_blood,
        },
    )


def _job(found: bids.AslRun, settings: Settings, output_dir: Path, values: flags.FlagValues) -> Job:
    kept = values.checkpoint_dir
    return Job(
        found,
        settings,
        output_dir.absolute(),
        None if kept is None else Path(kept).absolute(),
        values.resume,
        progress=values.n_jobs == 1 and values.scheduler is None,
        cache=values.compilation_cache,
    )


def _outcomes(jobs: Sequence[Job], n_jobs: int, scheduler: str | None) -> Generator[Outcome]:
    """Outcome of each job as soon as it is there, under a bar with the time left."""
    done = cohort.each(quantify_one, jobs, n_jobs=n_jobs, scheduler=scheduler)
    hidden = None if len(jobs) > 1 else True  # None hides the bar where there is no terminal
    counted, failed = len(jobs), 0
    bar = tqdm(
        total=counted, desc="runs", unit="run", smoothing=0.0, disable=hidden, file=sys.stderr
    )
    with contextlib.closing(done), bar:
        for job, result in done:
            if isinstance(result, Exception):
                result = Outcome(job.run.stem, State.FAILED, str(result))
            if result.state is State.COMPLETE:
                counted -= 1
                bar.total = counted  # says nothing about the time that the others take
            else:
                bar.update()
            failed += result.state not in _DONE
            bar.set_postfix({"failed": failed} if failed else {})
            yield result


def _tell(outcome: Outcome, log: logging.Logger) -> None:
    """Print what became of a run and log it; failures are printed at the end."""
    for note in outcome.notes:
        tqdm.write(f"{outcome.name}: note: {note}", file=sys.stderr)
        log.info("%s: note: %s", outcome.name, note)
    if outcome.state is State.UNWRITABLE:
        raise DiskError(outcome.message)
    if outcome.state in _DONE:
        tqdm.write(outcome.message, file=sys.stdout)
        log.info("%s", outcome.message)
    else:
        log.error("%s: %s", outcome.name, outcome.message)
        if outcome.traceback:
            log.error("%s", outcome.traceback)


def _status(jobs: Sequence[Job], outcomes: Sequence[Outcome], log: logging.Logger) -> int:
    """Exit status; where some failed, after a list of them."""
    counts = Counter(outcome.state for outcome in outcomes)
    log.info("%s", ", ".join(f"{count} {state}" for state, count in counts.items()))
    failed = [outcome for outcome in outcomes if outcome.state not in _DONE]
    if not failed:
        return 0
    reasons = {outcome.message for outcome in failed}
    if counts[State.REFUSED] == len(jobs) and len(reasons) == 1:
        raise InputError(reasons.pop())
    print(f"asl-pinn: {len(failed)} of {len(jobs)} runs failed:", file=sys.stderr)
    for outcome in failed:
        print(f"  {outcome.name}: {outcome.message}", file=sys.stderr)
    return SOME_FAILED


def _t1_tissue(text: str) -> float | Path | Literal["map"]:
    if text == "map":
        return "map"
    try:
        return float(text)
    except ValueError:
        return Path(text).absolute()
