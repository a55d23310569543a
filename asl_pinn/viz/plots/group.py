"""Pictures of numbers of many runs."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.io.bids.tables import MISSING, as_number
from asl_pinn.viz.plots.style import COLOURS, STYLE, Picture

_LEAST_RUNS = 3
_IN_A_ROW = 4
_MOST_LEVELS = 6
_MOST_COVARIATES = 6
_SPREAD = 0.3  # of points beside one another, over the distance of two columns


def distribution_figure(
    rows: Sequence[Mapping[str, str]], remarked: NDArray[np.bool_], columns: Mapping[str, str]
) -> Figure | None:
    """Distribution of each column over the runs.

    Parameters
    ----------
    rows : sequence of mapping of str to str
        Cells by column, a row a run.
    remarked : ndarray of bool, shape (N,)
        Runs that are drawn hollow.
    columns : mapping of str to str
        Columns to draw, and their labels.

    Returns
    -------
    matplotlib.figure.Figure or None
        A panel for each column that three runs at least have a number in, with the runs as points
        in their order, their median and quartiles; None where there is no such column.
    """
    values = {column: _numbers(rows, column) for column in columns}
    drawn = [c for c in columns if np.isfinite(values[c]).sum() >= _LEAST_RUNS]
    if not drawn:
        return None
    n_columns = min(len(drawn), _IN_A_ROW)
    n_rows = -(-len(drawn) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(8.5, 2.4 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for ax, column in zip(axes, drawn, strict=False):
            y = values[column]
            first, median, third = np.nanpercentile(y, [25.0, 50.0, 75.0])
            ax.axhspan(first, third, color="0.9")
            ax.axhline(median, color="0.5", linewidth=1.0)
            x = np.arange(1, len(y) + 1)
            ax.plot(x[~remarked], y[~remarked], "o", color=COLOURS[0], markersize=4.0)
            ax.plot(x[remarked], y[remarked], "o", color=COLOURS[0], fillstyle="none")
            ax.set_title(columns[column], wrap=True)
            ax.set_xlabel("run")
            ax.set_xlim(0.0, len(y) + 1.0)
            ax.xaxis.get_major_locator().set_params(integer=True)
        for ax in axes[len(drawn) :]:
            ax.axis("off")
        return figure


def covariate_figure(
    rows: Sequence[Mapping[str, str]],
    participants: Mapping[str, Mapping[str, str]],
    columns: Mapping[str, str],
) -> Figure | None:
    """Numbers of the runs by what is known of their participants.

    Parameters
    ----------
    rows : sequence of mapping of str to str
        Cells by column, a row a run, 'participant_id' among them.
    participants : mapping of str to mapping of str to str
        Cells by 'sub-01' and column.
    columns : mapping of str to str
        Columns of the runs to draw, and their labels.

    Returns
    -------
    matplotlib.figure.Figure or None
        A row for each column, a panel for each of up to six columns of the participants: points
        against numbers, or by category with medians. Columns of a single value, or of more than
        six categories, are left out. None where nothing is left.
    """
    ids = [row.get("participant_id", MISSING) for row in rows]
    known = [participants.get(each, {}) for each in ids]
    values = {column: _numbers(rows, column) for column in columns}
    drawn = [c for c in columns if np.isfinite(values[c]).sum() >= _LEAST_RUNS]
    names = dict.fromkeys(name for row in known for name in row)
    covariates = [name for name in names if _is_telling(known, name)][:_MOST_COVARIATES]
    if not drawn or not covariates:
        return None
    width = min(8.5, 1.2 + 2.6 * len(covariates))
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(width, 2.4 * len(drawn) + 0.4), layout="constrained")
        axes = figure.subplots(len(drawn), len(covariates), squeeze=False, sharey="row")
        for line, column in zip(axes, drawn, strict=True):
            line[0].set_ylabel(columns[column])
            for ax, name in zip(line, covariates, strict=True):
                _draw(ax, [row.get(name, MISSING) for row in known], values[column])
        for ax, name in zip(axes[-1], covariates, strict=True):
            ax.set_xlabel(name)
        return figure


def _numbers(rows: Sequence[Mapping[str, str]], column: str) -> FloatArray:
    """A column as numbers, NaN where there is none, shape (N,)."""
    return np.array([as_number(row.get(column)) for row in rows], np.float64)


def _is_telling(known: Sequence[Mapping[str, str]], name: str) -> bool:
    """Whether a column divides the participants, by numbers or into a few categories."""
    cells = {row[name] for row in known if row.get(name, MISSING) != MISSING}
    numeric = all(as_number(cell) is not None for cell in cells)
    return len(cells) > 1 and (numeric or len(cells) <= _MOST_LEVELS)


def _draw(ax: Axes, cells: Sequence[str], y: FloatArray) -> None:
    levels = sorted({cell for cell in cells if cell != MISSING})
    numbers = [as_number(cell) for cell in cells]
    if len(levels) > 2 and all(as_number(level) is not None for level in levels):
        x = np.array(numbers, np.float64)
        ax.plot(x, y, "o", color=COLOURS[0], markersize=4.0)
        return
    for place, level in enumerate(levels):
        chosen = y[np.array([cell == level for cell in cells], bool)]
        chosen = chosen[np.isfinite(chosen)]
        if not chosen.size:
            continue
        # beside one another by order, so that none hides another and every page is the same
        aside = np.linspace(-_SPREAD, _SPREAD, chosen.size) if chosen.size > 1 else np.zeros(1)
        ax.plot(place + aside, chosen, "o", color=COLOURS[0], markersize=4.0)
        median = float(np.median(chosen))
        ax.hlines(median, place - _SPREAD, place + _SPREAD, color="0.3", linewidth=1.5)
    ax.set_xticks(range(len(levels)), levels)
    ax.set_xlim(-0.6, len(levels) - 0.4)
