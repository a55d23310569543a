"""Half against half in vivo: fit one half of the repeats, and predict the mean of the other.

python experiments/halves.py [--methods=nlls,spatial-map] [--models=buxton,buxton+arterial] ...

It needs no truth. Of the noise-free signal of the other half, `explained` is the share that the
prediction has: 1 - (misfit² - noise²) / (signal² - noise²), mean squares over voxels and delays,
with the noise of the other half's mean from the scatter of its repeats.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from cases import RESULTS, foot, provenance, run_method, table
from numpy.typing import NDArray

from asl_pinn import models
from asl_pinn.data import AslData, Maps
from asl_pinn.errors import InputError
from asl_pinn.evaluation.metrics import pcc
from asl_pinn.evaluation.prediction import predicted
from asl_pinn.io import bids
from asl_pinn.io.atomic import write_bytes, write_json
from asl_pinn.io.bids.images import load_image
from asl_pinn.io.bids.sidecar import read_json
from asl_pinn.io.bids.timing import volume_times
from asl_pinn.io.bids.volume_types import read_volume_types
from asl_pinn.models.compose import components

INVIVO = Path(__file__).parents[2] / "shared" / "data" / "invivo-multi-delay"

AVERAGE = "average of the repeats"
"""Prediction without a model: what was fitted is itself the prediction."""

STRONG = 0.05
"""Share of the voxels, those of most signal, without which the score is given as well."""

_BIDS_DIR = flags.DEFINE_string("bids_dir", str(INVIVO), "Dataset, of which the first run is used.")
_METHODS = flags.DEFINE_list(
    "methods", ["nlls", "spatial-map", "neural-field"], "Methods, from experiments/cases.py."
)
_MODELS = flags.DEFINE_list("models", ["buxton", "buxton+arterial"], "Kinetic models.")
_RESUME = flags.DEFINE_bool("resume", False, "Keep the rows that the JSON file holds already.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", str(RESULTS), "Where to write halves.md and .json.")

Row = dict[str, Any]


class Half(NamedTuple):
    """Half of the repeats, and what the other half says.

    Attributes
    ----------
    data : AslData
        Means of this half.
    target : ndarray, shape (X, Y, Z, D)
        Means of the other half [unit of delta_m].
    noise : ndarray, shape (D,)
        Variance of the noise of `target` at each delay, the mean over the voxels.
    """

    data: AslData
    target: NDArray[np.floating]
    noise: NDArray[np.floating]


def main(argv: Sequence[str]) -> None:
    """Run what is missing, and write the table."""
    del argv
    if not Path(_BIDS_DIR.value).is_dir():
        raise SystemExit(f"{_BIDS_DIR.value}: no such dataset; name one with --bids_dir")
    run = bids.find_runs(Path(_BIDS_DIR.value))[0]
    halves = read_halves(run)
    output_dir = Path(_OUTPUT_DIR.value)
    record = output_dir / "halves.json"
    rows: list[Row] = read_json(record)["rows"] if _RESUME.value else []
    for row in _runs(halves, {(row["method"], row["model"]) for row in rows}):
        rows.append(row)
        write_json(record, {"about": provenance(), "rows": rows})
    page = _markdown(rows, halves[0].data)
    about = provenance()
    write_json(record, {"about": about, "rows": rows})
    write_bytes(output_dir / "halves.md", f"{page}\n\n{foot(about)}\n".encode())
    print(page)


def read_halves(run: bids.AslRun) -> tuple[Half, Half]:
    """Odd and even repeats of a series of control and label images, or of differences.

    Parameters
    ----------
    run : AslRun
        With at least four repeats of each delay, as many of each.

    Returns
    -------
    tuple of Half
        Each to be fitted, with the other to be predicted.

    Raises
    ------
    InputError
        If the series is encoded, or has too few repeats or different numbers of them.
    """
    data, _ = bids.read_run(run)
    repeats = _repeats(run, data)
    shares = repeats[..., ::2], repeats[..., 1::2]
    return _half(data, *shares), _half(data, *reversed(shares))


def _half(data: AslData, own: NDArray[np.floating], other: NDArray[np.floating]) -> Half:
    count = np.full(own.shape[-2], own.shape[-1], np.float32)
    noise = other[data.valid].var(axis=-1, ddof=1).mean(axis=0) / other.shape[-1]
    half = dataclasses.replace(data, delta_m=own.mean(axis=-1), n_averages=count)
    return Half(half, other.mean(axis=-1), noise)


def _repeats(run: bids.AslRun, data: AslData) -> NDArray[np.float32]:
    """Differences of each delay, shape (X, Y, Z, D, R), in the order of their acquisition."""
    assert run.context is not None  # or the run would not have been read
    values = load_image(run.path, ndim=(4,)).values
    types = read_volume_types(run.context, run.path, values.shape[-1])
    times = volume_times(run.sidecar, "PostLabelingDelay", types, zero=True)
    kinds, protocol, per_delay = np.array(types), data.protocol, []
    # That of pulsed labelling counts from the pulse.
    for time in protocol.t if protocol.labeling == "pulsed" else protocol.pld:
        here = np.isclose(times, time, atol=1e-4)
        controls, labels = (values[..., here & (kinds == kind)] for kind in ("control", "label"))
        per_delay.append(values[..., here & (kinds == "deltam")])
        if controls.shape[-1]:
            per_delay[-1] = controls - labels
    counts = {images.shape[-1] for images in per_delay}
    if len(counts) > 1 or min(counts) < 4:
        raise InputError(f"{run.path}: halves need 4 repeats or more, as many of every delay")
    repeats = np.stack(per_delay, axis=-2)
    np.testing.assert_allclose(
        repeats.mean(axis=-1)[data.valid],
        data.delta_m[data.valid],
        rtol=1e-3,
        atol=1e-4 * np.abs(data.delta_m[data.valid]).max(),
        err_msg="the repeats of the series are not those of its mean",
    )
    return repeats


def _runs(halves: tuple[Half, Half], known: set[tuple[str, str]]) -> Iterator[Row]:
    if (AVERAGE, "") not in known:
        scored = [_explained(half, half.data.delta_m) for half in halves]
        yield {"method": AVERAGE, "model": ""} | _mean(scored)
    for method, name in itertools.product(_METHODS.value, _MODELS.value):
        if (method, name) in known:
            continue
        row: Row = {"method": method, "model": name}
        try:
            fits = [run_method(method, half.data, models.get(name)) for half in halves]
        except InputError as error:
            yield row | {"refused": str(error)}
            continue
        (first, _), (second, _) = fits
        scored = [
            _explained(half, predicted(half.data, maps))
            for half, maps in zip(halves, (first, second), strict=True)
        ]
        row |= {"seconds": round(min(seconds for _, seconds in fits), 2)}
        print(f"{method} {name}: {row['seconds']} s", flush=True)
        yield row | _mean(scored) | {"maps": _repeatability(first, second, halves[0].data.valid)}


def _explained(half: Half, prediction: NDArray[np.floating]) -> Row:
    """Of all voxels, of all but those of most signal, and by delay."""
    where = half.data.valid
    target = half.target[where].astype(np.float64)
    misfit = (prediction[where] - target) ** 2
    signal = target**2
    strength = signal.mean(axis=-1)
    most = strength < np.quantile(strength, 1.0 - STRONG)
    noise = half.noise.astype(np.float64)

    def share(errors: NDArray[np.float64], power: NDArray[np.float64], left: float) -> float:
        return float(1.0 - (errors.mean() - left) / (power.mean() - left))

    return {
        "all": share(misfit, signal, noise.mean()),
        "without_strong": share(misfit[most], signal[most], noise.mean()),
        "by_delay": [share(misfit[:, i], signal[:, i], noise[i]) for i in range(len(noise))],
    }


def _mean(scored: Sequence[Row]) -> Row:
    """Mean of both halves."""
    return {
        name: np.mean([one[name] for one in scored], axis=0).round(4).tolist() for name in scored[0]
    }


def _repeatability(first: Maps, second: Maps, valid: NDArray[np.bool_]) -> Row:
    """Agreement of both halves' maps, of a component's other parameters where both have it."""
    amplitude_of = {
        name: amplitude for amplitude, others in components(first.model).items() for name in others
    }
    rows = {}
    for p in first.model.parameters:
        where = valid & first.told(p.name) & second.told(p.name)
        if p.name in amplitude_of:
            both = amplitude_of[p.name]
            where = where & (first[both] > 0.0) & (second[both] > 0.0)
        one, other = (maps[p.name][where].astype(np.float64) for maps in (first, second))
        if p.shared or len(one) < 2:
            continue
        rows[p.name] = {
            "difference": float(np.median(np.abs(one - other))),
            "pcc": pcc(one, other),
            "voxels": len(one),
        }
    return rows


def _markdown(rows: list[Row], data: AslData) -> str:
    delays = [f"PLD {pld:.2f} s" for pld in data.protocol.pld]
    header = ["method", "model", "all voxels", f"without the strongest {100 * STRONG:g} %", *delays]
    cells = [
        [
            row["method"],
            row["model"],
            *(
                [f"{value:.3f}" for value in (row["all"], row["without_strong"], *row["by_delay"])]
                if "all" in row
                else [row["refused"], *[""] * (1 + len(delays))]
            ),
        ]
        for row in rows
    ]
    return "\n".join(
        [
            "# One half of the repeats predicted from the other",
            "",
            f"Odd repeats fitted and even ones predicted, and the reverse, over "
            f"{data.valid.sum()} voxels; means of both. The share of the noise-free signal that is "
            "explained, in all, without the voxels of most signal, and by delay:",
            "",
            *table(header, cells),
            "",
            "How the maps of both halves agree: median absolute difference, and correlation. Those "
            "of arrival times of a component that both halves found are over the voxels where they "
            "did.",
            "",
            *_repeatability_table(rows),
        ]
    )


def _repeatability_table(rows: list[Row]) -> list[str]:
    cells = []
    for row in rows:
        for name, value in row.get("maps", {}).items():
            p = models.get(row["model"])[name]
            difference = f"{value['difference']:.{p.digits + 1}f}"
            cells.append(
                [row["method"], row["model"], p.heading, difference, f"{value['pcc']:.3f}"]
                + [value["voxels"], row["seconds"]]
            )
    header = ["method", "model", "map", "median absolute difference", "correlation", "voxels"]
    return table([*header, "time of a fit [s]"], cells)


if __name__ == "__main__":
    app.run(main)
