"""One run of a dataset, from its files to its maps, picture and report."""

import contextlib
import dataclasses
import enum
import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from asl_pinn import bids, compilation_cache, provenance
from asl_pinn.data import AslData, PerfusionMaps, Status
from asl_pinn.errors import DiskError, InputError
from asl_pinn.estimators import get_estimator
from asl_pinn.execution import Execution
from asl_pinn.reports import report_files
from asl_pinn.settings import Settings


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to quantify, with all that a process needs to know for it.

    Attributes
    ----------
    run : AslRun
        What to quantify.
    settings : Settings
        How.
    output_dir : Path
        Derivatives dataset to write to.
    checkpoint_dir : Path or None
        Where long trainings keep their state; None for the output's own folder, until they end.
    resume : bool
        Whether to leave complete maps of the same origin as they are.
    progress : bool
        Whether the estimator may draw progress bars.
    fingerprint : str, optional
        InputFingerprint of an earlier result; other data are refused.
    cache : str, optional
        Where compiled programs are kept, as `compilation_cache.enable` takes it.
    """

    run: bids.AslRun
    settings: Settings
    output_dir: Path
    checkpoint_dir: Path | None = None
    resume: bool = True
    progress: bool = False
    fingerprint: str | None = None
    cache: str | None = None


class State(enum.StrEnum):
    """How a job ended."""

    FINISHED = "finished"
    COMPLETE = "already complete"
    REFUSED = "refused"
    UNWRITABLE = "not written"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended, in words.

    Attributes
    ----------
    name : str
        Of the run.
    state : State
        FINISHED, or COMPLETE where there was nothing to do; REFUSED for a fault in the input,
        UNWRITABLE for a full or read-only disk, FAILED for anything else.
    message : str
        One line: numbers, or the reason.
    notes : tuple of str
        What the user should know of how the run was read.
    traceback : str
        Of a failure that is not the user's.
    """

    name: str
    state: State
    message: str
    notes: tuple[str, ...] = ()
    traceback: str = ""


def quantify_one(job: Job) -> Outcome:
    """Quantify one run, whatever happens; in this process, another or on another machine.

    Parameters
    ----------
    job : Job

    Returns
    -------
    Outcome
        Of a fault, too: nothing is raised but what is to end the process.
    """
    name = job.run.stem
    notes: tuple[str, ...] = ()
    try:
        compilation_cache.enable(job.cache)
        jax.config.update("jax_enable_x64", job.settings.dtype == "float64")
        data, read = bids.read_run(job.run, **job.settings.reading)
        notes = read.messages
        origin = provenance.describe(job.settings, job.run.bids_dir, read.sources, data)
        _check_fingerprint(job, origin)
        method = job.settings.method
        earlier = bids.read_finished(job.output_dir, job.run, method) if job.resume else None
        if earlier is not None:
            differing = provenance.differing_keys(origin, earlier)
            if not differing:
                return Outcome(name, State.COMPLETE, f"{name} {method}: already complete", notes)
            notes += (f"earlier maps are replaced, made with other {', '.join(differing)}",)
        label = f"{name}_{bids.desc_label(method)}"
        own = job.output_dir / ".checkpoints"
        circumstances = job.settings.execution(
            progress=job.progress, checkpoint_dir=(job.checkpoint_dir or own) / label
        )
        maps = quantify(job.run, data, read, job.settings, origin, job.output_dir, circumstances)
        if job.checkpoint_dir is None:
            _discard(own / label)
        return Outcome(name, State.FINISHED, _summary(name, method, maps), notes)
    except DiskError as error:
        return Outcome(name, State.UNWRITABLE, str(error), notes)
    except InputError as error:
        return Outcome(name, State.REFUSED, str(error), notes)
    except Exception as error:  # whatever it is, it must not stop the other runs
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(name, State.FAILED, reason, notes, traceback.format_exc())


def quantify(
    run: bids.AslRun,
    data: AslData,
    notes: bids.ReadNotes,
    settings: Settings,
    origin: Mapping[str, Any],
    output_dir: Path,
    circumstances: Execution,
) -> PerfusionMaps:
    """Fit one run and write its maps, picture and report.

    Parameters
    ----------
    run : AslRun
        What is quantified.
    data : AslData
        Read from it.
    notes : ReadNotes
        What the reader had to say.
    settings : Settings
        Method and options.
    origin : mapping
        From `provenance.describe`.
    output_dir : Path
        Derivatives dataset to write to.
    circumstances : Execution
        Those of the settings, with progress and checkpoints.

    Returns
    -------
    PerfusionMaps

    Raises
    ------
    InputError
        If the data cannot be fitted, or the output not be written.
    """
    method = settings.method
    started = time.perf_counter()
    maps = get_estimator(method).fit(data, settings.options, circumstances)
    wall_time = round(time.perf_counter() - started, 3)
    extra = report_files(run, data, maps, method, origin, notes.messages)
    # in the sidecars alone, so that everything else is the same to the bit every time
    stated = {**origin, "WallTime": wall_time}
    bids.write_maps(output_dir, run, maps, data.affine, method, stated, extra)
    return maps


def _check_fingerprint(job: Job, origin: Mapping[str, Any]) -> None:
    if job.fingerprint not in (None, origin["InputFingerprint"]):
        raise InputError(
            f"{job.run.sidecar.path}: its metadata, or what it inherits, are not those that "
            "the maps were made with; restore them, or quantify anew without --from"
        )


def _discard(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints, ignore_errors=True)
    with contextlib.suppress(OSError):  # other runs have theirs there
        checkpoints.parent.rmdir()


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
