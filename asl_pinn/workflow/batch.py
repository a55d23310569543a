"""Many runs: each quantified, with what became of it told and logged."""

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from asl_pinn.errors import DiskError, InputError, one_line
from asl_pinn.io import bids
from asl_pinn.io.atomic import require_writable
from asl_pinn.io.bids.sidecar import read_json
from asl_pinn.numerics.progress import progress_bar
from asl_pinn.viz.reports import read_group, write_group_page
from asl_pinn.workflow import interrupts, runlog
from asl_pinn.workflow import jobs as cohort
from asl_pinn.workflow.config import Job
from asl_pinn.workflow.console import Console
from asl_pinn.workflow.run import Outcome, State, quantify_one
from asl_pinn.workflow.tables import write_group_tables

SOME_FAILED = 1
EVERYTHING = Console()

_DONE = (State.FINISHED, State.COMPLETE)
_WITH_MAPS = (*_DONE, State.UNUSABLE)


def quantify_all(
    jobs: Sequence[Job],
    *,
    n_jobs: int,
    scheduler: str | None,
    command: Sequence[str],
    keep_going: bool = False,
    console: Console = EVERYTHING,
) -> int:
    """Quantify runs of one dataset by one method, print what became of each and write the page.

    Parameters
    ----------
    jobs : sequence of Job
        At least one; all with the same method and output folder.
    n_jobs, scheduler
        Where they are done, as `asl_pinn.workflow.jobs.each` takes it.
    command : sequence of str
        Name of the command and its arguments, for the log.
    keep_going : bool
        Whether maps that are unusable are told and otherwise count as finished.
    console : Console
        How much is said.

    Returns
    -------
    int
        Exit status: 0, or 1 where some runs failed or gave maps that cannot be right.

    Raises
    ------
    InputError
        If nothing can be written, or all runs are refused for one reason.
    """
    output_dir = jobs[0].output_dir
    require_writable(output_dir)
    bids.holds_derivatives(output_dir)  # else refused only after the fit
    name, *arguments = command
    with runlog.opened(output_dir / "logs", name, arguments) as log, console.echoing(log):
        outcomes: list[Outcome] = []
        try:
            with contextlib.closing(_outcomes(jobs, n_jobs, scheduler, console)) as each:
                for outcome in each:
                    outcomes.append(outcome)
                    _tell(outcome, log, console)
        except KeyboardInterrupt:
            interrupts.seen()
            done = sum(outcome.state in _WITH_MAPS for outcome in outcomes)
            line = f"interrupted; {done} of {len(jobs)} runs are done; run the same command again"
            log.warning("%s", line)
            print(f"asl-pinn: {line}", file=sys.stderr)
            raise
        group: list[Path] = []
        if any(outcome.state in _WITH_MAPS for outcome in outcomes):
            group = _write_group_or_note(jobs[0], console, log)
        status = _status(jobs, outcomes, console, log, keep_going=keep_going)
        _tell_where(outcomes, group, console)
        method = jobs[0].config.method
        console.summarise(_summary(outcomes, output_dir, method, group, status))
        return status


def _write_group_or_note(job: Job, console: Console, log: logging.Logger) -> list[Path]:
    """Write what is about all runs; what is wrong with it is no fault of the present ones."""
    config = job.config
    try:
        return write_group(
            job.output_dir, config.method, config.model_name, job.run.bids_dir, console
        )
    except DiskError:
        raise
    except InputError as error:
        line = f"the page and the tables about all runs are not up to date: {error}"
        console.note(f"asl-pinn: note: {line}")
        log.warning("%s", line)
        return []


def summarise_all(
    bids_dir: Path,
    output_dir: Path,
    method: str,
    model_name: str,
    console: Console = EVERYTHING,
) -> int:
    """Write the page and the tables about all results of a method, without quantifying anything.

    Parameters
    ----------
    bids_dir : Path
        The dataset, whose participants.tsv the tables are joined with.
    output_dir : Path
        Derivatives dataset with the maps.
    method : str
        Name of the estimator.
    model_name : str
        Model of the results, where it is not a registered one.
    console : Console
        How much is said.

    Returns
    -------
    int
        Exit status 0.

    Raises
    ------
    InputError
        If there are no maps of the method, or the page or a table cannot be written.
    """
    if not output_dir.is_dir() or not read_group(output_dir, bids.desc_label(method), model_name):
        raise InputError(
            f"{output_dir}: no maps of method {method} in it; quantify participants first, or name "
            "another --method"
        )
    group = write_group(output_dir, method, model_name, bids_dir, console)
    for path in group:
        console.say(str(path))
    console.summarise(_summary([], output_dir, method, group, 0))
    return 0


