"""One run of a dataset, from its files to its maps, picture and report."""

import contextlib
import dataclasses
import enum
import functools
import math
import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from asl_pinn.data import AslData, Maps, Status
from asl_pinn.errors import DiskError, InputError, one_line
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.model_choice import choose_model
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.evaluation.facts import with_fit
from asl_pinn.evaluation.prediction import predicted
from asl_pinn.evaluation.predictive_check import PredictiveCheck, predictive_check
from asl_pinn.evaluation.verdict import Facts, Level, Verdict, judge
from asl_pinn.io import bids
from asl_pinn.io.bids import Anatomy, ReadNotes
from asl_pinn.models import get
from asl_pinn.models.choice import AUTO, ModelChoice, candidates
from asl_pinn.viz.reports import report_files
from asl_pinn.workflow import compilation_cache, provenance
from asl_pinn.workflow.config import Config, Job, adjusted
from asl_pinn.workflow.tables import run_tables

NOTHING_KNOWN = Anatomy()
"""Of a brain of which nothing is known but the data."""


class State(enum.StrEnum):
    """How a job ended."""

    FINISHED = "finished"
    COMPLETE = "already complete"
    UNUSABLE = "unusable"
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
        FINISHED, or COMPLETE where there was nothing to do; UNUSABLE where there are maps that
        cannot be right; REFUSED for a fault in the input, UNWRITABLE for a full or read-only disk,
        FAILED for anything else.
    message : str
        One line: numbers, or the reason.
    notes : tuple of str
        What the user should know of how the run was read.
    traceback : str
        Of a failure that is not the user's.
    medians : mapping of str to float
        Of each map over the voxels that have an estimate, in its unit; where it was fitted now.
    report : Path or None
        The page about it, where there is one.
    verdict : Verdict or None
        On the maps, where there are any.
    """

    name: str
    state: State
    message: str
    notes: tuple[str, ...] = ()
    traceback: str = ""
    medians: Mapping[str, float] = dataclasses.field(default_factory=dict)
    report: Path | None = None
    verdict: Verdict | None = None


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
    name, config = one_line(job.run.stem), job.config
    notes: tuple[str, ...] = ()
    try:
        compilation_cache.enable(job.cache)
        jax.config.update("jax_enable_x64", config.dtype == "float64")
        data, read = bids.read_run(job.run, **config.reading)
        anatomy, read = _anatomy(job, data, read)
        notes = read.messages
        config = _with_model(job, read, data)
        origin = provenance.describe(config, job.run.bids_dir, read, data)
        _check_fingerprint(job, origin)
        method = config.method
        label = bids.desc_label(method)
        report = job.output_dir / f"{data.stem}_desc-{label}_report.html"
        earlier = None
        if job.resume:
            earlier = bids.read_finished(job.output_dir, data.stem, method, config.model())
        if earlier is not None and earlier.get("Verdict") in list(Level):
            differing = provenance.differing_keys(origin, earlier)
            if not differing:
                said = f"{name} {method}: already complete"
                return _outcome(name, State.COMPLETE, said, earlier, notes, report)
            notes += (f"earlier maps are replaced, made with other {', '.join(differing)}",)
        kept = f"{name}_{label}"
        own = job.output_dir / ".checkpoints"
        context = config.context(
            progress=job.progress, checkpoint_dir=(job.checkpoint_dir or own) / kept
        )
        maps, stated = quantify(data, read, config, origin, job.output_dir, context, anatomy)
        if job.checkpoint_dir is None:
            _discard(own / kept)
        done = _outcome(name, State.FINISHED, _summary(name, maps), stated, notes, report)
        return dataclasses.replace(done, medians=_medians(maps))
    except DiskError as error:
        return Outcome(name, State.UNWRITABLE, str(error), notes)
    except InputError as error:
        return Outcome(name, State.REFUSED, str(error), notes)
    except MemoryError:
        return Outcome(name, State.REFUSED, f"{job.run.path}: {_NO_MEMORY}", notes)
    except Exception as error:  # whatever it is, it must not stop the other runs
        reason = one_line(" ".join(f"{type(error).__name__}: {error}".split()))
        return Outcome(name, State.FAILED, reason, notes, traceback.format_exc())


def quantify(
    data: AslData,
    read: ReadNotes,
    config: Config,
    origin: Mapping[str, Any],
    output_dir: Path,
    context: RunContext,
    anatomy: Anatomy = NOTHING_KNOWN,
) -> tuple[Maps, dict[str, Any]]:
    """Fit one run and write its maps, picture, report and tables.

    Parameters
    ----------
    data : AslData
        Read from the run.
    read : ReadNotes
        What the reader had to say, and measured.
    config : Config
        Method, model and options.
    origin : mapping
        From `provenance.describe`.
    output_dir : Path
        Derivatives dataset to write to.
    context : RunContext
        That of the config, with progress and checkpoints.
    anatomy : Anatomy
        Tissues, regions and motion, for the report and the tables.

    Returns
    -------
    maps : Maps
    stated : dict
        Keys of the sidecars: the origin, the verdict, and the time it took.

    Raises
    ------
    InputError
        If the data cannot be fitted, or the output not be written.
    """
    method, started = config.method, time.perf_counter()
    estimator, model = get_estimator(method), config.model()
    maps = estimate_maps(data, method, estimator, model, config.options, context)
    maps = dataclasses.replace(maps, choice=config.choice)
    wall_time = round(time.perf_counter() - started, 3)
    images = predicted(data, maps)
    facts = with_fit(read.facts, data, maps, images, read.noise_sd)
    verdict = judge(facts)
    found = {
        **origin,
        "VoxelCounts": _counts(maps),
        "Verdict": str(verdict.level),
        "VerdictReasons": list(verdict.reasons),
        "VerdictFacts": _stated(facts),
    }
    check = predictive_check(data, maps, images)
    told = [*([check.warning] if check and check.warning else []), *maps.notes]
    why = [] if maps.choice is None else [maps.choice.sentence]
    found |= {"Notes": told} if told else {}
    found |= {"PredictiveCheck": _numbers(check)} if check else {}
    said = [*why, *told, *read.messages]
    extra = report_files(data, maps, found, said, anatomy.grey_matter, images)
    extra |= run_tables(data, maps, images, check, anatomy, found)
    # in the sidecars alone, so that everything else is the same to the bit every time
    stated = {**found, "WallTime": wall_time}
    bids.write_maps(output_dir, maps, stated, extra)
    return maps, stated


def choose(config: Config, data: AslData) -> Config:
    """The choices of the user with the model that the data choose, where they are to choose it.

    Parameters
    ----------
    config : Config
        With any model.
    data : AslData
        What is to be quantified.

    Returns
    -------
    Config
        That of the argument where it names a model.

    Raises
    ------
    InputError
        If the data cannot be fitted.
    """
    if config.model_name != AUTO:
        return config
    own = functools.partial(adjusted, bounds=config.bounds, priors=config.priors, own_alone=True)
    return config.with_model(choose_model(data, own, held=config.held, dtype=config.dtype))


def _anatomy(job: Job, data: AslData, read: ReadNotes) -> tuple[Anatomy, ReadNotes]:
    """What is known of the brain for tables and report, and its files among the sources."""
    messages: list[str] = []
    anatomy = bids.read_anatomy(job.run, data, job.config.rois, messages)
    return anatomy, read.extended(messages, anatomy.sources, job.run.bids_dir)


def _with_model(job: Job, read: ReadNotes, data: AslData) -> Config:
    """The job's choices with the model; that of complete maps of the same origin, if any."""
    config = job.config
    if config.model_name != AUTO or not job.resume:
        return choose(config, data)
    known = candidates(data.protocol)
    model = get(known[0])  # whose first parameter all candidates have
    earlier = bids.read_finished(job.output_dir, data.stem, config.method, model) or {}
    name = earlier.get("Model")
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        if name in known:
            same = config.with_model(ModelChoice.restored(name, earlier["ModelChoice"]))
            origin = provenance.describe(same, job.run.bids_dir, read, data)
            if not provenance.differing_keys(origin, earlier):
                return same
    return choose(config, data)


