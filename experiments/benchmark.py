"""Time the voxel-wise fit beside SciPy's loop, in one run on one machine.

    python experiments/benchmark.py [--quick] [--output=experiments/results/benchmark.json]

Prints a table in Markdown and writes it, with the machine and the command, as JSON.
Compilation is timed apart; peak memory is that of the whole process.
"""

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from cases import foot, make_case, provenance, table

from asl_pinn.data import AslData
from asl_pinn.estimators import nlls, nlls_scipy
from asl_pinn.estimators.voxelwise import NllsOptions, start
from asl_pinn.execution import Execution
from asl_pinn.files import write_json
from asl_pinn.voxels import gather

_QUICK = flags.DEFINE_bool("quick", False, "Fewer repeats and a smaller sample for SciPy.")
_OUTPUT = flags.DEFINE_string("output", "out/benchmark.json", "Where to write the JSON.")
_TSNR = 1.5


def main(argv: list[str]) -> None:
    """Run the benchmark."""
    data = make_case("all", _TSNR, 0).data
    n_voxels = int(data.valid.sum())
    scipy_ms = _scipy_ms(data, 200 if _QUICK.value else 2000)
    rows = []
    for solver in ("dogleg", "lm"):
        options = NllsOptions(solver=solver)
        first, seconds = _timed(
            lambda options=options: nlls.fit(data, options, Execution()), 3 if _QUICK.value else 9
        )
        ours_ms = 1e3 * statistics.median(seconds) / n_voxels
        rows.append(
            {
                "work": f"nlls {solver}, {n_voxels} voxels x {data.protocol.n_delays} delays",
                "first call [s]": round(first, 2),
                "median [s]": round(statistics.median(seconds), 3),
                "min-max [s]": f"{min(seconds):.3f}-{max(seconds):.3f}",
                "per voxel [us]": round(1e3 * ours_ms, 2),
                "SciPy per voxel [us]": round(1e3 * scipy_ms),
                "ratio": round(scipy_ms / ours_ms),
            }
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    about = provenance()
    print("\n".join(table(list(rows[0]), [list(row.values()) for row in rows])))
    print(f"\npeak memory of the process: {peak:.2f} GB\n\n{foot(about)}")
    report = {"about": about, "rows": rows, "peak_memory_gb": round(peak, 2)}
    write_json(Path(_OUTPUT.value), report)
    print(f"{_OUTPUT.value}: the same as JSON")


def _scipy_ms(data: AslData, n_sample: int) -> float:
    """Time of `scipy.optimize.least_squares` for one voxel, from the same start [ms]."""
    options = NllsOptions()
    voxels = gather(data, np.float32)
    starts, noise_sd = start(voxels, data, options)
    sample = np.linspace(0, len(starts) - 1, n_sample).astype(int)
    n_averages = np.asarray(data.n_averages, np.float64)
    rows = [
        (voxels.delta_m[k], starts[k], noise_sd)
        + (voxels.m0[k], voxels.t1_tissue[k], voxels.readout_delay[k])
        for k in sample
    ]
    begin = time.perf_counter()
    for row in rows:
        nlls_scipy.solve_voxel(*row, data.protocol, n_averages, options)
    return 1e3 * (time.perf_counter() - begin) / n_sample


def _timed(function: Callable[[], Any], repeats: int) -> tuple[float, list[float]]:
    """Time of the first call, compilation included, and of the calls after it [s]."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return seconds[0], seconds[1:]


if __name__ == "__main__":
    app.run(main)
