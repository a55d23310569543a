"""Jobs in processes, some of which are killed; they import this file, which is light."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from asl_pinn.errors import InputError
from asl_pinn.workflow import jobs as cohort


def halve(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def outcomes(jobs, **where) -> dict:
    return {job: result for job, result in cohort.each(halve, jobs, **where)}


def test_jobs_in_this_process_come_in_order():
    done = list(cohort.each(halve, [4, 3, 2]))
    assert [job for job, _ in done] == [4, 3, 2]
    assert [done[0][1], done[2][1]] == [2, 1]
    assert repr(done[1][1]) == "ValueError('3 is odd')"


def test_a_killed_process_takes_no_other_job_with_it():
    done = outcomes([13, 2, 3, 4, 6], n_jobs=2)
    assert isinstance(done.pop(13), ChildProcessError)
    assert repr(done.pop(3)) == "ValueError('3 is odd')"
    assert done == {2: 1, 4: 2, 6: 3}


def rest(folder: Path) -> None:
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600.0)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_interrupt_ends_the_processes(tmp_path, monkeypatch):
    def interrupt():
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            list(cohort.each(rest, [tmp_path] * 4, n_jobs=2))
    finally:
        signal.signal(signal.SIGINT, handler)
    wait_for(lambda: not multiprocessing.active_children())
    assert len(list(tmp_path.iterdir())) == 2


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys, pathlib, test_jobs as t\n"
        "if __name__ == '__main__':\n"
        "    list(t.cohort.each(t.rest, [pathlib.Path(sys.argv[1])] * 2, n_jobs=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parent)
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.wait()
    for path in tmp_path.iterdir():
        wait_for(lambda pid=int(path.stem): not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether there is such a process that is not a zombie."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_no_scheduler_is_one_line(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cohort, "_PATIENCE", "0.2 s")
    with pytest.raises(InputError, match="localhost:1: no Dask scheduler answers"):
        outcomes([2], scheduler="tcp://localhost:1")


def test_dask_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'asl-pinn\[cohort\]'"):
        outcomes([2], scheduler="tcp://localhost:1")
