"""Which protocol: candidates compared, optima found, checked and written."""

import csv
import dataclasses
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.errors import InputError
from asl_pinn.io.atomic import json_bytes, write_files
from asl_pinn.models.base import KineticModel
from asl_pinn.models.choice import check_labeling
from asl_pinn.optimal_design import noise
from asl_pinn.optimal_design.candidates import PLDS, candidates, optimised
from asl_pinn.optimal_design.expectation import Goal, Kind
from asl_pinn.optimal_design.monte_carlo import Check, check_bound
from asl_pinn.optimal_design.population import make_population
from asl_pinn.optimal_design.precision import Precision, expected_precision
from asl_pinn.optimal_design.sensitivity import Sensitivity, sensitivities
from asl_pinn.optimal_design.space import Constraints
from asl_pinn.optimal_design.timing import sidecar, timing_table, volume_types
from asl_pinn.workflow.noise import image_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, str | int | float]

_CHOSEN = ("cbf", "att", "abv")  # to be told well by an optimised schedule, unless others are


@dataclasses.dataclass(frozen=True, repr=False)
class Design:
    """Protocols, and what to expect of them.

    Attributes
    ----------
    goal : Goal
        Model, population, noise and criterion.
    limits : Constraints
        On the times.
    scans : tuple of Precision
        What is expected of each schedule, the optimised ones last.
    checks : tuple of Check
        Spread of simulated fits beside the bounds; empty where none were asked for.
    sensitivities : tuple of Sensitivity
        Bias from wrong constants and from what the model leaves out; likewise.
    notes : tuple of str
        What a user should know.
    """

    goal: Goal
    limits: Constraints
    scans: tuple[Precision, ...]
    checks: tuple[Check, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Precision:
        """What is expected of the schedule of a name; KeyError for another."""
        found = {each.scan.name: each for each in self.scans}
        return found[name]

    def __repr__(self) -> str:
        """The table, for notebooks and terminals."""
        return self.text()

    def rows(self) -> list[Row]:
        """The table of precision: a row for each schedule, tissue and parameter.

        Returns
        -------
        list of dict
            Values by column.
        """
        found: list[Row] = []
        for each in self.scans:
            for expected in each.expected:
                p, tissue = expected.parameter, self.goal.population.labels.index(expected.tissue)
                shortest, longest = each.served[tissue] or ("n/a", "n/a")
                found.append(
                    {
                        "schedule": each.scan.name,
                        "averages": each.averages,
                        "seconds": round(each.averages * each.scan.cycle_time, 3),
                        "tissue": expected.tissue,
                        "parameter": p.name,
                        "unit": p.unit,
                        "mean": expected.mean,
                        "sd_before": expected.sd_before,
                        "sd": expected.sd,
                        "sd_percent": expected.percent,
                        "bound_median": expected.median_sd,
                        "bound_90": expected.worst_sd,
                        "bias_of_held": expected.bias,
                        "shortest_att": shortest,
                        "longest_att": longest,
                    }
                )
        return found

    def text(self) -> str:
        """The table as lines of text.

        Returns
        -------
        str
            A line for each schedule and tissue: averages, seconds, the SD of each parameter in its
            unit and in per cent, transit times that are served.
        """
        lines = [["schedule", "averages", "seconds", "tissue", *self._headings, "ATT served [s]"]]
        lines += self.cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in lines
        )

    @property
    def _headings(self) -> list[str]:
        return [f"SD of {p.heading}" for p in self.goal.model.parameters]

    def cells(self) -> list[list[str]]:
        """Cells of that table, without its header.

        Returns
        -------
        list of list of str
        """
        lines = []
        for each in self.scans:
            for k, tissue in enumerate(self.goal.population.labels):
                own = {e.parameter.name: e for e in each.expected if e.tissue == tissue}
                sds = [_sd_cell(own.get(p.name), p.digits) for p in self.goal.model.parameters]
                served = each.served[k]
                lines.append(
                    [
                        each.scan.name,
                        str(each.averages),
                        f"{each.averages * each.scan.cycle_time:.0f}",
                        tissue,
                        *sds,
                        "none" if served is None else f"{served[0]:.2f} to {served[1]:.2f}",
                    ]
                )
        return lines

    def plot(self) -> "Figure":
        """Draw the error of each parameter against ATT.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from asl_pinn.viz.plots.design import design_figure  # pictures are no part of the design

        return design_figure(self.scans, self.goal, self.checks)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write tables, page, picture, and the timing of every schedule.

        Parameters
        ----------
        folder : str or path
            Made where needed.

        Returns
        -------
        list of Path
            design.tsv, design_curves.tsv, design.png, design.html; design_check.tsv and
            design_sensitivity.tsv where there are any; and for each schedule
            `<name>_timing.tsv`, `<name>_asl.json` and `<name>_aslcontext.tsv`.

        Raises
        ------
        InputError
            If the folder cannot be written.
        """
        from asl_pinn.viz.plots import png
        from asl_pinn.viz.reports.design import design_page

        picture, output = png(self.plot()), Path(folder)
        contents = {
            output / "design.tsv": _tsv(self.rows()),
            output / "design_curves.tsv": _tsv(self._curves()),
            output / "design.png": picture,
        }
        if self.checks:
            contents[output / "design_check.tsv"] = _tsv(map(_check_row, self.checks))
        if self.sensitivities:
            contents[output / "design_sensitivity.tsv"] = _tsv(
                map(_sensitivity_row, self.sensitivities)
            )
        for each in self.scans:
            stem = re.sub(r"[^A-Za-z0-9]+", "-", each.scan.name)
            types = [{"volume_type": kind} for kind in volume_types(each.scan, each.averages)]
            contents |= {
                output / f"{stem}_timing.tsv": _tsv(timing_table(each.scan)),
                output / f"{stem}_asl.json": json_bytes(sidecar(each.scan, each.averages)),
                output / f"{stem}_aslcontext.tsv": _tsv(types),
            }
        contents[output / "design.html"] = design_page(self, picture).encode()
        write_files(contents)
        return list(contents)

    def _curves(self) -> list[Row]:
        return [
            {
                "schedule": each.scan.name,
                "tissue": tissue,
                "parameter": p.name,
                "att": round(float(att), 6),
                "sd": float(sd),
            }
            for each in self.scans
            for row, p in enumerate(each.model.parameters)
            for k, tissue in enumerate(self.goal.population.labels)
            for att, sd in zip(each.att, each.curves[row, k], strict=True)
        ]


