"""Cross-validation over delays: fit all but one, predict that one, and measure the error.

It needs no truth, and so compares methods in vivo.

python experiments/heldout.py [--methods=nlls,spatial-map] [--models=buxton,buxton+arterial] ...
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from cases import RESULTS, foot, provenance, run_method, table

from asl_pinn import models
from asl_pinn.data import AslData, Maps
from asl_pinn.errors import InputError
from asl_pinn.evaluation.cross_validation import prediction_error, without_measurement
from asl_pinn.io import bids
from asl_pinn.io.atomic import write_bytes, write_json
from asl_pinn.models import Buxton

INVIVO = Path(__file__).parents[2] / "shared" / "data" / "invivo-te-pcasl"

Row = dict[str, Any]

_BIDS_DIR = flags.DEFINE_string("bids_dir", str(INVIVO), "Dataset, of which the first run is used.")
_METHODS = flags.DEFINE_list(
    "methods",
    ["nlls", "nlls-smoothed", "spatial-map", "neural-field"],
    "Methods, from experiments/cases.py.",
)
_MODELS = flags.DEFINE_list("models", ["buxton"], "Kinetic models.")
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
    rows = [
        _row(method, model, data)
        for method, model in itertools.product(_METHODS.value, _MODELS.value)
    ]
    model, zero = Buxton(), np.zeros_like(data.m0)
    nothing = Maps(model, dict.fromkeys(model.names, zero), status=zero.astype(np.int8))
    every = range(data.protocol.n_delays)
    without_signal = [prediction_error(nothing, data, delay) for delay in every]
    rows.append({"method": "no signal at all", "model": "", "rmse": without_signal})
    page = _markdown(data, rows)
    about = provenance()
    output_dir = Path(_OUTPUT_DIR.value)
    write_json(output_dir / "heldout.json", {"about": about, "rows": rows})
    write_bytes(output_dir / "heldout.md", f"{page}\n\n{foot(about)}\n".encode())
    print(page)


def _row(method: str, model: str, data: AslData) -> Row:
    """Errors of all delays; none where some of the fits is refused."""
    row: Row = {"method": method, "model": model}
    errors = []
    for delay in range(data.protocol.n_delays):
        try:
            maps, _ = run_method(method, without_measurement(data, delay), models.get(model))
        except InputError as error:
            return row | {"refused": f"without delay {delay + 1}: {error}"}
        errors.append(prediction_error(maps, data, delay))
    return row | {"rmse": errors}


def _markdown(data: AslData, rows: list[Row]) -> str:
    t = [f"t = {t:.2f} s, τ = {tau:.2f} s" for t, tau in _timing(data)]
    lines = [
        "# Prediction of delays that were left out",
        "",
        f"Root mean square error over {data.valid.sum()} voxels, in the unit of the images; "
        "the last column is over all delays.",
        "",
    ]
    cells = [
        [row["method"], row["model"], *(f"{v:.2f}" for v in (*row["rmse"], _every(row["rmse"])))]
        for row in rows
        if "rmse" in row
    ]
    refused = [
        f"* {row['method']}, {row['model']}: refused {row['refused']}"
        for row in rows
        if "refused" in row
    ]
    lines += table(["method", "model", *t, "all"], cells)
    return "\n".join([*lines, *([""] if refused else []), *refused])


def _every(errors: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def _timing(data: AslData) -> list[tuple[float, float]]:
    return list(zip(data.protocol.t, data.protocol.label_duration, strict=True))


if __name__ == "__main__":
    app.run(main)
