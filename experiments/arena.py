"""The arena: methods x phantoms x noise x seeds, one row a run, and a leaderboard.

python experiments/arena.py [--quick] [--cases=central,lesions] [--methods=nlls,neural-field] ...

Rows that arena.csv holds already are kept: an interrupted run goes on where it was.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from cases import (
    CASES,
    METHODS,
    RESULTS,
    Case,
    foot,
    mean_sd,
    provenance,
    run_method,
    table,
)
from matplotlib.figure import Figure
from tqdm import tqdm

from asl_pinn.data import Maps
from asl_pinn.errors import InputError
from asl_pinn.evaluation.metrics import coverage, scores
from asl_pinn.io.atomic import write_bytes, write_json
from asl_pinn.models import Buxton

LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
MODEL_ERRORS = ("T1 10 % high", "efficiency 10 % high", "Rician", "3 % outliers", "motion")
ABLATIONS = ("spatial-map-edges", "spatial-map-no-covariates", "neural-field-no-covariates")
NOT_RUN = ("nlls --fix=att=1.2", "pinn", "pinn --preset=paper")  # unless they are asked for
BUXTON = Buxton()
MEASURES = ("nrmse", "ssim", "ssim_masked", "pcc", "pcc_masked", "bias")
LESION_KEY = "recovered "
MARKERS = "osv^D<>phX*"
Row = dict[str, Any]

_QUICK = flags.DEFINE_bool(
    "quick", False, "The central slice and the lesions, one seed, no ablations."
)
_CASES = flags.DEFINE_list("cases", list(CASES), "Cases, from experiments/cases.py.")
_METHODS = flags.DEFINE_list(
    "methods",
    [name for name in METHODS if name not in NOT_RUN],
    "Methods, from experiments/cases.py.",
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", str(RESULTS), "Where to write arena.csv and .md.")


def main(argv: Sequence[str]) -> None:
    """Run what is missing, then write the leaderboard and its plots."""
    del argv
    output_dir = Path(_OUTPUT_DIR.value)
    record = output_dir / "arena.csv"
    rows = list(csv.DictReader(io.StringIO(record.read_text()))) if record.exists() else []
    known = {_key(row) for row in rows}
    missing = [run for run in _plan() if tuple(map(str, run)) not in known]
    for case, tsnr, seed, method in tqdm(missing, desc="arena", unit="run"):
        rows.append(_run(case, tsnr, seed, method))
        write_bytes(record, _as_csv(rows))
    about = provenance()
    write_json(output_dir / "arena.json", about)
    write_bytes(output_dir / "arena.md", _page(rows, about).encode())
    for name, figure in {"noise": _noise_plot(rows), "reliability": _reliability(rows)}.items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        write_bytes(output_dir / f"arena_{name}.png", picture.getvalue())
    print(output_dir / "arena.md")


def _plan() -> Iterator[tuple[str, float, int, str]]:
    """Case, tSNR, seed and method of every run."""
    if _QUICK.value:
        for case in ("central", "lesions"):
            for tsnr in (1.5, 0.5):
                whole = [method for method in _METHODS.value if method not in ABLATIONS]
                yield from ((case, tsnr, 0, method) for method in whole)
        return
    for case in _CASES.value:
        noise = {1.5: 1, 0.5: 1}
        if case == "central":
            noise = {1.5: 5, 0.5: 5, 3.0: 1, 1.0: 1}
        if case == "lesions":
            noise = {1.5: 5, 0.5: 5}
        if case in MODEL_ERRORS:
            noise = {1.5: 1}
        for tsnr, n_seeds in noise.items():
            for seed in range(n_seeds):
                yield from ((case, tsnr, seed, method) for method in _methods_for(case))


def _methods_for(case: str) -> list[str]:
    """Methods without a part are run where that part matters most."""
    whole = case in ("central", "lesions")
    return [method for method in _METHODS.value if whole or method not in ABLATIONS]


def _run(name: str, tsnr: float, seed: int, method: str) -> Row:
    """One row; one without scores where the method refuses the data."""
    case = CASES[name](tsnr, seed)
    row: Row = {"case": name, "tsnr": tsnr, "seed": seed, "method": method}
    try:
        maps, seconds = run_method(method, case.data)
    except InputError as error:
        return row | {"refused": str(error)}
    row |= {"seconds": round(seconds, 2), "voxels": int(case.phantom.mask.sum())}
    for quantity, estimate in maps.values.items():
        truth = case.phantom[quantity]
        scored = scores(estimate, truth, case.phantom.mask)
        row |= {f"{quantity} {measure}": round(scored[measure], 5) for measure in MEASURES}
        sd = maps.sd.get(quantity)
        for level in LEVELS:
            covered = "" if sd is None else coverage(estimate, truth, sd, case.phantom.mask, level)
            row[f"{quantity} coverage {level}"] = covered and round(covered, 5)
    return row | _recovered(case, maps)


def _recovered(case: Case, maps: Maps) -> Row:
    """Fraction of each lesion's contrast that the maps show, of each parameter that it changes."""
    row: Row = {}
    for name, voxels in case.lesions.items():
        for quantity, estimate in maps.values.items():
            healthy = case.healthy[quantity][voxels].mean()
            contrast = case.phantom[quantity][voxels].mean() - healthy
            if contrast != 0.0:
                shown = estimate[voxels].mean() - healthy
                error = estimate[voxels] - case.phantom[quantity][voxels]
                row[f"{LESION_KEY}{name} {quantity}"] = round(float(shown / contrast), 4)
                row[f"error {name} {quantity}"] = round(float(np.sqrt(np.mean(error**2))), 4)
    return row


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("case", "tsnr", "seed", "method"))