def design(
    *,
    scan_time: float = 300.0,
    readout: float = 0.5,
    matrix_size: int | Sequence[int] = 8,
    model: str | KineticModel = models.DEFAULT_MODEL,
    noise_sd: float | None = None,
    tsnr: float | None = None,
    like: str | os.PathLike[str] | None = None,
    tissues: Sequence[str] = ("gm", "wm"),
    priors: Mapping[str, tuple[float | None, float | None]] | None = None,
    label_total: float = 4.0,
    label_duration: float = 1.8,
    plds: Sequence[float] = PLDS,
    min_duration: float = 0.1,
    min_delay: float = 0.1,
    max_delay: float = 3.0,
    raster: float = 0.01,
    optimise: bool = False,
    parameters: Sequence[str] | None = None,
    criterion: Kind = "A",
    restarts: int = 8,
    check: int = 1000,
    sensitivity: bool = False,
    seed: int = 0,
) -> Design:
    """Compare protocols, and find better ones, for a scan of a stated time.

    Parameters
    ----------
    scan_time : float
        Of the ASL series, without that of M0 [s].
    readout : float
        From the end of the delay to the next labelling [s].
    matrix_size : int or sequence of int
        Images of a cycle, of the time-encoded schedules.
    model : str or KineticModel
        Of the signal, of continuous labelling; what is fitted.
    noise_sd : float, optional
        Standard deviation of one image in per cent of M0, both in the unit of the images.
    tsnr : float, optional
        In place of it: of a difference of one cycle of the T1-adjusted schedule, as `simulate` has
        it.
    like : str or path, optional
        In place of both: a BIDS dataset whose noise is measured. Without any of the three, images
        have a noise of 0.14 % of M0.
    tissues : sequence of str
        'gm', 'wm'.
    priors : mapping of str to (float or None, float or None), optional
        Mean and standard deviation by parameter, in place of those of every tissue.
    label_total : float
        Labelling of the time-encoded schedules before a readout, and the longest of an optimised
        one [s].
    label_duration : float
        Of sequential and single-delay labelling, and of the first bolus of free-lunch; the longest
        of the optimised sequential one [s].
    plds : sequence of float
        Delays of the sequential schedule [s]; the optimised one has as many.
    min_duration : float
        Shortest sub-bolus [s].
    min_delay, max_delay : float
        From the end of labelling to readout [s].
    raster : float
        Times are multiples of it [s].
    optimise : bool
        Whether to seek the best schedules, too.
    parameters : sequence of str, optional
        That an optimised schedule is to tell well; CBF, ATT and aBV, as far as the model has them,
        unless given.
    criterion : {'A', 'D'}
        Sum of their variances, each over that in the population, or determinant of their
        covariance.
    restarts : int
        Random schedules to begin the search from.
    check : int
        Draws of noise by which the bounds are checked at each transit time; 0 for no check.
    sensitivity : bool
        Whether to work out the bias from wrong constants, arteries and dispersion.
    seed : int
        Of starts and noise.

    Returns
    -------
    Design

    Raises
    ------
    InputError
        If a time, size or name is out of range, times do not fit one another, or more than one
        noise is stated.

    Examples
    --------
    >>> import asl_pinn as asl
    >>> found = asl.design(scan_time=120, matrix_size=4, check=0)
    >>> [each.scan.name for each in found.scans]
    ['equal 4', 'T1-adjusted 4', 'free lunch 4', 'sequential 5', 'single delay']
    """
    kinetic = models.get(model) if isinstance(model, str) else model
    limits = Constraints(
        scan_time, readout, label_total, min_duration, min_delay, max_delay, raster
    )
    sizes = [matrix_size] if isinstance(matrix_size, int) else list(matrix_size)
    _require_fittable(kinetic)
    population = make_population(kinetic, tissues, priors=priors)
    if parameters is None:
        parameters = [name for name in _CHOSEN if name in kinetic.names]
    if not limits.min_duration <= label_duration <= limits.label_total:
        raise InputError(
            f"label_duration must be within min_duration and label_total, {min_duration:g} to "
            f"{label_total:g} s, it is {label_duration:g}"
        )
    image_sd, said = _noise(noise_sd, tsnr, like, sizes, limits)
    goal = Goal(kinetic, population, image_sd, tuple(parameters), criterion)
    if check < 0 or check == 1:
        raise InputError(f"check must be 2 draws or more, or 0 for none, not {check}")
    scans, notes = candidates(
        goal, limits, matrix_sizes=sizes, label_duration=label_duration, plds=plds
    )
    if optimise:
        scans += optimised(
            goal,
            limits,
            matrix_sizes=sizes,
            label_duration=label_duration,
            n_delays=len(plds),
            restarts=restarts,
            seed=seed,
        )
    checks: list[Check] = []
    biases: list[Sensitivity] = []
    for scan in scans:
        if check:
            checks += check_bound(scan, goal, scan_time, draws=check, seed=seed)
        if sensitivity:
            biases += sensitivities(scan, goal, scan_time, seed=seed)
    found = tuple(expected_precision(scan, goal, scan_time) for scan in scans)
    return Design(goal, limits, found, tuple(checks), tuple(biases), (said, *notes))


