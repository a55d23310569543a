"""Kill `asl-pinn quantify` at random moments and check what is left on disk.

    python experiments/kills.py BIDS_DIR [--kills=50] [--seed=0]

Half of the kills come at a random time of the run, half at a random call of the system that
writes, as the time spent in those is short. Each killed run is a fork of one process that has
imported everything and started nothing. Fit and pictures are replaced by something quick: what
is tested is the command, from reading to writing. After each kill, every file under its final
name must be one that an undisturbed run makes; the run after the last kill must end with all.
"""

import argparse
import builtins
import contextlib
import dataclasses
import io
import os
import random
import re
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asl_pinn.data import Status
from asl_pinn.estimators.base import Estimate
from asl_pinn.estimators.registry import ESTIMATORS, get_estimator
from asl_pinn.io import bids
from asl_pinn.problem import Problem
from asl_pinn.viz import plots
from asl_pinn.workflow.cli import main


def quantify(bids_dir: Path, output_dir: Path) -> int:
    """Run the command, its output thrown away."""
    arguments = [str(bids_dir), str(output_dir), "participant", "--method=nlls"]
    with contextlib.redirect_stdout(io.StringIO()):
        return main(["asl-pinn", "quantify", *arguments])


def fit(problem: Problem, *_: Any) -> Estimate:
    """Values that depend on the data, at once."""
    values = np.stack([problem.tissue.m0 / 20.0, problem.measured.mean(axis=0)])
    status = np.full(problem.n_voxels, Status.FITTED)
    return Estimate(values, status, sd=values[::-1], noise_sd=1.0)


def forked(work: Callable[[], int], prepare: Callable[[], None] = lambda: None) -> int:
    """Process identifier of a fork that does the work and exits with its status."""
    pid = os.fork()
    if pid == 0:
        prepare()
        os._exit(work())
    return pid


def ended(pid: int) -> bool:
    """Wait for a fork; whether it ended by itself, with status 0."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a run failed with status {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def kill_at_call(number: int) -> None:
    """Let this process kill itself at that call of a function that changes the disk.

    Right before it syncs or renames, or right after it has opened a file to write, when that
    is there and empty.
    """
    count = 0
    fsync, replace, open_file = os.fsync, os.replace, builtins.open

    def passed() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_open(path: Any, mode: str = "r", *others: Any, **keywords: Any) -> Any:
        file = open_file(path, mode, *others, **keywords)
        if "r" not in mode:
            passed()
        return file

    os.fsync = lambda *arguments: (passed(), fsync(*arguments))
    os.replace = lambda *arguments: (passed(), replace(*arguments))
    builtins.open = counted_open


def contents(output_dir: Path) -> dict[str, bytes]:
    """Files with their final names, but for logs, without wall times and what depends on them."""
    return {
        path.relative_to(output_dir).as_posix(): re.sub(
            rb'"WallTime": .*|"sub-.*json": "sha256:.*', b"", path.read_bytes()
        )
        for path in output_dir.rglob("*")
        if path.is_file() and path.suffix != ".part" and path.parent.name != "logs"
    }


def check(bids_dir: Path, kills: int, seed: int, folder: Path) -> str:
    """Kill, look, and go on, that many times; a sentence about it."""
    chance = random.Random(seed)
    started = time.perf_counter()
    ended(forked(lambda: quantify(bids_dir, folder / "undisturbed")))
    duration = time.perf_counter() - started
    expected = contents(folder / "undisturbed")
    n_runs = n_killed = n_partial = 0
    output = folder / "0"
    while n_killed < kills:
        n_runs += 1
        if n_runs % 2:
            pid = forked(lambda o=output: quantify(bids_dir, o))
            time.sleep(chance.uniform(0.0, duration))
            os.kill(pid, signal.SIGKILL)
        else:
            number = chance.randrange(1, 3 * len(expected))
            pid = forked(lambda o=output: quantify(bids_dir, o), lambda n=number: kill_at_call(n))
        finished = ended(pid)
        n_killed += not finished
        left = contents(output)
        n_partial += 0 < len(left) < len(expected)
        wrong = [name for name, content in left.items() if content != expected.get(name)]
        if wrong or (finished and left != expected):
            raise SystemExit(f"run {n_runs}: {wrong or 'files are missing'}")
        if left == expected:  # start anew, else go on from what was left
            output = folder / str(n_runs)
    ended(forked(lambda: quantify(bids_dir, output)))
    if contents(output) != expected or list(output.rglob("*.part")):
        raise SystemExit("the run after the last kill did not end like an undisturbed one")
    return f"{n_killed} of {n_runs} runs killed, {n_partial} left some of the files; none wrong"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for picture in filter(lambda name: name.endswith("_figure"), plots.__all__):
        setattr(plots, picture, lambda *_, **__: None)
    plots.png = lambda _: b"picture"
    ESTIMATORS["nlls"] = dataclasses.replace(get_estimator("nlls"), fit=fit)
    found = bids.find_runs(given.bids_dir)
    bids.find_runs = lambda *_: found
    with tempfile.TemporaryDirectory() as scratch:
        print(check(given.bids_dir, given.kills, given.seed, Path(scratch)))
