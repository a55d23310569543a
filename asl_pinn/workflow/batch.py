"""Many runs: each quantified, with what became of it told and logged."""

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path

from tqdm import tqdm

from asl_pinn.errors import DiskError, InputError, one_line
from asl_pinn.io import bids
from asl_pinn.io.atomic import require_writable
from asl_pinn.numerics.progress import progress_bar
from asl_pinn.viz.reports import read_group, write_group_page
from asl_pinn.workflow import interrupts, runlog
from asl_pinn.workflow import jobs as cohort
from asl_pinn.workflow.config import Job
from asl_pinn.workflow.run import Outcome, State, quantify_one

SOME_FAILED = 1

_DONE = (State.FINISHED, State.COMPLETE)
_WITH_MAPS = (*_DONE, State.UNUSABLE)


def quantify_all(
    jobs: Sequence[Job],
    *,
    n_jobs: int,
    scheduler: str | None,
    command: Sequence[str],
    keep_going: bool = False,
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
    with runlog.opened(output_dir / "logs", name, arguments) as log:
        outcomes: list[Outcome] = []
        try:
            with contextlib.closing(_outcomes(jobs, n_jobs, scheduler)) as each:
                for outcome in each:
                    outcomes.append(outcome)
                    _tell(outcome, log)
        except KeyboardInterrupt:
            interrupts.seen()
            done = sum(outcome.state in _WITH_MAPS for outcome in outcomes)
            line = f"interrupted; {done} of {len(jobs)} runs are done; run the same command again"
            log.warning("%s", line)
            print(f"asl-pinn: {line}", file=sys.stderr)
            raise
        if any(outcome.state in _WITH_MAPS for outcome in outcomes):
            _write_group_page(output_dir, jobs[0], log)
        return _status(jobs, outcomes, log, keep_going=keep_going)


def _write_group_page(output_dir: Path, job: Job, log: logging.Logger) -> None:
    """Write the page about all runs; what is wrong with it is no fault of the present ones."""
    try:
        write_group_page(output_dir, job.config.method, job.config.model_name)
    except DiskError:
        raise
    except InputError as error:
        print(f"asl-pinn: note: the page about all runs is not written: {error}", file=sys.stderr)
        log.warning("the page about all runs is not written: %s", error)


def summarise_all(output_dir: Path, method: str, model_name: str) -> int:
    """Write the page about all results of a method, without quantifying anything.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset with the maps.
    method : str
        Name of the estimator.
    model_name : str
        Model of the results, where it is not a registered one.

    Returns
    -------
    int
        Exit status 0.

    Raises
    ------
    InputError
        If there are no maps of the method, or the page cannot be written.
    """
    if not output_dir.is_dir() or not read_group(output_dir, bids.desc_label(method), model_name):
        raise InputError(
            f"{output_dir}: no maps of method {method} in it; quantify participants first, or name "
            "another --method"
        )
    print(write_group_page(output_dir, method, model_name))
    return 0


def _outcomes(jobs: Sequence[Job], n_jobs: int, scheduler: str | None) -> Generator[Outcome]:
    """Outcome of each job as soon as it is there, under a bar with the time left."""
    done = cohort.each(quantify_one, jobs, n_jobs=n_jobs, scheduler=scheduler)
    counted, failed = len(jobs), 0
    bar = progress_bar(counted, "runs", unit="run", shown=len(jobs) > 1)
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


def _status(
    jobs: Sequence[Job], outcomes: Sequence[Outcome], log: logging.Logger, *, keep_going: bool
) -> int:
    """Exit status; where some failed, after a list of them."""
    counts = Counter(outcome.state for outcome in outcomes)
    log.info("%s", ", ".join(f"{count} {state}" for state, count in counts.items()))
    failed = [outcome for outcome in outcomes if outcome.state not in _DONE]
    if not failed:
        return 0
    if keep_going and all(outcome.state is State.UNUSABLE for outcome in failed):
        print(f"asl-pinn: {len(failed)} of {len(jobs)} runs are unusable:", file=sys.stderr)
        _list(failed)
        return 0
    reasons = {outcome.message for outcome in failed}
    if counts[State.REFUSED] == len(jobs) and len(reasons) == 1:
        raise InputError(reasons.pop())
    print(f"asl-pinn: {len(failed)} of {len(jobs)} runs failed:", file=sys.stderr)
    _list(failed)
    return SOME_FAILED


def _list(failed: Sequence[Outcome]) -> None:
    for outcome in failed:
        print(f"  {outcome.name}: {outcome.message}", file=sys.stderr)
