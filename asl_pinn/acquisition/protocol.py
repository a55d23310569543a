"""The acquisition: schedules of sub-boluses, delays and physical constants."""

import dataclasses
from typing import Literal, get_args

import jax
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from asl_pinn.acquisition.constants import (
    LABELING_EFFICIENCY,
    PARTITION_COEFFICIENT,
    T1_BLOOD,
    T1_TISSUE,
    T1_WHITE_MATTER,
)
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError

Schedule = Literal["equal", "t1_adjusted", "free_lunch"]
Labeling = Literal["continuous", "pulsed"]
MAX_SECONDS = 30.0  # longer times are milliseconds


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Protocol:
    """Timing and constants of a decoded acquisition, one entry per delay.

    Attributes
    ----------
    label_duration : ndarray, shape (D,)
        Duration of each (sub-)bolus [s]; of pulsed labelling, from the pulse to the saturation
        that cuts the bolus off (TI1).
    pld : ndarray, shape (D,)
        Post-labelling delay of each, from its end to readout [s]; negative where a pulsed bolus
        is read before it is cut off.
    t1_blood : float
        Longitudinal relaxation time of arterial blood [s].
    labeling_efficiency : float
        Inversion efficiency, background-suppression losses included.
    partition_coefficient : float
        Blood-tissue partition coefficient of water [mL/g].
    labeling : {'continuous', 'pulsed'}
        Whether blood is labelled as it passes a plane (CASL, pCASL), or all of it at once (PASL).
    vascular_crushing : bool or None
        Whether gradients suppress the signal of blood in large arteries; None where it is not
        known.
    t1_gm, t1_wm : float
        Longitudinal relaxation times of pure grey and white matter [s], for models that tell them
        apart.
    """

    label_duration: FloatArray
    pld: FloatArray
    t1_blood: float = T1_BLOOD
    labeling_efficiency: float = LABELING_EFFICIENCY
    partition_coefficient: float = PARTITION_COEFFICIENT
    labeling: Labeling = dataclasses.field(default="continuous", metadata={"static": True})
    vascular_crushing: bool | None = dataclasses.field(default=None, metadata={"static": True})
    t1_gm: float = T1_TISSUE
    t1_wm: float = T1_WHITE_MATTER

    @property
    def t(self) -> FloatArray:
        """Time since the start of each bolus at readout, shape (D,) [s]; the TI of PASL."""
        return self.label_duration + self.pld

    @property
    def n_delays(self) -> int:
        """Number of delays D."""
        return len(self.label_duration)


def check_timing(protocol: Protocol) -> None:
    """Refuse times that no acquisition has.

    Parameters
    ----------
    protocol : Protocol
        On the host.

    Raises
    ------
    InputError
        If the labelling is unknown, a label duration is not positive, a post-labelling delay of
        continuous labelling is negative, a pulsed bolus is read before it is labelled, or a time
        is above `MAX_SECONDS`.

    Examples
    --------
    >>> check_timing(Protocol(np.array([0.7]), np.array([-0.3]), labeling="pulsed"))
    >>> check_timing(Protocol(np.array([0.7]), np.array([-0.3])))
    Traceback (most recent call last):
        ...
    asl_pinn.errors.InputError: pld must be 0 to 30 s after continuous labelling, it holds -0.3
    """
    duration, pld = np.asarray(protocol.label_duration), np.asarray(protocol.pld)
    if protocol.labeling not in get_args(Labeling):
        raise InputError(
            f"labeling is {str(protocol.labeling)[:40]!r}; choose {' or '.join(get_args(Labeling))}"
        )
    sound = (duration > 0.0) & (duration <= MAX_SECONDS)
    if not sound.all():
        raise InputError(
            f"label_duration must be above 0 and at most {MAX_SECONDS:g} s, it holds "
            f"{duration[~sound][0]:g}"
        )
    continuous = protocol.labeling == "continuous"
    sound = ((pld >= 0.0) if continuous else (pld > -duration)) & (pld <= MAX_SECONDS)
    if not sound.all():
        least = "0" if continuous else "above -label_duration"
        raise InputError(
            f"pld must be {least} to {MAX_SECONDS:g} s after {protocol.labeling} labelling, it "
            f"holds {pld[~sound][0]:g}"
        )


