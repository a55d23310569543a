"""Cross-validation over delays: fit all but one, predict that one, and measure the error.

It needs no truth, and so compares methods in vivo.

python experiments/heldout.py [--bids_dir=DIR] [--methods=nlls,spatial-map] ...
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags
from cases import RESULTS, foot, provenance, run_method

from asl_pinn.data import AslData, Maps
from asl_pinn.evaluation.cross_validation import prediction_error, without_measurement
from asl_pinn.io import bids
from asl_pinn.io.atomic import write_bytes, write_json
from asl_pinn.models import Buxton

INVIVO = Path(__file__).parents[2] / "shared" / "data" / "invivo-te-pcasl"

_BIDS_DIR = flags.DEFINE_string("bids_dir", str(INVIVO), "Dataset, of which the first run is used.")
_METHODS = flags.DEFINE_list(
    "methods",
    ["nlls", "nlls-smoothed", "spatial-map", "neural-field"],
    "Methods, from experiments/cases.py.",
)
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
            prediction_error(run_method(method, without_measurement(data, delay))[0], data, delay)
            for delay in delays
        ]
        for method in _METHODS.value
    }
    model, zero = Buxton(), np.zeros_like(data.m0)
    nothing = Maps(model, dict.fromkeys(model.names, zero), status=zero.astype(np.int8))
    errors["no signal at all"] = [prediction_error(nothing, data, delay) for delay in delays]
    page = _markdown(data, errors)
    about = provenance()
    output_dir = Path(_OUTPUT_DIR.value)
    write_json(output_dir / "heldout.json", {"about": about, "rmse": errors})
    write_bytes(output_dir / "heldout.md", f"{page}\n\n{foot(about)}\n".encode())
    print(page)


def _markdown(data: AslData, errors: dict[str, list[float]]) -> str:
    t = [f"t = {t:.2f} s, τ = {tau:.2f} s" for t, tau in _timing(data)]
    lines = [
        "# Prediction of delays that were left out",
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
