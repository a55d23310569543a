"""A cohort on a cluster, one of whose workers is killed."""

import dataclasses
import os
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest
from bids_fixtures import write_dataset
from pictures import draw_nothing

from asl_pinn.data import Status
from asl_pinn.estimators.base import Estimate
from asl_pinn.estimators.registry import ESTIMATORS, get_estimator
from asl_pinn.io import bids
from asl_pinn.models import get
from asl_pinn.problem import Problem
from asl_pinn.workflow import batch
from asl_pinn.workflow.cli import main
from asl_pinn.workflow.config import Job
from asl_pinn.workflow.run import Outcome, quantify_one

distributed = pytest.importorskip("distributed")

NUMBERS = ("01", "02", "03", "04")


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fit(problem: Problem, *_) -> Estimate:
    """Anything that is quick: where it runs is what matters here."""
    values = np.repeat([[50.0], [2.0]], problem.n_voxels, axis=1)
    return Estimate(values, np.full(problem.n_voxels, Status.FITTED))


def gated(job: Job) -> Outcome:
    """`quantify_one`, which says where it starts and then waits for the test."""
    folder = job.output_dir.parent / "gate"
    (folder / f"{job.run.stem}.{os.getpid()}").touch()
    wait_for((folder / "open").exists)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ESTIMATORS, "nlls", dataclasses.replace(get_estimator("nlls"), fit=fit))
        draw_nothing(patch)
        return quantify_one(job)


def test_a_cluster_finishes_each_participant_though_a_worker_is_killed(
    tmp_path, monkeypatch, capsys
):
    for subject in NUMBERS:
        write_dataset(tmp_path / "bids", stem=f"sub-{subject}", folder=f"sub-{subject}/perf")
    gate = tmp_path / "gate"
    gate.mkdir()
    killed = []

    def kill_one():
        wait_for(lambda: len(list(gate.iterdir())) == 2)
        victim = min(gate.iterdir())
        killed.append(victim.stem)
        os.kill(int(victim.suffix[1:]), signal.SIGKILL)
        wait_for(lambda: len(list(gate.glob(f"{victim.stem}.*"))) == 2)
        (gate / "open").touch()

    monkeypatch.setattr(batch, "quantify_one", gated)
    arguments = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--method=nlls"]
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        address = f"--scheduler={cluster.scheduler_address}"
        assert main(["asl-pinn", "quantify", *arguments, address]) == 0
        killer.join()
    said = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert sorted(said) == [f"sub-{number} nlls" for number in NUMBERS]
    starts = Counter(path.stem for path in gate.glob("sub-*"))
    assert starts == {f"sub-{n}": 2 if f"sub-{n}" in killed else 1 for n in NUMBERS}
    runs = bids.find_runs(tmp_path / "bids")
    output, model = tmp_path / "out", get("buxton")
    assert all(bids.read_finished(output, run.maps_stem, "nlls", model) for run in runs)
