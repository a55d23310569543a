"""The best schedule of a kind: by gradient from several starts, then on the scanner's raster."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import LinearConstraint, minimize

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.errors import InputError
from asl_pinn.optimal_design.expectation import Goal, as_float64, points_of, scan_cost
from asl_pinn.optimal_design.scan import Scan, whole_cycles
from asl_pinn.optimal_design.space import Constraints, Space, random_starts, stack_starts

EDGE_SD = 0.05
"""Standard deviation of the edges of each bolus while gradients are followed [s].

The bound jumps where an edge passes a delay, and a sum over points has no slope there, though the
expectation over all transit times has one.
"""

_STRIDES = (1, 2, 5, 10)  # of the raster
_REFINED = 3  # best results of the relaxed problem that are taken further
_STEPS = 200
_LEAST_GAIN = 1e-7  # of the cost, relative, for a step on the raster


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best schedule that was found.

    Attributes
    ----------
    scan : Scan
        Its times are multiples of the raster.
    cost : float
        The criterion there, edges being sharp.
    averages : int
        Cycles that fit the scan time.
    """

    scan: Scan
    cost: float
    averages: int


def optimise(
    space: Space, goal: Goal, limits: Constraints, *, restarts: int = 8, seed: int = 0
) -> Optimum:
    """Seek the schedule that minimises a criterion.

    The number of cycles is first taken as a real number, so that the cost has a slope everywhere,
    and sequential quadratic programming follows it from known and from random schedules. From the
    best of them it is followed again with whole numbers of cycles, fewer and more until that does
    not help, the cycle being short enough for each. The best results are rounded to the raster and
    improved there by the criterion itself, one time or two against one another, until no step does.

    Parameters
    ----------
    space : Space
        Schedules to choose from.
    goal : Goal
        What counts.
    limits : Constraints
        On the times.
    restarts : int
        Random schedules to start from, beside the known ones.
    seed : int
        Of these.

    Returns
    -------
    Optimum
        Not worse than the known schedules of the space, rounded to the raster.

    Raises
    ------
    InputError
        If not one cycle fits the scan time, or `restarts` is negative.

    References
    ----------
    Kraft, A software package for sequential quadratic programming, DFVLR-FB 88-28 (1988), as SciPy
    has it.
    """
    if restarts < 0:
        raise InputError(f"restarts must be 0 or more, not {restarts}")
    shortest = float(space.cycle_time(space.lower))
    if whole_cycles(shortest, limits.scan_time) < 1:
        raise InputError(
            f"the shortest cycle of {space.name} takes {shortest:g} s, more than the scan time of "
            f"{limits.scan_time:g} s; give more time, a smaller matrix, or fewer delays"
        )
    known = stack_starts(space, space.starts)
    drawn = random_starts(space, restarts, np.random.default_rng(seed))
    with jax.enable_x64(True):
        cost = _costs(space, goal)
        relaxed = [
            _descend(space, cost, start, limits.scan_time, None) for start in (*known, *drawn)
        ]
        relaxed.sort(key=lambda found: found[1])
        whole: list[tuple[FloatArray, float]] = []
        for x, _ in relaxed[:_REFINED]:
            below = whole_cycles(float(space.cycle_time(x)), limits.scan_time)
            for step, first in ((-1, below), (1, below + 1)):
                whole += _with_whole_cycles(space, cost, x, limits.scan_time, first, step)
        whole.sort(key=lambda found: found[1])
        found = _on_raster(space, cost, [x for x, _ in whole], known, limits)
    x, value = found
    scan = space.build(x)
    return Optimum(scan, value, scan.averages(limits.scan_time))


@dataclasses.dataclass(frozen=True)
class _Costs:
    """The criterion, compiled: with its slope, averages being continuous or not, and in batches."""

    smooth: Callable[..., tuple[Array, Array]]
    exact: Callable[..., Array]


def _costs(space: Space, goal: Goal) -> _Costs:
    points = as_float64(points_of(goal.population))
    at_times = scan_cost(goal, points, space.build(space.starts[0]).noise_factor)

    def timed(x: Array, averages: Array, edge_sd: float) -> Array:
        (label, label_offset), (delay, delay_offset) = space.label, space.delay
        return at_times(label @ x + label_offset, delay @ x + delay_offset, averages, edge_sd)

    def smooth(x: Array, scan_time: float, count: float) -> Array:
        by_time, offset = space.cycle
        averages = jnp.where(count > 0, count, scan_time / (by_time @ x + offset))
        return jnp.log(timed(x, averages, EDGE_SD))

    def sharp(each: tuple[Array, Array]) -> Array:
        return timed(*each, edge_sd=0.0)

    def exact(x: Array, averages: Array) -> Array:
        return jax.lax.map(sharp, (x, averages), batch_size=16)

    return _Costs(jax.jit(jax.value_and_grad(smooth)), jax.jit(exact))


