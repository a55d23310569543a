"""Maps that BASIL gives of the central slice, scored as ours are, beside ours.

python experiments/basil.py [--basil_maps=FOLDER] [--methods=nlls,spatial-map] ...

BASIL did not have the phantom's T1 map, so that ours are made without it as well.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from absl import app, flags
from cases import RESULTS, Case, foot, make_case, mean_sd, provenance, run_method, table

from asl_pinn.acquisition.constants import T1_TISSUE
from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData
from asl_pinn.evaluation.metrics import scores
from asl_pinn.io.atomic import write_bytes, write_json

MAPS = Path(__file__).parents[2] / "shared" / "data" / "basil-maps"

CONFIGURATIONS = {
    "basil-voxelwise": "BASIL, VB voxel by voxel",
    "basil-spatial": "BASIL, spatial prior on CBF (`oxford_asl --spatial`)",
    "basil-spatial-att": "BASIL, spatial priors on CBF and ATT",
    "basil-spatial-art-t1": "BASIL as oxford_asl sets it: arteries and T1 inferred besides",
}

MEASURES = {
    "ssim": "SSIM",
    "pcc": "PCC",
    "ssim_masked": "SSIM, brain",
    "pcc_masked": "PCC, brain",
    "nrmse": "nRMSE",
    "bias": "bias",
}

_MAPS = flags.DEFINE_string("basil_maps", str(MAPS), "Folder of BASIL's maps.")
_METHODS = flags.DEFINE_list(
    "methods",
    ["nlls", "nlls-smoothed", "spatial-map-no-covariates", "spatial-map"],
    "Methods, from experiments/cases.py.",
)
_TSNR = flags.DEFINE_list("tsnr", ["1.5", "0.5"], "Temporal signal-to-noise ratios.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of the noise.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", str(RESULTS), "Where to write basil.md and .json.")

Row = dict[str, Any]


def main(argv: Sequence[str]) -> None:
    """Score BASIL's maps and ours, and write the table."""
    del argv
    folder, output_dir = Path(_MAPS.value), Path(_OUTPUT_DIR.value)
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder; name that of BASIL's maps with --basil_maps")
    rows: list[Row] = []
    for tsnr, seed in itertools.product(_TSNR.value, _SEEDS.value):
        rows += _of_case(folder, tsnr, seed)
    about = provenance()
    write_json(output_dir / "basil.json", {"about": about, "runs": rows})
    page = _markdown(rows, about)
    write_bytes(output_dir / "basil.md", page.encode())
    print(page)


def _of_case(folder: Path, tsnr: str, seed: str) -> Iterator[Row]:
    case = make_case("central", float(tsnr), int(seed))
    for name, label in CONFIGURATIONS.items():
        files = {p: folder / f"tsnr-{tsnr}_seed-{seed}_{name}_{p}.nii.gz" for p in ("cbf", "att")}
        values = {p: np.asanyarray(nib.load(path).dataobj) for p, path in files.items()}
        yield _row(label, "one value", case, tsnr, seed, values)
    for method, (t1, data) in itertools.product(_METHODS.value, _with_and_without_t1(case.data)):
        maps, seconds = run_method(method, data)
        print(f"{method}, T1 {t1}, tSNR {tsnr}, seed {seed}: {seconds:.1f} s", flush=True)
        yield _row(method, t1, case, tsnr, seed, maps.values)


def _with_and_without_t1(data: AslData) -> Iterator[tuple[str, AslData]]:
    one = np.full_like(data.t1_tissue, T1_TISSUE)
    yield "one value", dataclasses.replace(data, t1_tissue=one)
    yield "map", data


def _row(
    label: str, t1: str, case: Case, tsnr: str, seed: str, values: Mapping[str, FloatArray]
) -> Row:
    truth, mask = case.phantom, case.phantom.mask
    found = {
        name: scores(values[name].reshape(mask.shape), truth[name], mask) for name in ("cbf", "att")
    }
    return {"method": label, "t1": t1, "tsnr": float(tsnr), "seed": int(seed), **found}


def _markdown(rows: list[Row], about: dict[str, Any]) -> str:
    cells = []
    for tsnr, name in itertools.product(dict.fromkeys(row["tsnr"] for row in rows), ("cbf", "att")):
        for method, t1 in dict.fromkeys((row["method"], row["t1"]) for row in rows):
            key = (tsnr, method, t1)
            scored = [row[name] for row in rows if (row["tsnr"], row["method"], row["t1"]) == key]
            values = [mean_sd([each[measure] for each in scored]) for measure in MEASURES]
            cells.append([tsnr, name.upper(), method, t1, *values])
    return "\n".join(
        [
            "# Beside BASIL",
            "",
            "Phantom `mni`, central slice, Hadamard-8, T1-adjusted; mean ± SD over the seeds of "
            "the noise. BASIL (fabber_core 99c29e6, fabber_models_asl fd39ca2, model `aslrest`, "
            "steps as oxford_asl takes them, arrival prior 1.3 ± 1 s) fitted the same data with a "
            "T1 of 1.33 s everywhere; rows with 'one value' had no more, those with 'map' the T1 "
            "map of the phantom. Whole slices but for columns that say brain. `spatial-map` lets "
            "CBF follow M0 and T1, which tell it on this phantom and need not elsewhere; "
            "`spatial-map-no-covariates` does not.",
            "",
            *table(["tSNR", "map", "method", "T1", *MEASURES.values()], cells),
            "",
            foot(about),
            "",
        ]
    )


if __name__ == "__main__":
    app.run(main)
