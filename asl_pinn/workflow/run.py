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
from numpy.typing import NDArray

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
from asl_pinn.io.bids import ReadNotes
from asl_pinn.models import get
from asl_pinn.models.choice import AUTO, ModelChoice, candidates
from asl_pinn.viz.reports import report_files
from asl_pinn.workflow import compilation_cache, provenance
from asl_pinn.workflow.config import Config, Job, adjusted


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
    name, config = one_line(job.run.stem), job.config
    notes: tuple[str, ...] = ()
    try:
        compilation_cache.enable(job.cache)
        jax.config.update("jax_enable_x64", config.dtype == "float64")
        data, read = bids.read_run(job.run, **config.reading)
        notes = read.messages
        config = _with_model(job, read, data)
        origin = provenance.describe(config, job.run.bids_dir, read, data)
        _check_fingerprint(job, origin)
        method = config.method
        earlier = None
        if job.resume:
            earlier = bids.read_finished(job.output_dir, data.stem, method, config.model())
        if earlier is not None and earlier.get("Verdict") in list(Level):
            differing = provenance.differing_keys(origin, earlier)
            if not differing:
                return _outcome(
                    name, State.COMPLETE, f"{name} {method}: already complete", earlier, notes
                )
            notes += (f"earlier maps are replaced, made with other {', '.join(differing)}",)
        label = f"{name}_{bids.desc_label(method)}"
        own = job.output_dir / ".checkpoints"
        context = config.context(
            progress=job.progress, checkpoint_dir=(job.checkpoint_dir or own) / label
        )
        grey_matter = bids.read_grey_matter(job.run, data)
        maps, stated = quantify(data, read, config, origin, job.output_dir, context, grey_matter)
        if job.checkpoint_dir is None:
            _discard(own / label)
        return _outcome(name, State.FINISHED, _summary(name, maps), stated, notes)
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
    grey_matter: NDArray[np.bool_] | None = None,
) -> tuple[Maps, dict[str, Any]]:
    """Fit one run and write its maps, picture and report.

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
    grey_matter : ndarray of bool, shape (X, Y, Z), optional
        Grey matter, where it is known, for the report.

    Returns
    -------
    maps : Maps
    stated : dict
        Keys of the sidecars: the origin, what is wrong with the maps, and the time it took.

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
        "Verdict": str(verdict.level),
        "VerdictReasons": list(verdict.reasons),
        "VerdictFacts": _stated(facts),
    }
    check = predictive_check(data, maps, images)
    told = [*([check.warning] if check and check.warning else []), *maps.notes]
    why = [] if maps.choice is None else [maps.choice.sentence]
    found |= {"Notes": told} if told else {}
    found |= {"PredictiveCheck": _numbers(check)} if check else {}
    extra = report_files(data, maps, found, [*why, *told, *read.messages], grey_matter)
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
) -> Outcome:
    notes += tuple(stated.get("Notes", ()))
    verdict = Verdict(Level(stated["Verdict"]), tuple(stated["VerdictReasons"]))
    if verdict.level is Level.UNUSABLE:
        return Outcome(name, State.UNUSABLE, f"{verdict.sentence}; {_ADVICE}", notes)
    return Outcome(name, state, f"{message}; {verdict.sentence}", notes)


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


def _summary(name: str, maps: Maps) -> str:
    counts = {status: int((maps.status == status).sum()) for status in Status}
    medians = ", ".join(
        f"{p.symbol} {np.median(maps[p.name][told]):.{p.digits}f} {p.unit}".removesuffix(" 1")
        for p in maps.model.parameters
        if (told := maps.estimated(p.name)).any()
    )
    found = f"median {medians}" if medians else "no voxel has an estimate"
    share = 100.0 * counts[Status.ON_BOUND] / max(int(maps.estimated().sum()), 1)
    chosen = "" if maps.choice is None else f"; model {maps.model.name}"
    return (
        f"{name} {maps.method}: {found}; {counts[Status.FITTED]} voxels fitted, "
        f"{counts[Status.ON_BOUND]} on a bound ({share:.0f} %), "
        f"{counts[Status.NOT_CONVERGED]} not converged, {counts[Status.SKIPPED]} skipped{chosen}"
    )