def _descend(
    space: Space, cost: _Costs, start: FloatArray, scan_time: float, count: int | None
) -> tuple[FloatArray, float]:
    """Local optimum of the smoothed problem for a number of cycles; any number, if it is None."""
    by_time, offset = space.cycle
    longest = scan_time / (count or 1) - offset
    limits = LinearConstraint(
        np.stack([space.limited, by_time]), -np.inf, np.array([space.limit, longest])
    )

    def value(x: FloatArray) -> tuple[float, FloatArray]:
        found, slope = cost.smooth(x, scan_time, float(count or 0))
        return float(found), np.asarray(slope)

    box = np.stack([space.lower, space.upper], axis=1)
    options: dict[str, Any] = {"maxiter": _STEPS, "ftol": 1e-8}
    result = minimize(
        value, start, jac=True, method="SLSQP", bounds=box, constraints=limits, options=options
    )
    return np.clip(result.x, space.lower, space.upper), float(result.fun)


def _with_whole_cycles(
    space: Space, cost: _Costs, start: FloatArray, scan_time: float, first: int, step: int
) -> list[tuple[FloatArray, float]]:
    """Local optima with ever fewer or more cycles, as long as that lowers the cost."""
    found: list[tuple[FloatArray, float]] = []
    x, best, count = start, np.inf, first
    shortest = float(space.cycle_time(space.lower))
    while count > 0 and shortest * count <= scan_time:
        x, value = _descend(space, cost, x, scan_time, count)
        if not value < best:
            break
        found.append((x, value))
        best, count = value, count + step
    return found


def _on_raster(
    space: Space,
    cost: _Costs,
    ends: list[FloatArray],
    known: FloatArray,
    limits: Constraints,
) -> tuple[FloatArray, float]:
    """Best schedule on the raster that steps lead to from the first ends and the best known."""
    raster = limits.raster
    lowest = np.ceil(space.lower / raster - 1e-6).astype(int)
    highest = np.floor(space.upper / raster + 1e-6).astype(int)
    moves = _moves(len(space.lower))

    def costs(ticks: IntArray) -> FloatArray:
        x = ticks * raster
        inside = ((ticks >= lowest) & (ticks <= highest)).all(axis=1)
        inside &= x @ space.limited <= space.limit + 1e-9
        counts = np.array([whole_cycles(each, limits.scan_time) for each in space.cycle_time(x)])
        inside &= counts > 0
        safe = np.where(inside[:, None], x, lowest * raster)
        found = np.asarray(cost.exact(safe, np.where(inside, counts, 1).astype(float)))
        return np.where(inside, found, np.inf)

    def fitted(x: FloatArray) -> IntArray:
        """Rounded, and shortened to where the labelling time and the whole cycles allow."""
        ticks = np.clip(np.round(x / raster).astype(int), lowest, highest)
        count = max(whole_cycles(float(space.cycle_time(x)), limits.scan_time), 1)
        by_time, offset = space.cycle
        rows = ((space.limited, space.limit), (by_time, limits.scan_time / count - offset))
        for by_each, most in rows:
            order = np.argsort(ticks * raster - x)[::-1]  # what was rounded up most goes first
            for k in itertools.cycle(order):
                shortened = by_each @ ticks * raster <= most + 1e-9
                if shortened or not ((ticks > lowest) & (by_each > 0)).any():
                    break
                ticks[k] -= int(ticks[k] > lowest[k] and by_each[k] > 0)
        return ticks

    # One batch of fixed size serves the known ones, too, so that there is one program.
    rounded = np.array([fitted(x) for x in known])
    values = costs(np.resize(rounded, (len(moves), rounded.shape[1])))[: len(rounded)]
    starts = list(dict.fromkeys(tuple(fitted(x).tolist()) for x in ends))[:_REFINED]
    starts.append(tuple(rounded[int(values.argmin())].tolist()))

    def improved(ticks: IntArray) -> tuple[IntArray, float]:
        best = np.inf
        while True:
            values = costs(ticks + moves)
            if not values.min() < best * (1.0 - _LEAST_GAIN):
                return ticks, best
            ticks, best = ticks + moves[int(values.argmin())], float(values.min())

    ticks, best = min((improved(np.array(start)) for start in starts), key=lambda each: each[1])
    if not np.isfinite(best):
        raise InputError(
            f"no schedule of {space.name} on a raster of {raster:g} s keeps within the limits of "
            f"its times and a scan time of {limits.scan_time:g} s; relax one of them"
        )
    return ticks * raster, best


def _moves(n_free: int) -> IntArray:
    """Steps of one time, and of two against one another, in ticks of the raster; none first."""
    unit = np.eye(n_free, dtype=int)
    pairs = [unit[i] - unit[j] for i, j in itertools.permutations(range(n_free), 2)]
    steps = np.array([*unit, *-unit, *pairs])
    return np.concatenate([0 * steps[:1], *(stride * steps for stride in _STRIDES)])
