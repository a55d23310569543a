"""The page about a design: which schedule, what to expect of it, and how far to trust that."""

from collections.abc import Sequence
from typing import Any

from asl_pinn.optimal_design.monte_carlo import AGREEMENT, Check
from asl_pinn.optimal_design.precision import Precision
from asl_pinn.optimal_design.sensitivity import Sensitivity
from asl_pinn.viz.reports.html import Table, render


def design_page(design: Any, picture: bytes) -> str:
    """Page of a design.

    Parameters
    ----------
    design : Design
        From `asl_pinn.design`.
    picture : bytes
        Its PNG file.

    Returns
    -------
    str
        An HTML5 page that needs nothing but itself.
    """
    goal, limits = design.goal, design.limits
    headings = [f"SD of {p.heading}" for p in goal.model.parameters]
    header = ["schedule", "averages", "seconds", "tissue", *headings, "ATT served [s]"]
    return render(
        "design.html",
        title="Design",
        method=f"{limits.scan_time:g} s, model {goal.model.name}",
        notes=design.notes,
        precision=Table(header, design.cells(), 4),
        picture=picture,
        population=_population_table(goal),
        timing=Table(["schedule", "durations [s]", "delays [s]"], _timing_rows(design.scans), 3),
        check=_check_table(design.checks) if design.checks else None,
        verdict=_verdict(design.checks),
        sensitivity=_sensitivity_table(design.sensitivities) if design.sensitivities else None,
        agreement=f"{100.0 * AGREEMENT:.0f} %",
    )


def _population_table(goal: Any) -> Table:
    population = goal.population
    rows = [
        [
            label,
            p.heading,
            f"{population.mean[row, k]:.{p.digits}f}",
            f"{population.sd[row, k]:.{p.digits}f}",
        ]
        for k, label in enumerate(population.labels)
        for row, p in enumerate(goal.model.parameters)
    ]
    return Table(["tissue", "parameter", "mean", "SD"], rows)


def _timing_rows(scans: Sequence[Precision]) -> list[list[str]]:
    def listed(times: Any) -> str:
        return ", ".join(f"{each:.4g}" for each in times)

    return [
        [
            each.scan.name,
            listed(each.scan.protocol.label_duration),
            listed(each.scan.protocol.pld),
        ]
        for each in scans
    ]


def _check_table(checks: Sequence[Check]) -> Table:
    rows = [
        [
            check.scan,
            check.tissue,
            check.parameter.heading,
            f"{check.att:.2f}",
            f"{check.bound:.{check.parameter.digits + 1}f}",
            f"{check.spread:.{check.parameter.digits + 1}f}",
            f"{check.ratio:.2f}",
            f"{check.bias:+.{check.parameter.digits + 1}f}",
            check.verdict,
        ]
        for check in checks
    ]
    header = ["schedule", "tissue", "parameter", "ATT [s]", "bound", "spread", "ratio", "bias"]
    return Table([*header, "verdict"], rows, 3)


def _verdict(checks: Sequence[Check]) -> str:
    counted = [check for check in checks if check.verdict == "bound is optimistic"]
    if not counted:
        return f"At none of {len(checks)} points is the bound optimistic."
    worst = max(counted, key=lambda check: check.ratio)
    return (
        f"At {len(counted)} of {len(checks)} points the bound is optimistic, at worst by a factor "
        f"of {worst.ratio:.2f}: {worst.parameter.symbol} at an ATT of {worst.att:.2f} s in "
        f"{worst.tissue} with {worst.scan}. Curves have kinks where an edge of a bolus passes a "
        "readout, and parameters have bounds; there the spread of the fits is what to expect."
    )


def _sensitivity_table(found: Sequence[Sensitivity]) -> Table:
    rows = [
        [
            each.scan,
            each.cause,
            each.tissue,
            each.parameter.heading,
            f"{each.first_order:+.{each.parameter.digits + 1}f}",
            f"{each.monte_carlo:+.{each.parameter.digits + 1}f}",
            f"{100.0 * each.monte_carlo / each.mean:+.1f} %",
        ]
        for each in found
    ]
    header = ["schedule", "cause", "tissue", "parameter", "first order", "Monte Carlo", "of mean"]
    return Table(header, rows, 4)
