"""Pictures of what the wrong model does to the maps, for the page 'Which model?'.

python experiments/which_model.py [--output_dir=docs]
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from absl import app, flags
from cases import PROTOCOL, run_method
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.data import Maps, Phantom
from asl_pinn.io.atomic import write_bytes
from asl_pinn.simulation.acquire import simulate
from asl_pinn.simulation.phantoms import complete, mni_phantom, select_slices
from asl_pinn.viz.plots import png
from asl_pinn.viz.plots.style import STYLE

TSNR, SEED, METHOD = 5.0, 0, "nlls"
ARTERIAL = 1.0  # aBV [%] above which errors are given for arteries
MULTI_DELAY = Protocol(np.full(6, 1.4), np.arange(1, 7) * 0.25)

_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", str(Path(__file__).parents[1] / "docs"), "Where to write the pictures."
)

Image = NDArray[np.floating]


@dataclasses.dataclass(frozen=True)
class Panel:
    """A map of one slice, or the error of one.

    Attributes
    ----------
    values : ndarray, shape (X, Y)
        NaN where nothing is drawn.
    title : str
        Above it in the first row; that of errors is 'error'.
    note : str
        Below it.
    """

    values: Image
    title: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """Panels that share their colours; None leaves a place empty.

    Attributes
    ----------
    label, unit : str
        Of the map.
    colours : str
        Colour map of matplotlib.
    top, error_top : float
        Where the colours end, those of maps and of errors.
    panels : list of Panel or None
        From left to right.
    """

    label: str
    unit: str
    colours: str
    top: float
    error_top: float
    panels: list[Panel | None]


def main(argv: Sequence[str]) -> None:
    """Simulate, fit, and draw."""
    del argv
    folder = Path(_OUTPUT_DIR.value)
    figures = {"arteries": _arteries, "dispersion": _dispersion, "partial_volume": _partial_volume}
    for name, make in figures.items():
        path = folder / f"which_model_{name}.png"
        write_bytes(path, png(make()))
        print(path)


def _arteries() -> Figure:
    brain, maps = _fits("20", "buxton+arterial", ("buxton", "buxton+arterial"), MULTI_DELAY)
    abv, found = (100.0 * values for values in (brain["abv"], maps["buxton+arterial"]["abv"]))
    where = abv > ARTERIAL
    blood: list[Panel | None] = [
        Panel(_inside(brain, abv)),
        None,
        None,
        Panel(_inside(brain, found)),
        Panel(_inside(brain, found - abv), "error"),
    ]
    return _figure(
        [
            _compared(brain, maps, "cbf", 100.0, 50.0, where, "in arteries"),
            _compared(brain, maps, "att", 2.0, 0.5, where, "in arteries"),
            Row("aBV", "%", "magma", 3.0, 1.0, blood),
        ]
    )


def _dispersion() -> Figure:
    brain, maps = _fits("central", "buxton+dispersion", ("buxton", "buxton+dispersion"))
    return _figure(
        [
            _compared(brain, maps, "cbf", 100.0, 25.0, brain.mask, "median"),
            _compared(brain, maps, "att", 2.5, 0.5, brain.mask, "median"),
        ]
    )


def _partial_volume() -> Figure:
    brain, maps = _fits("central", "partial-volume", ("buxton", "partial-volume"))
    rows = []
    for name, words, top in (("cbf_gm", "grey", 100.0), ("cbf_wm", "white", 50.0)):
        told = maps["partial-volume"].told(name) & brain.mask
        panels: list[Panel | None] = [Panel(_inside(brain, brain[name], told), "truth")]
        for model, key in (("buxton", "cbf"), ("partial-volume", name)):
            found = maps[model][key]
            panels += _with_error(brain, model, found, found - brain[name], told, "median", 1, told)
        rows.append(Row(f"CBF, {words} matter", "mL/100g/min", "inferno", top, 0.4 * top, panels))
    return _figure(rows)


def _fits(
    which_slice: str, simulated: str, fitted: Sequence[str], protocol: Protocol = PROTOCOL
) -> tuple[Phantom, dict[str, Maps]]:
    """A slice of a brain that has what a model describes, and fits of several models to it."""
    model = models.get(simulated)
    brain = select_slices(complete(mni_phantom(), model), which_slice)
    data = simulate(brain, protocol, tsnr=TSNR, seed=SEED, model=model)
    return brain, {name: run_method(METHOD, data, models.get(name))[0] for name in fitted}


def _compared(
    brain: Phantom,
    maps: dict[str, Maps],
    name: str,
    top: float,
    error_top: float,
    where: NDArray[np.bool_],
    words: str,
) -> Row:
    """Truth, then each model's map and its error, with the median error somewhere below."""
    p = next(iter(maps.values())).model[name]
    panels: list[Panel | None] = [Panel(_inside(brain, brain[name]), "truth")]
    for model, fitted in maps.items():
        found = fitted[name]
        panels += _with_error(
            brain, model, found, found - brain[name], where, words, p.digits, brain.mask
        )
    return Row(p.symbol, p.unit, p.colours, top, error_top, panels)


def _with_error(
    brain: Phantom,
    title: str,
    found: Image,
    error: Image,
    where: NDArray[np.bool_],
    words: str,
    digits: int,
    shown: NDArray[np.bool_],
) -> list[Panel]:
    rounded = np.round(np.median(error[where]), digits) + 0.0  # not -0
    median = f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return [
        Panel(_inside(brain, found, shown), title),
        Panel(_inside(brain, error, shown), "error", f"{words} {median}"),
    ]


def _inside(brain: Phantom, volume: Image, shown: NDArray[np.bool_] | None = None) -> Image:
    """The slice without the margins about the brain."""
    x, y, _ = np.nonzero(brain.mask)
    values = np.where(brain.mask if shown is None else shown, volume, np.nan)
    return values[x.min() : x.max() + 1, y.min() : y.max() + 1, 0]


def _figure(rows: list[Row]) -> Figure:
    n_columns = len(rows[0].panels)
    with matplotlib.rc_context({**STYLE, "figure.dpi": 120.0}):
        figure = Figure(figsize=(1.4 * n_columns + 1.6, 1.9 * len(rows) + 0.1))
        figure.set_layout_engine("constrained", w_pad=0.03)
        widths = [1.0] * n_columns + [0.07, 0.07]
        axes = figure.subplots(len(rows), n_columns + 2, squeeze=False, width_ratios=widths)
        for number, (line, row) in enumerate(zip(axes, rows, strict=True)):
            drawn = {}
            for ax, panel in zip(line, row.panels, strict=False):
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                if panel is not None:
                    drawn[panel.title == "error"] = _draw(ax, row, panel, number == 0)
            line[0].set_ylabel(f"{row.label} [{row.unit}]")
            for ax, error, extend in zip(line[-2:], (False, True), ("max", "both"), strict=True):
                figure.colorbar(drawn[error], cax=ax, extend=extend)
                ax.set_title("error" if error else "map", fontsize=7.0)
        return figure


def _draw(ax: Axes, row: Row, panel: Panel, first: bool) -> AxesImage:
    error = panel.title == "error"
    low, high = (-row.error_top, row.error_top) if error else (0.0, row.top)
    ax.set_title(panel.title if first else "")
    ax.set_xlabel(panel.note)
    return ax.imshow(
        np.rot90(panel.values),
        cmap="RdBu_r" if error else row.colours,
        vmin=low,
        vmax=high,
        interpolation="none",
    )


if __name__ == "__main__":
    app.run(main)
