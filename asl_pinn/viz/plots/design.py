"""Pictures of protocols: their sub-boluses, and their errors against transit time."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from asl_pinn.models.base import Parameter
from asl_pinn.optimal_design.expectation import Goal
from asl_pinn.optimal_design.monte_carlo import Check
from asl_pinn.optimal_design.precision import Precision
from asl_pinn.optimal_design.scan import Scan
from asl_pinn.viz.plots.style import STYLE, Picture

_LINES = ("-", "--", "-.", ":")
_HEIGHT = 2.6  # of a row [inch]
_LABELLING, _WAITING, _READOUT = "0.35", "0.85", "#E69F00"
_ABOVE = 1.6  # where axes end, over the SD in the population


def design_figure(scans: Sequence[Precision], goal: Goal, checks: Sequence[Check] = ()) -> Figure:
    """Error of each parameter against ATT, a column for each tissue; schedules below.

    Parameters
    ----------
    scans : sequence of Precision
        Schedules and what is expected of them.
    goal : Goal
        Model and population.
    checks : sequence of Check
        Spread of simulated fits, drawn as points.

    Returns
    -------
    matplotlib.figure.Figure
        A grey line is the standard deviation in the population, what is known before a scan; the
        grey area its transit times, mean ± 2 SD. Below, the labelling of every schedule before its
        readout.
    """
    parameters, population = goal.model.parameters, goal.population
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    styles = {
        each.scan.name: {"color": colours[k % 10], "linestyle": _LINES[k // 10 % len(_LINES)]}
        for k, each in enumerate(scans)
    }
    n_rows, n_columns = len(parameters), len(population.tissues)
    below = 0.32 * len(scans) + 0.8
    with matplotlib.rc_context(STYLE):
        size = (4.6 * max(n_columns, 2), _HEIGHT * n_rows + below)
        figure = Picture(figsize=size, layout="constrained")
        grid = figure.add_gridspec(
            n_rows + 1, n_columns, height_ratios=[*[_HEIGHT] * n_rows, below]
        )
        handles: dict[str, Line2D] = {}
        for row, p in enumerate(parameters):
            for k, tissue in enumerate(population.labels):
                ax = figure.add_subplot(grid[row, k])
                drawn = _draw_errors(ax, p, k, scans, checks, styles, tissue)
                handles |= {str(line.get_label()): line for line in drawn}
                _draw_population(ax, goal, row, k)
                ax.set_title(tissue if row == 0 else "")
                ax.set_ylabel(f"SD of {p.heading}" if k == 0 else "")
        schedule = figure.add_subplot(grid[-1, :])
        _draw_schedules(schedule, [each.scan for each in scans])
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside upper center",
            ncols=min(len(handles), 4),
            frameon=False,
        )
        return figure


def _draw_errors(
    ax: Axes,
    p: Parameter,
    tissue: int,
    scans: Sequence[Precision],
    checks: Sequence[Check],
    styles: dict[str, dict[str, Any]],
    label: str,
) -> list[Line2D]:
    lines: list[Line2D] = []
    for each in scans:
        if p.name not in each.model.names:
            continue
        style, name = styles[each.scan.name], each.scan.name
        curve = each.curves[each.model.names.index(p.name), tissue]
        lines += ax.plot(each.att, curve, label=name, linewidth=1.3, **style)
        own = [
            check
            for check in checks
            if (check.scan, check.tissue, check.parameter.name) == (name, label, p.name)
        ]
        ax.plot([c.att for c in own], [c.spread for c in own], "o", color=style["color"], ms=3.5)
    ax.set_xlabel("ATT [s]")
    return lines


def _draw_population(ax: Axes, goal: Goal, row: int, tissue: int) -> None:
    population = goal.population
    sd = float(population.sd[row, tissue])
    ax.axhline(sd, color="0.5", linewidth=0.8)
    ax.set_ylim(0.0, _ABOVE * sd)
    if "att" in goal.model.names:
        att = goal.model.names.index("att")
        centre, width = population.mean[att, tissue], 2.0 * population.sd[att, tissue]
        ax.axvspan(max(centre - width, 0.0), centre + width, color="0.93", zorder=0)
    ax.set_xlim(0.0, 3.5)


def _draw_schedules(ax: Axes, scans: Sequence[Scan]) -> None:
    """Bars of labelling and waiting, the readout at 0."""
    for place, scan in enumerate(scans):
        protocol = scan.protocol
        begins, durations = -protocol.t, protocol.label_duration
        if scan.matrix_size is None:  # delays one above the other in a bar, as each has its own
            height = 0.8 / len(begins)
            offsets = place - 0.4 + height * np.arange(len(begins))
        else:
            height, offsets = 0.8, np.full(len(begins), place - 0.4)
        for offset, begin, duration, pld in zip(
            offsets, begins, durations, protocol.pld, strict=True
        ):
            bar = (float(offset), height)
            edge: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.5}
            ax.broken_barh([(float(begin), float(duration))], bar, facecolor=_LABELLING, **edge)
            if scan.matrix_size is None or pld == protocol.pld.min():
                ax.broken_barh([(-float(pld), float(pld))], bar, facecolor=_WAITING)
            ax.broken_barh([(0.0, scan.readout)], bar, facecolor=_READOUT)
    ax.set_yticks(range(len(scans)), [scan.name for scan in scans])
    ax.invert_yaxis()
    ax.set_xlabel("time [s]: labelling dark, delay light, readout from 0")
