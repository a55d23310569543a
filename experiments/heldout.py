"""Held-out delays: fit all delays but one, predict that one, and measure the error.

It needs no truth, and so compares methods in vivo.

python experiments/heldout.py [--bids_dir=DIR] [--methods=nlls,pinn] ...
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from arena import RESULTS, foot, provenance, run_method

from asl_pinn import bids
from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.files import write_bytes, write_json
from asl_pinn.voxels import gather, predict

INVIVO = Path(__file__).parents[2] / "shared" / "data" / "invivo-te-pcasl"

_BIDS_DIR = flags.DEFINE_string("bids_dir", str(INVIVO), "Dataset, of which the first run is used.")
_METHODS = flags.DEFINE_list("methods", ["nlls", "pinn"], "Methods, from experiments/arena.py.")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", str(RESULTS), "Where to write heldout.md and .json."
)


def main(argv: Sequence[str]) -> None:
    """Leave each delay out in turn, and write the table of errors."""
    del argv
    bids_dir = Path(_BIDS_DIR.value)
    if not bids_dir.is_dir():
        raise SystemExit(f"{bids_dir}: no such dataset; name one with --bids_dir")
    run = bids.find_runs(bids_dir)[0]
    data, _ = bids.read_run(run)
    delays = range(data.protocol.n_delays)
    errors = {
        method: [
            prediction_error(run_method(method, without(data, delay))[0], data, delay)
            for delay in delays
        ]
        for method in _METHODS.value
    }
    zero = np.zeros_like(data.m0)
    nothing = PerfusionMaps(cbf=zero, att=zero, status=zero)
    errors["no signal at all"] = [prediction_error(nothing, data, delay) for delay in delays]
    page = _markdown(data, errors)
    about = provenance()
    output_dir = Path(_OUTPUT_DIR.value)
    write_json(output_dir / "heldout.json", {"about": about, "rmse": errors})
    write_bytes(output_dir / "heldout.md", f"{page}\n\n{foot(about)}\n".encode())
    print(page)


def without(data: AslData, delay: int) -> AslData:
    """Leave one delay out of an acquisition."""
    protocol = dataclasses.replace(
        data.protocol,
        label_duration=np.delete(data.protocol.label_duration, delay),
        pld=np.delete(data.protocol.pld, delay),
    )
    return dataclasses.replace(
        data,
        delta_m=np.delete(data.delta_m, delay, axis=-1),
        n_averages=np.delete(data.n_averages, delay),
        protocol=protocol,
    )


def prediction_error(maps: PerfusionMaps, data: AslData, delay: int) -> float:
    """Root mean square error, over the valid voxels, of Buxton's curve at one delay.

    Parameters
    ----------
    maps : PerfusionMaps
        Fitted to the data, or to some of them.
    data : AslData
        With the delay in question.
    delay : int
        Its index.

    Returns
    -------
    float
        [unit of delta_m]
    """
    voxels = gather(data, np.float32)
    values = [np.asarray(volume[data.valid], np.float32) for volume in (maps.cbf, maps.att)]
    curves = jax.vmap(predict, in_axes=(0, 0, 0, None))(*values, voxels, data.protocol)
    misfit = np.asarray(curves)[:, delay] - voxels.delta_m[:, delay]
    return float(np.sqrt(np.mean(misfit**2)))


def _markdown(data: AslData, errors: dict[str, list[float]]) -> str:
    t = [f"t = {t:.2f} s, τ = {tau:.2f} s" for t, tau in _timing(data)]
    lines = [
        "# Prediction of delays that were held out",
        "",
        f"Root mean square error over {data.valid.sum()} voxels, in the unit of the images; "
        "the last column is over all delays.",
        "",
        f"| method | {' | '.join(t)} | all |",
        "|---" * (len(t) + 2) + "|",
    ]
    for method, values in errors.items():
        every = np.sqrt(np.mean(np.square(values)))
        lines.append(f"| {method} | {' | '.join(f'{v:.2f}' for v in values)} | {every:.2f} |")
    return "\n".join(lines)


def _timing(data: AslData) -> list[tuple[float, float]]:
    return list(zip(data.protocol.t, data.protocol.label_duration, strict=True))


if __name__ == "__main__":
    app.run(main)