def _as_csv(rows: list[Row]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _select(rows: list[Row], measure: str, **where: Any) -> list[float]:
    """Values of one measure in the rows that match, without blanks."""
    chosen = [row for row in rows if all(str(row[k]) == str(v) for k, v in where.items())]
    return [float(row[measure]) for row in chosen if row.get(measure) not in (None, "")]


def _refused(rows: list[Row], **where: Any) -> bool:
    """Whether a method refused the data of the rows that match."""
    return any(
        row.get("refused") and all(str(row[k]) == str(v) for k, v in where.items()) for row in rows
    )


def _methods(rows: list[Row]) -> list[str]:
    return [method for method in METHODS if any(row["method"] == method for row in rows)]


def _page(rows: list[Row], about: dict[str, Any]) -> str:
    lines = [
        "# Leaderboard",
        "",
        "Phantom `mni`, 3 mm, one slice, Hadamard-8, T1-adjusted, unless the case says otherwise; "
        "nRMSE, SSIM and coverage of 95 % intervals inside the brain; mean ± SD over the seeds of "
        "the noise. Methods and cases: [cases.py](../cases.py). All rows: [arena.csv](arena.csv).",
    ]
    for tsnr in (1.5, 0.5):
        lines += ["", f"## Central slice, tSNR {tsnr}", "", *_leaderboard(rows, tsnr)]
    lines += ["", "![Error against noise and time](arena_noise.png)"]
    lines += ["", "![Coverage against nominal level](arena_reliability.png)"]
    others = [case for case in CASES if case not in ("central", *MODEL_ERRORS)]
    for quantity in BUXTON.names:
        for tsnr in (1.5, 0.5):
            title = f"## {BUXTON[quantity].symbol} elsewhere, tSNR {tsnr}: nRMSE"
            lines += ["", title, "", *_by_case(rows, others, quantity, tsnr)]
    lines += ["", "## Coverage of 95 % intervals, means over cases without model error", ""]
    lines += _coverage_table(rows)
    for quantity in BUXTON.names:
        title = f"## Model errors, {BUXTON[quantity].symbol}, tSNR 1.5: nRMSE (bias)"
        lines += ["", title, "", *_by_case(rows, ["central", *MODEL_ERRORS], quantity, 1.5, True)]
    lines += ["", "## Lesions: fraction of the contrast recovered (root mean square error inside)"]
    for tsnr in (1.5, 0.5):
        lines += ["", f"tSNR {tsnr}", "", *_lesion_table(rows, tsnr)]
    return "\n".join([*lines, "", foot(about), ""])


def _leaderboard(rows: list[Row], tsnr: float) -> list[str]:
    columns = {
        f"{BUXTON[quantity].symbol} {label}": f"{quantity} {measure}"
        for quantity in BUXTON.names
        for label, measure in {
            "nRMSE": "nrmse",
            "SSIM": "ssim_masked",
            "coverage": "coverage 0.95",
        }.items()
    }
    cells = []
    for method in _methods(rows):
        where = {"case": "central", "tsnr": tsnr, "method": method}
        values = [mean_sd(_select(rows, name, **where)) for name in columns.values()]
        seconds = _select(rows, "seconds", **where)
        cells.append([method, *values, f"{np.median(seconds):.1f}" if seconds else ""])
    return table(["method", *columns, "time, median [s]"], cells)


def _by_case(
    rows: list[Row], cases: list[str], quantity: str, tsnr: float, with_bias: bool = False
) -> list[str]:
    cells = []
    for method in _methods(rows):
        values = []
        for case in cases:
            where = {"case": case, "tsnr": tsnr, "method": method}
            errors = _select(rows, f"{quantity} nrmse", **where)
            refused = "refused" if _refused(rows, **where) else ""
            text = f"{np.mean(errors):.3f}" if errors else refused
            if errors and with_bias:
                text += f" ({np.mean(_select(rows, f'{quantity} bias', **where)):+.3f})"
            values.append(text)
        cells.append([method, *values])
    return table(["method", *cases], cells)


def _coverage_table(rows: list[Row]) -> list[str]:
    sound = [row for row in rows if row["case"] not in MODEL_ERRORS]
    cells = []
    for method in _methods(rows):
        values = [
            mean_sd(_select(sound, f"{quantity} coverage 0.95", tsnr=tsnr, method=method))
            for quantity in BUXTON.names
            for tsnr in (1.5, 0.5)
        ]
        cells.append([method, *values])
    return table(["method", "CBF 1.5", "CBF 0.5", "ATT 1.5", "ATT 0.5"], cells)


def _lesion_table(rows: list[Row], tsnr: float) -> list[str]:
    ill = [row for row in rows if row["case"] == "lesions"]
    names = [name for row in ill[:1] for name in row if name.startswith(LESION_KEY)]
    cells = []
    for method in _methods(ill):
        where = {"tsnr": tsnr, "method": method}
        fractions = [mean_sd(_select(ill, name, **where), 2) for name in names]
        errors = [
            np.mean(_select(ill, name.replace(LESION_KEY, "error "), **where) or [np.nan])
            for name in names
        ]
        pairs = zip(fractions, errors, strict=True)
        cells.append([method, *(f"{fraction} ({error:.3g})" for fraction, error in pairs)])
    return table(["method", *(name.removeprefix(LESION_KEY) for name in names)], cells)


def _noise_plot(rows: list[Row]) -> Figure:
    """NRMSE over tSNR, and over time at tSNR 1.5, on the central slice."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    for axes, quantity in zip(figure.subplots(2, 2), BUXTON.names, strict=True):
        for number, method in enumerate(_methods(rows)):
            where = {"case": "central", "method": method}
            levels = sorted({float(row["tsnr"]) for row in rows if row["case"] == "central"})
            errors = [_select(rows, f"{quantity} nrmse", tsnr=tsnr, **where) for tsnr in levels]
            shown = [(t, np.mean(e)) for t, e in zip(levels, errors, strict=True) if e]
            style = {"color": f"C{number}", "marker": MARKERS[number], "label": method}
            axes[0].plot(*zip(*shown, strict=True), **style) if shown else None
            seconds = _select(rows, "seconds", tsnr=1.5, **where)
            errors = _select(rows, f"{quantity} nrmse", tsnr=1.5, **where)
            if errors:
                axes[1].plot(np.median(seconds), np.mean(errors), linestyle="none", **style)
        axes[0].set(
            xlabel="tSNR", ylabel=f"{BUXTON[quantity].symbol} nRMSE", xscale="log", yscale="log"
        )
        axes[1].set(xlabel="time, median [s]", xscale="log", yscale="log")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _reliability(rows: list[Row]) -> Figure:
    """Fraction of voxels covered over the nominal level, cases without model error."""
    sound = [row for row in rows if row["case"] not in MODEL_ERRORS]
    figure = Figure(figsize=(10, 8), layout="constrained")
    for row_axes, tsnr in zip(figure.subplots(2, 2), (1.5, 0.5), strict=True):
        for axes, quantity in zip(row_axes, BUXTON.names, strict=True):
            axes.plot([0.5, 1.0], [0.5, 1.0], color="black", linewidth=0.8)
            for number, method in enumerate(_methods(rows)):
                where = {"tsnr": tsnr, "method": method}
                covered = [_select(sound, f"{quantity} coverage {lv}", **where) for lv in LEVELS]
                if all(covered):
                    means = [np.mean(values) for values in covered]
                    style = {"color": f"C{number}", "marker": MARKERS[number]}
                    axes.plot(LEVELS, means, label=method, **style)
            axes.set(
                title=f"{BUXTON[quantity].symbol}, tSNR {tsnr}", xlabel="level", ylabel="coverage"
            )
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    app.run(main)
