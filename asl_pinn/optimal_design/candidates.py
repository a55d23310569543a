"""The schedules that people know, to choose among."""

from collections.abc import Sequence

import numpy as np

from asl_pinn.acquisition.encoding import encoding_matrix
from asl_pinn.acquisition.protocol import Schedule, label_durations
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.optimal_design.expectation import Goal
from asl_pinn.optimal_design.optimise import optimise
from asl_pinn.optimal_design.scan import Scan, paired_scan, time_encoded_scan
from asl_pinn.optimal_design.space import (
    Constraints,
    free_block_space,
    sequential_space,
    time_encoded_space,
)

CONSENSUS_PLD = 1.8
"""Delay of a single-delay protocol for healthy adults [s] (Alsop et al., Magn Reson Med
2015;73:102-116)."""

PLDS = (0.2, 0.7, 1.2, 1.7, 2.2)
"""Delays of the sequential protocol [s], as in the Human Connectome Project's studies of the life
span (Juttukonda et al., Neuroimage 2021;230:117807)."""

_NAMED: dict[str, Schedule] = {"equal": "equal", "T1-adjusted": "t1_adjusted"}


def candidates(
    goal: Goal,
    limits: Constraints,
    *,
    matrix_sizes: Sequence[int] = (8,),
    label_duration: float = 1.8,
    plds: Sequence[float] = PLDS,
) -> tuple[list[Scan], list[str]]:
    """Known schedules: time-encoded of each size, sequential, and the single delay.

    Parameters
    ----------
    goal : Goal
        By which the free block of the free-lunch schedules is chosen.
    limits : Constraints
        On the times.
    matrix_sizes : sequence of int
        Images of a cycle, of the time-encoded schedules.
    label_duration : float
        Of sequential and single-delay labelling, and of the first bolus of free-lunch [s].
    plds : sequence of float
        Delays of the sequential protocol [s].

    Returns
    -------
    scans : list of Scan
        Equal, T1-adjusted and free-lunch for each size; sequential; single.
    notes : list of str
        A line about each that is left out, as its sub-boluses would be too short.

    Raises
    ------
    InputError
        If a time is not one of an acquisition, or there is no matrix of a size.
    """
    if not matrix_sizes:
        raise InputError("no matrix size is given; choose 4, 8, 12, ...")
    readout, final = limits.readout, limits.min_delay
    found: list[Scan] = []
    notes: list[str] = []
    for size in dict.fromkeys(matrix_sizes):
        n_delays = encoding_matrix(size).shape[1]
        for title, schedule in _NAMED.items():
            name = f"{title} {size}"
            durations = on_raster(label_durations(schedule, n_delays, limits.label_total), limits)
            if durations.min() < limits.min_duration - 1e-9:
                notes.append(_left_out(name, float(durations.min()), limits))
                continue
            found.append(time_encoded_scan(name, durations, final, readout))
        rest = (limits.label_total - label_duration) / (n_delays - 1)
        if rest < limits.min_duration - 1e-9:
            notes.append(_left_out(f"free lunch {size}", rest, limits))
            continue
        space = free_block_space(size, label_duration, limits)
        found.append(optimise(space, goal, limits, restarts=0).scan)
    found.append(paired_scan(f"sequential {len(plds)}", label_duration, plds, readout))
    held = held_for_one_delay(goal)
    found.append(paired_scan("single delay", label_duration, [CONSENSUS_PLD], readout, held))
    return found, notes


def optimised(
    goal: Goal,
    limits: Constraints,
    *,
    matrix_sizes: Sequence[int] = (8,),
    label_duration: float = 1.8,
    n_delays: int = len(PLDS),
    restarts: int = 8,
    seed: int = 0,
) -> list[Scan]:
    """The best time-encoded schedule of each size, and the best sequential one.

    Parameters
    ----------
    goal : Goal
        What counts.
    limits : Constraints
        On the times.
    matrix_sizes : sequence of int
        Images of a cycle, of the time-encoded schedules.
    label_duration : float
        Longest label of the sequential one [s].
    n_delays : int
        Delays of the sequential one; none for 0.
    restarts, seed : int
        As `optimise` takes them.

    Returns
    -------
    list of Scan

    Raises
    ------
    InputError
        As `optimise`.
    """
    spaces = [time_encoded_space(size, limits) for size in dict.fromkeys(matrix_sizes)]
    if n_delays > 1:
        spaces.append(sequential_space(n_delays, label_duration, limits))
    return [optimise(space, goal, limits, restarts=restarts, seed=seed).scan for space in spaces]


def held_for_one_delay(goal: Goal) -> dict[str, float]:
    """Parameters that a single delay cannot determine, at their means over the population.

    Parameters
    ----------
    goal : Goal
        With the model.

    Returns
    -------
    dict of str to float
        Those of the tissue's curve that are no amplitudes and of which nothing is known: ATT.
    """
    model, population = goal.model, goal.population
    first = model.names.index("abv") if "abv" in model.names else len(model.names)
    return {
        p.name: float(population.mean[row].mean())
        for row, p in enumerate(model.parameters[:first])
        if not p.linear and p.knowledge is None
    }


def on_raster(durations: FloatArray, limits: Constraints) -> FloatArray:
    """Durations in whole ticks of the scanner, of the same sum where that is one.

    Parameters
    ----------
    durations : ndarray, shape (D,)
        [s].
    limits : Constraints
        With the raster.

    Returns
    -------
    ndarray, shape (D,)
        [s]; each edge is moved by half a tick at most.
    """
    edges = np.round(np.concatenate([[0.0], np.cumsum(durations)]) / limits.raster)
    return np.diff(edges) * limits.raster


def _left_out(name: str, shortest: float, limits: Constraints) -> str:
    return (
        f"{name} is left out: a sub-bolus would last {max(shortest, 0.0):.3g} s, less than "
        f"min_duration of {limits.min_duration:g} s"
    )
