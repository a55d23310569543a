"""`nlls` beside SciPy's loop and beside asltk, on the whole brain."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from cases import run_method

from asl_pinn.data import AslData
from asl_pinn.estimators.voxelwise.grid import grid_posterior, initial_noise
from asl_pinn.estimators.voxelwise.nlls_scipy import solve_voxel
from asl_pinn.estimators.voxelwise.objective import NllsOptions, with_noise
from asl_pinn.models import Buxton
from asl_pinn.problem import make_problem, take
from bench.measure import of_copy, row, time_calls
from bench.scaling import measure_alone

_ASLTK = "asltk==1.1.3"
# SciPy's loop is given its starts and ends with curvatures, as --sd=curvature does.
_VARIANTS: tuple[dict[str, Any], ...] = ({}, {"sd": "curvature"}, {"solver": "lm"})


def rows(
    data: AslData,
    repeats: int,
    n_scipy: int,
    asltk_environment: Path | None,
    bounds: dict[str, float],
) -> list[dict[str, Any]]:
    """Rows of `nlls` in several ways, and of asltk where its environment may be made.

    Parameters
    ----------
    data : AslData
        The whole brain.
    repeats : int
        Runs of ours.
    n_scipy : int
        Voxels that SciPy fits.
    asltk_environment : Path or None
        Folder of asltk's environment, made if it is not there; None to leave asltk out.
    bounds : dict
        Limits of the machine.

    Returns
    -------
    list of dict
    """
    n_voxels = int(data.valid.sum())
    scipy_seconds = n_voxels * _scipy_seconds(data, n_scipy)
    found = []
    for changes in _VARIANTS:
        timing = time_calls(lambda changes=changes: run_method("nlls", data, **changes), repeats)
        changed = "".join(f" --{name}={value}" for name, value in changes.items())
        work = f"nlls{changed}, {n_voxels} voxels x {data.protocol.n_delays} delays"
        peak = measure_alone(data, 1, changes)["peak_gb"]
        told = {"of_limit": of_copy(data, timing.median, bounds), "peak": peak}
        found.append(row(work, timing, f"SciPy, {n_scipy} voxels", scipy_seconds, **told))
        if asltk_environment is not None and not changes:
            asltk = n_voxels * _asltk_seconds(data, asltk_environment)
            found.append(row(work, timing, "asltk CBFMapping, one slice", asltk, **told))
    return found


def _scipy_seconds(data: AslData, n_sample: int) -> float:
    """Time of `scipy.optimize.least_squares` for one voxel, from the same start [s]."""
    options, problem = NllsOptions(), make_problem(data, Buxton(), "float32")
    problem = with_noise(problem, initial_noise(problem, options))
    starts = np.asarray(grid_posterior(problem, options).x, np.float64)
    sample = np.linspace(0, problem.n_voxels - 1, n_sample).astype(int)
    problem, starts = take(problem, sample), starts[:, sample]
    solve_voxel(problem, 0, starts[:, 0], options)  # what SciPy does once is not a voxel's
    begin = time.perf_counter()
    for voxel, start in enumerate(starts.T):
        solve_voxel(problem, voxel, start, options)
    return (time.perf_counter() - begin) / n_sample


def _asltk_seconds(data: AslData, environment: Path) -> float:
    """Best time of asltk for one voxel, with one process and with all cores [s]."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        install = [python, "-m", "pip", "install", "--quiet", _ASLTK]
        subprocess.run(install, check=True)
    middle = data.mask.shape[2] // 2
    part = np.s_[:, :, middle : middle + 2]
    mask = data.mask[part].copy()
    mask[..., 1] = False
    images = {
        # asltk reads five axes, the last one for echoes; NIfTI would drop one of length 1.
        "pcasl": np.stack([data.delta_m[part]] * 2, axis=-1),
        "m0": data.m0[part],
        "mask": mask.astype(np.float32),
    }
    worker = Path(__file__).with_name("asltk_worker.py")
    protocol = data.protocol
    timing = {"ld": list(1e3 * protocol.label_duration), "pld": list(1e3 * protocol.pld)}
    with tempfile.TemporaryDirectory() as folder:
        for name, values in images.items():
            nib.save(nib.Nifti1Image(values, data.affine), Path(folder) / f"{name}.nii.gz")
        seconds = [
            json.loads(
                subprocess.run(
                    [python, worker, folder, json.dumps(timing), str(cores)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.splitlines()[-1]
            )
            for cores in {1, os.cpu_count()}
        ]
    return min(seconds) / mask.sum()