def label_durations(
    schedule: Schedule,
    n_delays: int,
    total: float = 4.0,
    *,
    first: float = 1.8,
    t1_blood: float = T1_BLOOD,
) -> NDArray[np.float64]:
    """Durations of the sub-boluses of a time-encoded train, earliest first.

    Parameters
    ----------
    schedule : {'equal', 't1_adjusted', 'free_lunch'}
        All alike; shorter towards the readout, so that each has the same area under
        exp(-s/T1b); or one long first bolus and the rest alike.
    n_delays : int
        Number of sub-boluses.
    total : float
        Labelling time in all [s].
    first : float
        Length of the first bolus of 'free_lunch' [s].
    t1_blood : float
        Longitudinal relaxation time of arterial blood [s].

    Returns
    -------
    ndarray, shape (n_delays,)
        Durations [s]; they add up to `total`.

    Raises
    ------
    InputError
        If a duration would be zero or negative, `total` is above `MAX_SECONDS`, or `schedule`
        is unknown.

    References
    ----------
    Teeuwisse et al., Magn Reson Med 72:1712-1722 (2014).

    Examples
    --------
    >>> label_durations("t1_adjusted", 7).round(2)
    array([1.49, 0.77, 0.52, 0.4 , 0.32, 0.27, 0.23])
    >>> label_durations("free_lunch", 4)
    array([1.8       , 0.73333333, 0.73333333, 0.73333333])
    """
    if not 0.0 < total <= MAX_SECONDS or n_delays < 1:
        raise InputError(
            f"a schedule needs labelling time, {MAX_SECONDS:g} s at most, and sub-boluses, not "
            f"{total} s, {n_delays}"
        )
    if schedule == "equal":
        return np.full(n_delays, total / n_delays)
    if schedule == "t1_adjusted":
        area = np.linspace(1.0, 0.0, n_delays + 1) * -np.expm1(-total / t1_blood)
        return -np.diff(-t1_blood * np.log1p(-area))
    if schedule == "free_lunch":
        if not 0.0 < first < total or n_delays < 2:
            raise InputError(
                f"the first bolus of a free-lunch schedule ({first} s) must be shorter than "
                f"the labelling time ({total} s), with at least 2 sub-boluses"
            )
        return np.array([first] + [(total - first) / (n_delays - 1)] * (n_delays - 1))
    raise InputError(f"unknown schedule {schedule!r}; choose equal, t1_adjusted or free_lunch")


def time_encoded_protocol(
    durations: ArrayLike,
    final_delay: float = 0.1,
    *,
    t1_blood: float = T1_BLOOD,
    labeling_efficiency: float = LABELING_EFFICIENCY,
    partition_coefficient: float = PARTITION_COEFFICIENT,
) -> Protocol:
    """Protocol of a train of sub-boluses played one after the other.

    Parameters
    ----------
    durations : array_like, shape (D,)
        Sub-bolus durations, earliest first [s].
    final_delay : float
        From the end of the last sub-bolus to readout [s].
    t1_blood, labeling_efficiency, partition_coefficient : float
        As in `Protocol`.

    Returns
    -------
    Protocol
        A sub-bolus's delay is the sum of all later durations plus the final delay.

    Raises
    ------
    InputError
        If a duration is not positive, the final delay is negative, or one is above `MAX_SECONDS`.

    Examples
    --------
    >>> protocol = time_encoded_protocol([1.8, 0.8, 0.4])
    >>> protocol.pld.round(3), protocol.t.round(3)
    (array([1.3, 0.5, 0.1]), array([3.1, 1.3, 0.5]))
    """
    label_duration = np.asarray(durations, dtype=np.float64)
    sound = (label_duration > 0.0) & (label_duration <= MAX_SECONDS)
    if label_duration.ndim != 1 or not sound.all():
        raise InputError(
            f"sub-bolus durations must be positive seconds, {MAX_SECONDS:g} at most, "
            f"not {durations}"
        )
    if not 0.0 <= final_delay <= MAX_SECONDS:
        raise InputError(
            f"the final delay must not be negative nor above {MAX_SECONDS:g} s, it is "
            f"{final_delay} s"
        )
    later = np.cumsum(label_duration[::-1])[::-1] - label_duration
    return Protocol(
        label_duration,
        later + final_delay,
        t1_blood,
        labeling_efficiency,
        partition_coefficient,
    )
