"""Arterial blood: what it does to the maps of a tissue-only model, and what a model of it restores.

python experiments/arteries.py [--quick] [--methods=nlls,spatial-map] [--slices=19-21,31-33] ...

Rows that arteries.json holds already are kept: an interrupted run goes on where it was.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from cases import PROTOCOL, RESULTS, foot, mean_sd, provenance, run_method, table
from numpy.typing import NDArray
from tqdm import tqdm

from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.data import Maps, Phantom
from asl_pinn.errors import InputError
from asl_pinn.evaluation.metrics import coverage, pcc
from asl_pinn.io.atomic import write_bytes, write_json
from asl_pinn.io.bids.sidecar import read_json
from asl_pinn.simulation.acquire import simulate
from asl_pinn.simulation.phantoms import mni_phantom, with_arteries

Row = dict[str, Any]

PROTOCOLS = {
    "Hadamard-8": PROTOCOL,
    "multi-delay": Protocol(np.full(6, 1.4), np.arange(1, 7) * 0.25),
}
"""Acquisitions by name: the published one, and label of 1.4 s with delays of 0.25 to 1.5 s."""

MODELS = ("buxton", "buxton+arterial")
ARTERIAL = 0.01  # aBV above which a voxel is counted as arterial
KEY = ("protocol", "slices", "tsnr", "seed", "arteries", "method", "model")

_QUICK = flags.DEFINE_bool("quick", False, "nlls on one slice, one protocol, tSNR and seed.")
_METHODS = flags.DEFINE_list(
    "methods", ["nlls", "spatial-map", "neural-field"], "Methods, from experiments/cases.py."
)
_MODELS = flags.DEFINE_list("models", list(MODELS), "Models that are fitted.")
_PROTOCOLS = flags.DEFINE_list("protocols", list(PROTOCOLS), "Acquisitions.")
_SLICES = flags.DEFINE_list("slices", ["19-21", "31-33"], "Slabs: first and last slice.")
_TSNR = flags.DEFINE_list("tsnr", ["1.5", "5"], "Levels of noise, of the tissue's signal.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds of the noise.", 1)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", str(RESULTS), "Where to write arteries.md and .json."
)


def main(argv: Sequence[str]) -> None:
    """Run what is missing, then write the tables."""
    del argv
    output_dir = Path(_OUTPUT_DIR.value)
    record = output_dir / "arteries.json"
    rows: list[Row] = read_json(record)["rows"] if record.exists() else []
    known = {tuple(row[name] for name in KEY) for row in rows}
    for run in tqdm([run for run in _plan() if run not in known], desc="arteries", unit="run"):
        rows.append(_run(*run))
        write_json(record, {"about": provenance(), "rows": rows})
    write_bytes(output_dir / "arteries.md", _page(rows, provenance()).encode())
    print(output_dir / "arteries.md")


def _plan() -> list[tuple[Any, ...]]:
    """Keys of all runs."""
    if _QUICK.value:
        return [
            ("Hadamard-8", "20-20", 5.0, 0, present, "nlls", model)
            for present in (True, False)
            for model in MODELS
        ]
    return list(
        itertools.product(
            _PROTOCOLS.value,
            _SLICES.value,
            map(float, _TSNR.value),
            range(_SEEDS.value),
            (True, False),
            _METHODS.value,
            _MODELS.value,
        )
    )


@functools.cache
def _brain() -> Phantom:
    return with_arteries(mni_phantom())


def _slab(phantom: Phantom, slices: str) -> Phantom:
    """Neighbouring slices, such as '19-21'."""
    first, last = map(int, slices.split("-"))
    affine = phantom.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]

    def cut(volume: NDArray[Any]) -> NDArray[Any]:
        return volume[:, :, first : last + 1]

    return dataclasses.replace(
        phantom,
        values={name: cut(volume) for name, volume in phantom.values.items()},
        m0=cut(phantom.m0),
        t1_tissue=cut(phantom.t1_tissue),
        mask=cut(phantom.mask),
        grey_matter=cut(phantom.grey_matter),
        affine=affine,
        fractions={name: cut(volume) for name, volume in phantom.fractions.items()},
    )


def _run(
    protocol: str, slices: str, tsnr: float, seed: int, arteries: bool, method: str, model: str
) -> Row:
    """One row; one without scores where the method refuses the data or the model."""
    row: Row = dict(zip(KEY, (protocol, slices, tsnr, seed, arteries, method, model), strict=True))
    brain = _slab(_brain(), slices)
    simulated = models.get(MODELS[arteries])
    data = simulate(brain, PROTOCOLS[protocol], tsnr=tsnr, seed=seed, model=simulated)
    try:
        maps, seconds = run_method(method, data, models.get(model))
    except InputError as error:
        return row | {"refused": str(error)}
    return row | {"seconds": round(seconds, 2)} | _scores(maps, brain, arteries)


def _scores(maps: Maps, brain: Phantom, arteries: bool) -> Row:
    """Errors of each map in all of the brain, and those in arteries."""
    abv = brain["abv"] if arteries else np.zeros_like(brain["abv"])
    truth = {**brain.values, "abv": abv}
    places = {"all": brain.mask, "arterial": brain.mask & (abv > ARTERIAL)}
    row: Row = {}
    for place, where in places.items():
        if not where.any():
            continue
        for name, estimate in maps.values.items():
            if name == "abat" and place == "all":
                continue  # where there is no artery it means nothing
            true = truth[name]
            error = (estimate - true)[where]
            key = f"{place} {name}"
            row[f"{key} rmse"] = float(np.sqrt(np.mean(error**2)))
            row[f"{key} bias"] = float(np.median(error))
            if true[where].all():
                row[f"{key} relative bias"] = float(np.median(error / true[where]))
            if name == "abv" and arteries:
                row[f"{key} pcc"] = pcc(estimate[where], true[where])
                slope = (estimate[where] @ true[where]) / (true[where] @ true[where])
                row[f"{key} slope"] = float(slope)
            if name in maps.sd:
                row[f"{key} coverage"] = coverage(estimate, true, maps.sd[name], where)
    if "abv" in maps.values:
        row["found"] = float(np.mean(maps["abv"][brain.mask] > ARTERIAL))
    return {name: round(float(value), 5) for name, value in row.items()}


def _page(rows: list[Row], about: dict[str, Any]) -> str:
    slabs = ", ".join(dict.fromkeys(row["slices"] for row in rows))
    lines = [
        "# Arteries",
        "",
        f"Phantom `mni` with arteries, 3 mm, slices {slabs}; tSNR is that of the tissue's signal. "
        f"Arterial are voxels whose true aBV is above {100 * ARTERIAL:g} %. Mean ± SD over slabs "
        "and seeds of the noise. Slopes are those of lines through the origin, and correlations "
        "of aBV are given over arterial voxels and over all of the brain. Coverage is that of "
        "95 % intervals.",
    ]
    conditions = dict.fromkeys((row["protocol"], row["tsnr"]) for row in rows)
    for protocol, tsnr in conditions:
        chosen = [row for row in rows if (row["protocol"], row["tsnr"]) == (protocol, tsnr)]
        present = [row for row in chosen if row["arteries"]]
        absent = [row for row in chosen if not row["arteries"]]
        title = f"{protocol}, tSNR {tsnr:g}"
        lines += ["", f"## {title}: in arteries", "", *_table(present, _IN_ARTERIES)]
        lines += ["", f"## {title}: everywhere", "", *_table(present, _EVERYWHERE)]
        lines += ["", f"## {title}: coverage", "", *_table(present, _COVERAGE)]
        lines += ["", f"## {title}: without arteries", "", *_ratios(absent)]
    return "\n".join([*lines, "", foot(about), ""])


_IN_ARTERIES = {
    "ATT, median bias [s]": ("arterial att bias", 1.0),
    "CBF, median bias [%]": ("arterial cbf relative bias", 100.0),
    "aBV, correlation": ("arterial abv pcc", 1.0),
    "aBV, correlation in all": ("all abv pcc", 1.0),
    "aBV, slope": ("arterial abv slope", 1.0),
    "aBAT, median bias [s]": ("arterial abat bias", 1.0),
}

_EVERYWHERE = {
    "CBF, RMSE [mL/100g/min]": ("all cbf rmse", 1.0),
    "ATT, RMSE [s]": ("all att rmse", 1.0),
    "aBV, RMSE [%]": ("all abv rmse", 100.0),
    "voxels with aBV > 1 % [%]": ("found", 100.0),
    "time [s]": ("seconds", 1.0),
}

_COVERAGE = {
    "CBF": ("all cbf coverage", 1.0),
    "ATT": ("all att coverage", 1.0),
    "aBV": ("all abv coverage", 1.0),
    "CBF in arteries": ("arterial cbf coverage", 1.0),
    "ATT in arteries": ("arterial att coverage", 1.0),
    "aBV in arteries": ("arterial abv coverage", 1.0),
    "aBAT in arteries": ("arterial abat coverage", 1.0),
}


def _table(rows: list[Row], columns: dict[str, tuple[str, float]]) -> list[str]:
    cells = []
    for method, model in dict.fromkeys((row["method"], row["model"]) for row in rows):
        own = [row for row in rows if (row["method"], row["model"]) == (method, model)]
        values = [
            mean_sd([scale * row[name] for row in own if name in row])
            for name, scale in columns.values()
        ]
        cells.append([method, model, *values])
    return table(["method", "model", *columns], cells)


def _ratios(rows: list[Row]) -> list[str]:
    """Errors with the arterial model over those with tissue alone, run by run."""
    names = {"CBF": "all cbf rmse", "ATT": "all att rmse"}
    by_key = {tuple(row[name] for name in KEY): row for row in rows}
    cells = []
    for method in dict.fromkeys(row["method"] for row in rows):
        pairs = [
            (by_key[(*key[:-1], MODELS[0])], row)
            for key, row in by_key.items()
            if key[-2] == method and key[-1] == MODELS[1] and (*key[:-1], MODELS[0]) in by_key
        ]
        values = [
            mean_sd([new[name] / old[name] for old, new in pairs if name in old and name in new])
            for name in names.values()
        ]
        found = mean_sd([100.0 * new["found"] for _, new in pairs if "found" in new])
        cells.append([method, *values, found])
    header = [f"{symbol}, ratio of the RMSE" for symbol in names]
    return table(["method", *header, "voxels with aBV > 1 % [%]"], cells)


if __name__ == "__main__":
    app.run(main)