def _counts(maps: Maps) -> dict[str, int]:
    """Voxels of the mask, and what became of them, as sidecar keys."""
    status = np.asarray(maps.status)
    names = {
        "Fitted": Status.FITTED,
        "OnBound": Status.ON_BOUND,
        "NotConverged": Status.NOT_CONVERGED,
        "Skipped": Status.SKIPPED,
    }
    counts = {name: int((status == code).sum()) for name, code in names.items()}
    return {"Mask": sum(counts.values()), **counts}


def _numbers(check: PredictiveCheck) -> dict[str, Any]:
    """Of a predictive check, as sidecar keys."""
    return {
        "MeanMisfitByDelay": [round(float(value), 4) for value in check.mean_misfit],
        "DegreesOfFreedom": round(check.degrees_of_freedom, 3),
        "ReducedChiSquare": round(check.reduced_chi_square, 4),
        "FractionBeyondNoise": round(check.beyond, 5),
    }


def _outcome(
    name: str,
    state: State,
    message: str,
    stated: Mapping[str, Any],
    notes: tuple[str, ...],
    report: Path,
) -> Outcome:
    notes += tuple(stated.get("Notes", ()))
    verdict = Verdict(Level(stated["Verdict"]), tuple(stated["VerdictReasons"]))
    if verdict.level is Level.UNUSABLE:
        state, message = State.UNUSABLE, f"{verdict.sentence}; {_ADVICE}"
    else:
        message = f"{message}; {verdict.sentence}"
    return Outcome(name, state, message, notes, report=report, verdict=verdict)