def _noise(
    noise_sd: float | None,
    tsnr: float | None,
    like: str | os.PathLike[str] | None,
    sizes: Sequence[int],
    limits: Constraints,
) -> tuple[float, str]:
    """Noise of an image over M0, and a line that says where it is from."""
    stated = [name for name, given in _given(noise_sd, tsnr, like) if given]
    if len(stated) > 1:
        raise InputError(f"the noise is stated by {' and by '.join(stated)}; give one of them")
    if tsnr is not None:
        found, source = noise.from_tsnr(tsnr, sizes[0], limits), f"tSNR {tsnr:g}"
    elif like is not None:
        found, source = image_noise(like), f"measured from {os.fspath(like)}"
    else:
        percent = noise.DEFAULT_NOISE if noise_sd is None else noise_sd
        found, source = noise.from_percent(percent), "as stated" if noise_sd else "by default"
    return found, f"noise of one image: {100.0 * found:.3g} % of M0 ({source})"


def _given(noise_sd: Any, tsnr: Any, like: Any) -> Iterable[tuple[str, bool]]:
    given = {"noise_sd": noise_sd, "tsnr": tsnr, "like": like}
    return ((name, value is not None) for name, value in given.items())


def _require_fittable(model: KineticModel) -> None:
    check_labeling(model, Protocol(np.array([1.8]), np.array([1.8])))
    if model.needs_fractions:
        raise InputError(
            f"model {model.name} tells tissues apart by the voxels around, and there is no bound "
            "of a single voxel; use --model=buxton"
        )


def _sd_cell(expected: Any, digits: int) -> str:
    if expected is None:
        return "held"
    added = f", bias {expected.bias:.{digits}f}" if expected.bias > 0.0 else ""
    return f"{expected.sd:.{digits}f} ({expected.percent:.1f} %){added}"


def _check_row(check: Check) -> Row:
    return {
        "schedule": check.scan,
        "tissue": check.tissue,
        "att": check.att,
        "parameter": check.parameter.name,
        "unit": check.parameter.unit,
        "bound": check.bound,
        "spread": check.spread,
        "ratio": check.ratio,
        "bias": check.bias,
        "verdict": check.verdict,
    }


def _sensitivity_row(found: Sensitivity) -> Row:
    return {
        "schedule": found.scan,
        "tissue": found.tissue,
        "cause": found.cause,
        "parameter": found.parameter.name,
        "unit": found.parameter.unit,
        "mean": found.mean,
        "first_order": found.first_order,
        "monte_carlo": found.monte_carlo,
        "monte_carlo_percent": 100.0 * found.monte_carlo / found.mean,
    }


def _tsv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A table with a header, numbers to six digits."""
    listed = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, listed[0].keys(), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for row in listed:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue().encode()
