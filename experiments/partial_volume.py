"""CBF and ATT of pure grey and white matter, on a brain whose tissue fractions are known.

python experiments/partial_volume.py [--slice=central] [--tsnr=1.5,5] [--seeds=3] ...
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from cases import PROTOCOL, RESULTS, foot, mean_sd, provenance, table

from asl_pinn import models
from asl_pinn.data import AslData, Maps, Phantom
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.io.atomic import write_bytes, write_json
from asl_pinn.simulation.acquire import simulate
from asl_pinn.simulation.phantoms import mni_phantom, select_slices

MODEL = models.get("partial-volume")
LEAST = 0.1  # of a tissue, where it is scored

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "nlls": ("nlls", {}),
    "nlls --pv_kernel=3x3x3": ("nlls", {"pv_kernel": "3x3x3"}),
    "nlls --pv_kernel=5x5x1": ("nlls", {"pv_kernel": "5x5x1"}),
    "nlls-smoothed": ("nlls-smoothed", {}),
    "spatial-map": ("spatial-map", {}),
    "neural-field": ("neural-field", {}),
}
"""Method and options by their names in the table."""

_SLICE = flags.DEFINE_string("slice", "central", "'central', an index, or 'all'.")
_TSNR = flags.DEFINE_list("tsnr", ["1.5", "5"], "Temporal signal-to-noise ratios.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Noise seeds, from 0 on.", 1)
_METHODS = flags.DEFINE_list("methods", [*METHODS], f"Of {', '.join(METHODS)}.")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", str(RESULTS), "Where to write partial_volume.md and .json."
)


def main(argv: Sequence[str]) -> None:
    """Fit each noisy brain with each method, and write the table of errors."""
    del argv
    brain = select_slices(mni_phantom(), _SLICE.value)
    scores = []
    for tsnr in map(float, _TSNR.value):
        for seed in range(_SEEDS.value):
            data = simulate(brain, PROTOCOL, tsnr=tsnr, seed=seed, model=MODEL)
            total, _ = _fit("nlls", {}, data, models.get("buxton"))
            where = {p.name: _present(brain, p.tissue) for p in MODEL.parameters}
            as_total = {p.name: total[p.file_suffix] for p in MODEL.parameters}
            cases = {"nlls --model=buxton": (as_total, where, 0.0)}
            for name in _METHODS.value:
                maps, seconds = _fit(*METHODS[name], data, MODEL)
                told = {p.name: maps.told(p.name) & where[p.name] for p in MODEL.parameters}
                cases[name] = (dict(maps.values), told, seconds)
            for name, (values, told, seconds) in cases.items():
                errors = _errors(values, brain, told)
                scores.append(
                    {"tsnr": tsnr, "seed": seed, "method": name, "seconds": seconds, **errors}
                )
    page, about = _markdown(scores), provenance()
    output_dir = Path(_OUTPUT_DIR.value)
    write_json(output_dir / "partial_volume.json", {"about": about, "scores": scores})
    write_bytes(output_dir / "partial_volume.md", f"{page}\n\n{foot(about)}\n".encode())
    print(page)


def _fit(
    method: str, options: dict[str, Any], data: AslData, model: models.KineticModel
) -> tuple[Maps, float]:
    estimator = get_estimator(method)
    begin = time.perf_counter()
    maps = estimate_maps(
        data, method, estimator, model, estimator.options(**options), RunContext(progress=True)
    )
    return maps, time.perf_counter() - begin


def _present(brain: Phantom, tissue: str) -> np.ndarray:
    return brain.mask & (brain.fractions[tissue.lower()] >= LEAST)


def _errors(
    values: dict[str, np.ndarray], brain: Phantom, told: dict[str, np.ndarray]
) -> dict[str, float]:
    """Median error and median absolute error of each parameter, CBF in % and ATT in s."""
    found = {}
    for p in MODEL.parameters:
        estimate, truth = values[p.name][told[p.name]], brain[p.name][told[p.name]]
        error = 100.0 * (estimate / truth - 1.0) if p.linear else estimate - truth
        found[f"{p.name} bias"] = float(np.median(error))
        found[f"{p.name} error"] = float(np.median(np.abs(error)))
    return found


def _markdown(scores: list[dict[str, Any]]) -> str:
    header = ["tSNR", "method"]
    for p in MODEL.parameters:
        unit = "%" if p.linear else "s"
        header += [f"{p.symbol}: median error [{unit}]", "median absolute error"]
    rows = []
    for tsnr, method in dict.fromkeys((score["tsnr"], score["method"]) for score in scores):
        same = [s for s in scores if (s["tsnr"], s["method"]) == (tsnr, method)]
        row = [f"{tsnr:g}", method]
        for p in MODEL.parameters:
            digits = 1 if p.linear else 3
            row += [
                mean_sd([s[f"{p.name} {kind}"] for s in same], digits) for kind in ("bias", "error")
            ]
        rows.append([*row, f"{np.median([s['seconds'] for s in same]):.0f}"])
    return "\n".join(
        [
            "# Grey and white matter apart",
            "",
            f"Phantom `mni`, slice {_SLICE.value}, whose fractions are known; errors against CBF "
            f"and ATT of the pure tissue, over voxels with at least {LEAST:g} of it; mean and SD "
            f"over {_SEEDS.value} noise seeds. The first row of each tSNR is the total of the "
            "voxel, without correction.",
            "",
            *table([*header, "seconds"], rows),
        ]
    )


if __name__ == "__main__":
    app.run(main)
