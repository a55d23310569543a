"""The schedules among which an optimum is sought: times that are affine in a few numbers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np

from asl_pinn.acquisition.encoding import encoding_matrix
from asl_pinn.acquisition.protocol import MAX_SECONDS, Schedule, label_durations
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.optimal_design.scan import Scan, paired_scan, time_encoded_scan

_DAY = 86400.0  # s


@dataclasses.dataclass(frozen=True)
class Constraints:
    """What a scanner and a protocol allow.

    Attributes
    ----------
    scan_time : float
        Of the ASL series, without that of M0 [s].
    readout : float
        From the end of the delay to the next labelling [s].
    label_total : float
        Longest labelling before a readout [s].
    min_duration : float
        Shortest (sub-)bolus [s].
    min_delay, max_delay : float
        From the end of labelling to readout [s].
    raster : float
        Times are whole multiples of it [s].
    """

    scan_time: float
    readout: float = 0.5
    label_total: float = 4.0
    min_duration: float = 0.1
    min_delay: float = 0.1
    max_delay: float = 3.0
    raster: float = 0.01

    def __post_init__(self) -> None:
        positive = ("scan_time", "label_total", "min_duration", "raster")
        for name in (*positive, "readout", "min_delay", "max_delay"):
            value = getattr(self, name)
            least = "above 0" if name in positive else "0 or more"
            if not (value > 0.0 if name in positive else value >= 0.0) or value == float("inf"):
                raise InputError(f"{name} must be {least} [s], it is {value:g}")
        longest = dict.fromkeys(("label_total", "max_delay", "readout"), MAX_SECONDS)
        for name, most in {**longest, "scan_time": _DAY}.items():
            if getattr(self, name) > most:
                raise InputError(
                    f"{name} is {getattr(self, name):g}, too long for seconds; times are in "
                    "seconds, not milliseconds"
                )
        if self.min_delay > self.max_delay:
            raise InputError(
                f"min_delay of {self.min_delay:g} s is above max_delay of {self.max_delay:g} s"
            )
        if self.raster > self.min_duration:
            raise InputError(
                f"raster of {self.raster:g} s is above min_duration of {self.min_duration:g} s"
            )


@dataclasses.dataclass(frozen=True)
class Space:
    """Schedules of one kind by K numbers x [s] that are free.

    Attributes
    ----------
    name : str
        Of the best one.
    label, delay : tuple of ndarray
        Matrix of shape (D, K) and offset of shape (D,) [s]: durations and delays of the
        differences are `matrix @ x + offset`.
    cycle : tuple of ndarray and float
        Seconds of a cycle by those of x, shape (K,), and what else it takes [s].
    limited : ndarray, shape (K,)
        Share of each in the labelling before a readout.
    limit : float
        Longest that this may be [s].
    lower, upper : ndarray, shape (K,)
        Bounds of x [s].
    starts : ndarray, shape (N, K)
        Known schedules of the kind [s].
    build : callable
        x to the scan.
    """

    name: str
    label: tuple[FloatArray, FloatArray]
    delay: tuple[FloatArray, FloatArray]
    cycle: tuple[FloatArray, float]
    limited: FloatArray
    limit: float
    lower: FloatArray
    upper: FloatArray
    starts: FloatArray
    build: Callable[[FloatArray], Scan]

    def cycle_time(self, x: FloatArray) -> FloatArray:
        """Duration of a cycle [s].

        Parameters
        ----------
        x : ndarray, shape (..., K)
            Times that are free [s].

        Returns
        -------
        ndarray, shape (...)
        """
        by_time, offset = self.cycle
        return x @ by_time + offset


def time_encoded_space(matrix_size: int, limits: Constraints) -> Space:
    """Hadamard-encoded trains whose sub-boluses and final delay are all free.

    Parameters
    ----------
    matrix_size : int
        Images N of a cycle.
    limits : Constraints
        On the times.

    Returns
    -------
    Space
        x holds the durations, earliest first, and the final delay.

    Raises
    ------
    InputError
        If there is no matrix of that size, or its sub-boluses do not fit.
    """
    n_delays = encoding_matrix(matrix_size).shape[1]
    require_room(matrix_size, limits)
    name, readout = f"optimised {matrix_size}", limits.readout
    durations, final = np.eye(n_delays, n_delays + 1), np.eye(1, n_delays + 1, n_delays)
    later = np.triu(np.ones((n_delays, n_delays)), 1) @ durations
    longest = limits.label_total - (n_delays - 1) * limits.min_duration
    first = min(1.8, 0.5 * limits.label_total)
    named = [
        label_durations(schedule, n_delays, limits.label_total, first=first)
        for schedule in get_args(Schedule)
    ]
    return Space(
        name=name,
        label=(durations, np.zeros(n_delays)),
        delay=(later + final, np.zeros(n_delays)),
        cycle=(np.full(n_delays + 1, float(matrix_size)), matrix_size * readout),
        limited=np.append(np.ones(n_delays), 0.0),
        limit=limits.label_total,
        lower=np.append(np.full(n_delays, limits.min_duration), limits.min_delay),
        upper=np.append(np.full(n_delays, longest), limits.max_delay),
        starts=np.array([[*each, limits.min_delay] for each in named]),
        build=lambda x: time_encoded_scan(name, x[:-1], float(x[-1]), readout),
    )


def free_block_space(matrix_size: int, first: float, limits: Constraints) -> Space:
    """Free-lunch trains: a first bolus of a stated length, and equal ones after it.

    Parameters
    ----------
    matrix_size : int
        Images N of a cycle.
    first : float
        Duration of the first bolus [s].
    limits : Constraints
        On the times.

    Returns
    -------
    Space
        x holds the duration of each of the later sub-boluses, and the final delay.

    Raises
    ------
    InputError
        If there is no matrix of that size, or its sub-boluses do not fit.
    """
    n_delays = encoding_matrix(matrix_size).shape[1]
    require_room(matrix_size, limits, first)
    name, readout, n_later = f"free lunch {matrix_size}", limits.readout, n_delays - 1
    block = np.repeat([[0.0, 0.0], [1.0, 0.0]], [1, n_later], axis=0)
    offset = np.repeat([first, 0.0], [1, n_later])
    later = np.stack([np.arange(n_later, -1.0, -1.0), np.ones(n_delays)], axis=1)
    longest = (limits.label_total - first) / n_later
    return Space(
        name=name,
        label=(block, offset),
        delay=(later, np.zeros(n_delays)),
        cycle=(matrix_size * np.array([n_later, 1.0]), matrix_size * (first + readout)),
        limited=np.array([n_later, 0.0]),
        limit=limits.label_total - first,
        lower=np.array([limits.min_duration, limits.min_delay]),
        upper=np.array([longest, limits.max_delay]),
        starts=np.array([[longest, limits.min_delay]]),
        build=lambda x: time_encoded_scan(name, [first, *[x[0]] * n_later], float(x[-1]), readout),
    )


def sequential_space(
    n_delays: int, label_duration: float, limits: Constraints, *, free_label: bool = True
) -> Space:
    """Pairs of control and label whose delays are free, and the label duration that all share.

    Parameters
    ----------
    n_delays : int
        Delays of a cycle.
    label_duration : float
        Longest label duration [s]; the label duration itself where it is not free.
    limits : Constraints
        On the times.
    free_label : bool
        Whether the label duration is sought, too.

    Returns
    -------
    Space
        x holds the delays, and the label duration last if it is free.

    Raises
    ------
    InputError
        If there is less than one delay.
    """
    if n_delays < 1:
        raise InputError(f"a sequential protocol needs delays, not {n_delays}")
    name, readout, n = f"optimised sequential {n_delays}", limits.readout, n_delays
    n_free = n + free_label
    shared = np.eye(1, n_free, n).repeat(n, axis=0)
    offset = np.zeros(n) if free_label else np.full(n, label_duration)
    highest = min(limits.max_delay, max(limits.min_delay, 2.0))
    spaced = np.linspace(limits.min_delay, highest, n)
    by_time = np.append(np.full(n, 2.0), [2.0 * n] * free_label)

    def build(x: FloatArray) -> Scan:
        duration = float(x[n]) if free_label else label_duration
        return paired_scan(name, duration, np.sort(x[:n]), readout)

    return Space(
        name=name,
        label=(shared, offset),
        delay=(np.eye(n, n_free), np.zeros(n)),
        cycle=(by_time, 2.0 * n * (readout + (0.0 if free_label else label_duration))),
        limited=np.append(np.zeros(n), [1.0] * free_label),
        limit=label_duration,
        lower=np.append(np.full(n, limits.min_delay), [limits.min_duration] * free_label),
        upper=np.append(np.full(n, limits.max_delay), [label_duration] * free_label),
        starts=np.append(spaced, [label_duration] * free_label)[None],
        build=build,
    )


def require_room(matrix_size: int, limits: Constraints, first: float = 0.0) -> None:
    """Refuse sub-boluses that do not fit the labelling time.

    Parameters
    ----------
    matrix_size : int
        Images N of a cycle.
    limits : Constraints
        On the times.
    first : float
        Duration of the first bolus, where it is stated [s].

    Raises
    ------
    InputError
        Naming what to change.
    """
    n_later = matrix_size - (2 if first else 1)
    needed = first + n_later * limits.min_duration
    if needed > limits.label_total + 1e-9:
        train = f"a first bolus of {first:g} s and {n_later}" if first else f"{n_later}"
        raise InputError(
            f"{train} sub-boluses of min_duration {limits.min_duration:g} s take {needed:g} s, "
            f"more than label_total of {limits.label_total:g} s; change one of them"
        )


def random_starts(space: Space, count: int, generator: np.random.Generator) -> FloatArray:
    """Schedules drawn at random within the bounds, labelling time used up or less.

    Parameters
    ----------
    space : Space
        Of K free times.
    count : int
        How many.
    generator : numpy Generator
        To draw with.

    Returns
    -------
    ndarray, shape (count, K)
        [s].
    """
    # Squares, so that some sub-boluses are much longer than others.
    above = generator.random((count, len(space.lower))) ** 2 * (space.upper - space.lower)
    room = space.limit - space.limited @ space.lower
    wanted = above @ space.limited
    scale = np.where(wanted > room, room / np.where(wanted > 0.0, wanted, 1.0), 1.0)
    return space.lower + np.where(space.limited > 0.0, scale[:, None], 1.0) * above


def stack_starts(space: Space, known: Sequence[FloatArray] | FloatArray) -> FloatArray:
    """Known schedules, moved into the bounds where they lie outside of them.

    Parameters
    ----------
    space : Space
        Of K free times.
    known : ndarray, shape (N, K)
        [s].

    Returns
    -------
    ndarray, shape (N, K)
    """
    return np.clip(np.asarray(known), space.lower, space.upper)
