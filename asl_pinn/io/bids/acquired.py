"""What a series tells of itself, measured while it is read: scales, timing, order of the delays."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData
from asl_pinn.evaluation.verdict import Facts
from asl_pinn.io.bids.encoded import is_time_encoded
from asl_pinn.io.bids.images import Image
from asl_pinn.io.bids.series import Differences
from asl_pinn.io.bids.sidecar import Sidecar, flag, numbers
from asl_pinn.io.bids.timing import check_seconds, labeling_type, volume_times
from asl_pinn.io.bids.volume_types import is_perfusion

_REPETITION_TIMES = ("RepetitionTimePreparation", "RepetitionTime")


def measure(
    sidecar: Sidecar,
    series: Image,
    types: Sequence[str],
    decoded: Differences,
    data: AslData,
    remarks: Sequence[str] = (),
) -> Facts:
    """Measure what a verdict needs to know of a series, before any fit.

    Parameters
    ----------
    sidecar : Sidecar
        Of the series.
    series : Image
        Four-dimensional.
    types : sequence of str
        Volume types.
    decoded : Differences
        Made from them.
    data : AslData
        With a valid voxel at least.
    remarks : sequence of str
        Sentences about what makes the maps doubtful.

    Returns
    -------
    Facts
        Without those of a fit.

    Raises
    ------
    InputError
        If a repetition time cannot be one.
    """
    valid = data.valid
    m0 = data.m0[valid].astype(np.float64)
    differences = data.delta_m[valid].astype(np.float64) / np.median(m0)
    weights = np.asarray(data.n_averages, np.float64)
    mean = differences @ weights / weights.sum()
    suppressed = sidecar.metadata.get("BackgroundSuppression")
    control = None
    if decoded.control is not None and sidecar.metadata.get("M0Type") != "Absent":
        control = float(np.median(decoded.control[valid] / m0))
    spread, reordered, order = _control_spread(sidecar, series, types, valid)
    last, repetition, total = _longest(sidecar, types, data)
    return Facts(
        mean_difference=float(mean.mean()),
        mean_difference_error=float(mean.std() / math.sqrt(len(mean))),
        signal_over_m0=float(np.median(differences, axis=0).max()),
        control_over_m0=control,
        suppression=None if suppressed is None else flag(sidecar, "BackgroundSuppression"),
        last_readout=last,
        repetition_time=repetition,
        repetition_time_is_total=total,
        control_spread=spread,
        control_spread_if_reordered=reordered,
        reordered=order,
        remarks=tuple(remarks),
    )


def repeat_noise(decoded: Differences, data: AslData) -> float | None:
    """Noise of one difference in the median voxel, from the scatter of repeats.

    Parameters
    ----------
    decoded : Differences
    data : AslData
        Its valid voxels count.

    Returns
    -------
    float or None
        Standard deviation [unit of delta_m]; None where nothing was repeated.
    """
    if decoded.variance is None:
        return None
    noise = math.sqrt(float(np.median(decoded.variance[data.valid])))
    return noise if noise > 0.0 else None


def repetition_times(sidecar: Sidecar) -> tuple[str, NDArray[np.float64]] | None:
    """Repetition times that a sidecar states.

    Parameters
    ----------
    sidecar : Sidecar
        RepetitionTimePreparation comes before RepetitionTime.

    Returns
    -------
    tuple of str and ndarray, or None
        The key, and one time or one per volume [s].

    Raises
    ------
    InputError
        If a value is none, or in milliseconds.
    """
    key = next((key for key in _REPETITION_TIMES if sidecar.metadata.get(key) is not None), None)
    if key is None:
        return None
    return key, numbers(sidecar, key)


def _longest(
    sidecar: Sidecar, types: Sequence[str], data: AslData
) -> tuple[float | None, float | None, bool]:
    """Last readout and repetition time of the volume where they fit together least."""
    stated = repetition_times(sidecar)
    if stated is None:
        return None, None, True
    key, times = stated
    used = is_perfusion(types)
    times = np.broadcast_to(times, used.shape)[used] if len(times) in (1, len(used)) else times
    check_seconds(sidecar, key, times)
    last = volume_times(sidecar, "PostLabelingDelay", types, zero=True)[used]
    if labeling_type(sidecar) != "PASL":  # whose delays count from the pulse
        last = last + volume_times(sidecar, "LabelingDuration", types, zero=True)[used]
    last = last + float(data.readout_delay[data.mask].max(initial=0.0))
    if len(times) != len(last):
        times = np.full(len(last), times.min())
    worst = int(np.argmax(last / times))
    return float(last[worst]), float(times[worst]), key == _REPETITION_TIMES[0]


def _control_spread(
    sidecar: Sidecar, series: Image, types: Sequence[str], valid: NDArray[np.bool_]
) -> tuple[float | None, float | None, str]:
    """How much control images of one delay differ, and how much in another order of the delays.

    Background suppression makes the level of the control images depend on the delay, so that
    those of one delay agree only where the delays are in the order of the volumes.
    """
    kinds = np.array(types)
    controls = kinds == "control"
    if not controls.any() or is_time_encoded(sidecar, types):
        return None, None, ""
    delays = volume_times(sidecar, "PostLabelingDelay", types, zero=True)[controls].round(4)
    level = np.nanmean(series.values[valid][:, controls].astype(np.float64), axis=0)
    spread = _spread(level, delays)
    if spread is None or len(np.unique(delays)) < 2:
        return None, None, ""
    others = {name: _spread(level, other) for name, other in _orders(delays)}
    known = {name: other for name, other in others.items() if other is not None}
    best = min(known, key=lambda name: known[name], default="")
    return spread, known.get(best), best


def _orders(delays: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    yield "the delays in reverse order", delays[::-1]
    distinct = np.unique(delays)
    times, rest = divmod(len(delays), len(distinct))
    if not rest:
        yield "the delays in turn", np.tile(distinct, times)
        yield "each delay in a block", np.repeat(distinct, times)


def _spread(level: FloatArray, groups: FloatArray) -> float | None:
    """Standard deviation within groups over the mean; None without a group of two."""
    members = [level[groups == group] for group in np.unique(groups)]
    free = sum(len(each) - 1 for each in members)
    mean = abs(float(level.mean()))
    if not free or not mean:
        return None
    squares = sum(float(np.sum((each - each.mean()) ** 2)) for each in members)
    return math.sqrt(squares / free) / mean