_NO_MEMORY = "does not fit into memory; lift its limit (ulimit -v), or crop the series"
_ADVICE = "the maps are written all the same; --keep_going ends with status 0"


def _stated(facts: Facts) -> dict[str, Any]:
    """What was measured, as sidecar keys; what is not a finite number is left out."""
    known = {name: value for name, value in vars(facts).items() if isinstance(value, (bool, float))}
    return {
        "".join(word.capitalize() for word in name.split("_")): value
        if isinstance(value, bool)
        else float(f"{value:.6g}")
        for name, value in known.items()
        if isinstance(value, bool) or math.isfinite(value)
    }


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


def _medians(maps: Maps) -> dict[str, float]:
    """Median of each map over the voxels that have an estimate, where there are any."""
    return {
        p.name: float(np.median(maps[p.name][told]))
        for p in maps.model.parameters
        if (told := maps.estimated(p.name)).any()
    }


def _summary(name: str, maps: Maps) -> str:
    counts = {status: int((maps.status == status).sum()) for status in Status}
    known = _medians(maps)
    medians = ", ".join(
        f"{p.symbol} {known[p.name]:.{p.digits}f} {p.unit}".removesuffix(" 1")
        for p in maps.model.parameters
        if p.name in known
    )
    found = f"median {medians}" if medians else "no voxel has an estimate"
    share = 100.0 * counts[Status.ON_BOUND] / max(int(maps.estimated().sum()), 1)
    chosen = "" if maps.choice is None else f"; model {maps.model.name}"
    return (
        f"{name} {maps.method}: {found}; {counts[Status.FITTED]} voxels fitted, "
        f"{counts[Status.ON_BOUND]} on a bound ({share:.0f} %), "
        f"{counts[Status.NOT_CONVERGED]} not converged, {counts[Status.SKIPPED]} skipped{chosen}"
    )
