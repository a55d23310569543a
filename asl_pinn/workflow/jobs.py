"""Many jobs: one after another, in processes of this machine, or on a Dask cluster."""

import functools
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from asl_pinn.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

_PATIENCE = "30 s"
_LOST = "its process was killed, perhaps for want of memory; fewer --n_jobs need less of it"


def each(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    n_jobs: int = 1,
    scheduler: str | None = None,
) -> Generator[tuple[Job, Result | Exception]]:
    """Do every job, wherever, and yield each as soon as it is done.

    Closing the iterator leaves what is done as it is and drops the rest.

    Parameters
    ----------
    work : callable
        Of a module, so that other processes can import it.
    jobs : sequence
        What it is called with.
    n_jobs : int
        Processes of this machine; 1 works in this one.
    scheduler : str, optional
        Address of the scheduler of a Dask cluster, which starts jobs of lost workers again.

    Yields
    ------
    tuple of job and result
        Or job and exception, where `work` raised one or the process that did it was lost.

    Raises
    ------
    InputError
        If there is no such cluster, or Dask is not installed.
    """
    if scheduler is not None:
        return _on_cluster(work, jobs, scheduler)
    if n_jobs > 1 and len(jobs) > 1:
        return _in_processes(work, jobs, min(n_jobs, len(jobs)))
    return ((job, _result(functools.partial(work, job))) for job in jobs)


def _result(call: Callable[[], Result]) -> Result | Exception:
    try:
        return call()
    except Exception as error:
        return error


def _in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], n_jobs: int
) -> Generator[tuple[Job, Result | Exception]]:
    """Jobs in processes, each a pool of its own: one that dies takes no other job with it."""
    idle: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
    for _ in range(n_jobs):
        idle.put(_process())

    def call(job: Job) -> Result:
        pool = idle.get()
        try:
            return pool.submit(work, job).result()
        except BrokenProcessPool:
            pool = _process()
            raise ChildProcessError(_LOST) from None
        finally:
            idle.put(pool)

    others = multiprocessing.active_children()
    threads = ThreadPoolExecutor(n_jobs)
    try:
        futures = {threads.submit(call, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], _result(future.result)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child not in others:
                child.terminate()


def _process() -> ProcessPoolExecutor:
    """One fresh process, as forks do not get along with JAX."""
    return ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=_depend_on_parent
    )


def _depend_on_parent() -> None:
    """Leave interrupts to the parent, and end with it, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _on_cluster(
    work: Callable[[Job], Result], jobs: Sequence[Job], scheduler: str
) -> Generator[tuple[Job, Result | Exception]]:
    try:
        import distributed
    except ImportError:
        raise InputError(
            "--scheduler needs Dask; install it with pip install 'asl-pinn[cohort]'"
        ) from None
    try:
        client = distributed.Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except Exception as error:  # whatever answers there, it need not be Dask
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"--scheduler={scheduler}: no Dask scheduler answers ({reason})") from None
    with client:
        futures = client.map(work, jobs, pure=False)
        todo = dict(zip((future.key for future in futures), jobs, strict=True))
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                yield todo[future.key], _result(future.result)
                # a result that is here need not be made again if its worker is lost
                future.release()
        finally:
            client.cancel(futures)
