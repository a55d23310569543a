"""Table 1: accuracy of the methods on the arena, beside the published numbers.

python experiments/table1.py [--methods=nlls,neural-field] [--seeds=0,1,2,3,4] [--resume] ...
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from cases import RESULTS, foot, make_case, mean_sd, provenance, run_method, table

from asl_pinn.evaluation.metrics import scores
from asl_pinn.io.atomic import write_bytes, write_json
from asl_pinn.models import Buxton

BUXTON = Buxton()

PUBLISHED = {
    (1.5, "cbf"): {"PINN": (0.825, 0.969), "NLLS": (0.786, 0.944)},
    (1.5, "att"): {"PINN": (0.951, 0.995), "NLLS": (0.467, 0.761)},
    (0.5, "cbf"): {"PINN": (0.643, 0.907), "NLLS": (0.533, 0.841)},
    (0.5, "att"): {"PINN": (0.842, 0.980), "NLLS": (0.212, 0.482)},
}
"""Published SSIM and PCC over the whole slice, on the authors' own phantom."""

MEASURES = {
    "ssim": "SSIM, whole slice",
    "pcc": "PCC, whole slice",
    "ssim_masked": "SSIM, brain",
    "pcc_masked": "PCC, brain",
    "nrmse": "nRMSE",
    "bias": "bias",
    "pre_mean": "PRE mean [%]",
    "pre_sd": "PRE SD [%]",
}

PAPER = "pinn --preset=paper"

_METHODS = flags.DEFINE_list(
    "methods",
    ["nlls", "nlls-smoothed", "spatial-map", "neural-field", PAPER],
    "Methods, from experiments/cases.py.",
)
_TSNR = flags.DEFINE_list("tsnr", ["1.5", "0.5"], "Temporal signal-to-noise ratios.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of the noise.")
_SLICE = flags.DEFINE_string("slice", "central", "Slice of the phantom.")
_PAPER_STEPS = flags.DEFINE_integer("paper_steps", None, f"Steps of {PAPER}, if not its own.", 1)
_RESUME = flags.DEFINE_bool("resume", False, "Keep the runs that the JSON file holds already.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", str(RESULTS), "Where to write table1.md and .json.")

Row = dict[str, Any]


def main(argv: Sequence[str]) -> None:
    """Run what is missing, and write the tables."""
    del argv
    output_dir = Path(_OUTPUT_DIR.value)
    record = output_dir / "table1.json"
    rows: list[Row] = json.loads(record.read_text())["runs"] if _RESUME.value else []
    for row in _runs({_key(row) for row in rows}):
        rows.append(row)
        write_json(record, {"about": provenance(), "runs": rows})
    about = provenance()
    write_json(record, {"about": about, "runs": rows})
    page = _markdown(rows, about)
    write_bytes(output_dir / "table1.md", page.encode())
    print(page)


def _runs(known: set[tuple[Any, ...]]) -> Iterator[Row]:
    for method in _METHODS.value:
        paper_steps = _PAPER_STEPS.value if method == PAPER else None
        options = {"steps": paper_steps} if paper_steps else {}
        first = True
        for tsnr, seed in itertools.product(map(float, _TSNR.value), map(int, _SEEDS.value)):
            row = {"method": method, "options": options, "tsnr": tsnr, "seed": seed}
            if _key(row) in known:
                continue
            case = make_case(_SLICE.value, tsnr, seed)
            maps, seconds = run_method(method, case.data, **options)
            row |= {"seconds": round(seconds, 2), "compiled": first}
            for name, estimate in maps.values.items():
                row[name] = scores(estimate, case.phantom[name], case.phantom.mask)
            print(f"{method} tSNR {tsnr} seed {seed}: {seconds:.1f} s", flush=True)
            first = False
            yield row


def _key(row: Row) -> tuple[Any, ...]:
    return row["method"], str(row["options"]), row["tsnr"], row["seed"]


def _markdown(rows: list[Row], about: dict[str, Any]) -> str:
    return "\n".join(
        [
            "# Accuracy on the arena",
            "",
            "Phantom `mni`, one 3 mm slice, Hadamard-8, T1-adjusted; mean ± SD over the seeds "
            "of the noise. The published numbers were measured on another phantom.",
            "",
            *_score_table(rows),
            "",
            *_time_table(rows),
            "",
            foot(about),
            "",
        ]
    )


def _score_table(rows: list[Row]) -> list[str]:
    groups: dict[tuple[float, str, str], list[dict[str, float]]] = {}
    for row in rows:
        for name in [name for name in BUXTON.names if name in row]:
            groups.setdefault((row["tsnr"], name, _label(row)), []).append(row[name])
    cells = []
    shown = {(tsnr, name) for tsnr, name, _ in groups}
    for tsnr, name in sorted(shown, key=lambda key: (-key[0], BUXTON.names.index(key[1]))):
        for method, (ssim, pcc) in PUBLISHED.get((tsnr, name), {}).items():
            blank = [""] * (len(MEASURES) - 2)
            cells.append([f"{tsnr}", BUXTON[name].symbol, f"published {method}", ssim, pcc, *blank])
        for (row_tsnr, row_name, label), scored in groups.items():
            if (row_tsnr, row_name) == (tsnr, name):
                values = [mean_sd([score[measure] for score in scored]) for measure in MEASURES]
                cells.append([f"{tsnr}", BUXTON[name].symbol, label, *values])
    return table(["tSNR", "map", "method", *MEASURES.values()], cells)


def _time_table(rows: list[Row]) -> list[str]:
    cells = []
    for label in dict.fromkeys(map(_label, rows)):
        timed = [row for row in rows if _label(row) == label]
        first = [row["seconds"] for row in timed if row["compiled"]]
        others = [row["seconds"] for row in timed if not row["compiled"]]
        cells.append([label, len(timed), mean_sd(first, 1), mean_sd(others, 1)])
    header = ["method", "runs", "first of a process, with compilation [s]", "others [s]"]
    return table(header, cells)


def _label(row: Row) -> str:
    extra = ", ".join(f"{value} {name}" for name, value in row["options"].items())
    return f"{row['method']} ({extra})" if extra else row["method"]


if __name__ == "__main__":
    app.run(main)
