"""Cost of `nlls` against the number of voxels and of delays, each in a process of its own."""

import dataclasses
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cases import run_method
from matplotlib.figure import Figure

from asl_pinn.acquisition.protocol import label_durations, time_encoded_protocol
from asl_pinn.data import AslData, Phantom
from asl_pinn.simulation.acquire import simulate
from bench.measure import time_calls

_VOXELS = 1000
_FACTORS = (1, 2, 4, 8, 16, 32, 64)
_MATRIX_SIZES = (4, 8, 12, 16, 20, 24)


def measure_alone(data: AslData, repeats: int, options: dict[str, Any]) -> dict[str, float]:
    """Time `nlls` in a new process: first call and median [s], peak memory [GB]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.pickle"
        path.write_bytes(pickle.dumps(data))
        command = [sys.executable, "-m", "bench.scaling", path, str(repeats), json.dumps(options)]
        here = Path(__file__).parents[1]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=here)
    return json.loads(done.stdout.splitlines()[-1])


def curves(data: AslData, phantom: Phantom, repeats: int, quick: bool) -> dict[str, list[dict]]:
    """Time and memory against voxels, and against delays at 16,000 voxels.

    Parameters
    ----------
    data : AslData
        The whole brain.
    phantom : Phantom
        What it was simulated from.
    repeats : int
        Runs of each.
    quick : bool
        Whether to measure the ends alone.

    Returns
    -------
    dict of str to list of dict
        `voxels` and `delays`, with `size`, `first`, `median` and `peak_gb`.
    """
    factors, sizes = (
        ends[:: len(ends) - 1] if quick else ends for ends in (_FACTORS, _MATRIX_SIZES)
    )
    by_voxels = [
        {"size": factor * _VOXELS, **measure_alone(_first(data, factor * _VOXELS), repeats, {})}
        for factor in factors
    ]
    by_delays = []
    for n_delays in [size - 1 for size in sizes]:
        protocol = time_encoded_protocol(label_durations("t1_adjusted", n_delays, 4.0), 0.1)
        encoded = simulate(phantom, protocol, tsnr=1.5, seed=0)
        by_delays.append({"size": n_delays, **measure_alone(_first(encoded, 16000), repeats, {})})
    return {"voxels": by_voxels, "delays": by_delays}


def draw(measured: dict[str, list[dict]]) -> Figure:
    """Log plots of time and peak memory."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for axes, (quantity, points) in zip(figure.subplots(2, 2).T, measured.items(), strict=True):
        size = np.array([point["size"] for point in points])
        median = np.array([point["median"] for point in points])
        axes[0].loglog(size, median, "o-", label="nlls")
        axes[0].loglog(size, median[-1] * size / size[-1], ":", color="gray", label="linear")
        axes[0].set_ylabel("median [s]")
        axes[0].legend(frameon=False)
        axes[1].loglog(size, [point["peak_gb"] for point in points], "o-")
        axes[1].set_ylabel("peak memory [GB]")
        axes[1].set_xlabel(quantity)
        for panel in axes:
            panel.set_xticks(size, [str(one) for one in size], rotation=45)
            panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    return figure


def _first(data: AslData, count: int) -> AslData:
    """The data with the first `count` valid voxels in the mask."""
    mask = np.zeros(data.mask.size, bool)
    mask[np.flatnonzero(data.valid)[:count]] = True
    return dataclasses.replace(data, mask=mask.reshape(data.mask.shape))


def _work(path: str, repeats: str, options: str) -> None:
    data = pickle.loads(Path(path).read_bytes())
    settings = json.loads(options)
    timing = time_calls(lambda: run_method("nlls", data, **settings), int(repeats))
    print(json.dumps({"first": timing.first, "median": timing.median, "peak_gb": _peak_gb()}))


def _peak_gb() -> float:
    """Peak memory of this process on Linux; getrusage would count the one that started it."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) / 2**20


if __name__ == "__main__":
    _work(*sys.argv[1:])