def write_group(
    output_dir: Path,
    method: str,
    model_name: str,
    bids_dir: Path,
    console: Console = EVERYTHING,
) -> list[Path]:
    """Write the page and the tables about all results of a method, where they would differ.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset with the maps.
    method : str
        Name of the estimator.
    model_name : str
        Model of the present run, which may be one that is not registered.
    bids_dir : Path
        The dataset, whose participants.tsv the tables are joined with.
    console : Console
        How much is said.

    Returns
    -------
    list of Path
        The page first.

    Raises
    ------
    InputError
        If a map or table is unreadable, or a file cannot be written.
    """
    notes: list[str] = []
    participants = bids.read_participants(bids_dir, notes)
    for note in notes:
        console.note(f"note: {note}")
    page = write_group_page(output_dir, method, model_name, participants)
    beside = bids_dir / "participants.json"
    described = read_json(beside) if participants and beside.is_file() else {}
    return [page, *write_group_tables(output_dir, method, participants, described)]


def _outcomes(
    jobs: Sequence[Job], n_jobs: int, scheduler: str | None, console: Console
) -> Generator[Outcome]:
    """Outcome of each job as soon as it is there, under a bar with the time left."""
    done = cohort.each(quantify_one, jobs, n_jobs=n_jobs, scheduler=scheduler)
    counted, failed = len(jobs), 0
    bar = progress_bar(counted, "runs", unit="run", shown=len(jobs) > 1 and not console.quiet)
    bar.smoothing = 0.0  # the time left by the mean of all runs, not by the last ones
    with contextlib.closing(done), bar:
        for job, result in done:
            if isinstance(result, Exception):
                result = Outcome(one_line(job.run.stem), State.FAILED, one_line(str(result)))
            if result.state is State.COMPLETE:
                counted -= 1
                bar.total = counted  # says nothing about the time that the others take
            else:
                bar.update()
            failed += result.state not in _DONE
            bar.set_postfix({"failed": failed} if failed else {})
            yield result


def _tell(outcome: Outcome, log: logging.Logger, console: Console) -> None:
    """Print what became of a run and log it; failures are printed at the end."""
    for note in outcome.notes:
        console.note(f"{outcome.name}: note: {note}")
        log.info("%s: note: %s", outcome.name, note)
    if outcome.state is State.UNWRITABLE:
        raise DiskError(outcome.message)
    if outcome.state in _DONE:
        console.say(outcome.message)
        log.info("%s", outcome.message)
    else:
        log.error("%s: %s", outcome.name, outcome.message)
        if outcome.traceback:
            log.error("%s", outcome.traceback)


def _tell_where(outcomes: Sequence[Outcome], group: Sequence[Path], console: Console) -> None:
    """Print where to look: at the report of one run, or at the page about all."""
    reports = [outcome.report for outcome in outcomes if outcome.report]
    if len(reports) == 1:
        console.say(f"report: {reports[0]}")
    elif group:
        console.say(f"reports: {group[0]}")


def _summary(
    outcomes: Sequence[Outcome], output_dir: Path, method: str, group: Sequence[Path], status: int
) -> dict[str, Any]:
    """What became of all runs, for programs."""
    return {
        "output_dir": output_dir.absolute(),
        "method": method,
        "exit_status": status,
        "runs": [
            {
                "name": outcome.name,
                "state": str(outcome.state),
                "message": outcome.message,
                "verdict": outcome.verdict and outcome.verdict.level,
                "verdict_reasons": outcome.verdict.reasons if outcome.verdict else (),
                "notes": outcome.notes,
                "medians": outcome.medians,
                "report": outcome.report,
            }
            for outcome in outcomes
        ],
        "group": [path.absolute() for path in group],
    }


def _status(
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    console: Console,
    log: logging.Logger,
    *,
    keep_going: bool,
) -> int:
    """Exit status; where some failed, after a list of them."""
    counts = Counter(outcome.state for outcome in outcomes)
    log.info("%s", ", ".join(f"{count} {state}" for state, count in counts.items()))
    failed = [outcome for outcome in outcomes if outcome.state not in _DONE]
    if not failed:
        return 0
    if keep_going and all(outcome.state is State.UNUSABLE for outcome in failed):
        console.note(f"asl-pinn: {len(failed)} of {len(jobs)} runs are unusable:")
        for outcome in failed:
            console.note(_line(outcome))
        return 0
    reasons = {outcome.message for outcome in failed}
    if counts[State.REFUSED] == len(jobs) and len(reasons) == 1:
        raise InputError(reasons.pop())
    print(f"asl-pinn: {len(failed)} of {len(jobs)} runs failed:", file=sys.stderr)
    for outcome in failed:
        print(_line(outcome), file=sys.stderr)
    return SOME_FAILED


def _line(outcome: Outcome) -> str:
    return f"  {outcome.name}: {outcome.message}"
