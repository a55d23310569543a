"""Delays and durations as a sidecar states them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition.protocol import MAX_SECONDS
from asl_pinn.errors import InputError
from asl_pinn.io.bids.pattern import repeated_hint
from asl_pinn.io.bids.sidecar import Sidecar, brief, flag, numbers, require
from asl_pinn.io.bids.volume_types import is_perfusion

LABELING_TYPES = ("PCASL", "CASL", "PASL")
_CUT_OFF_TECHNIQUES = ("QUIPSSII", "Q2TIPS")  # QUIPSS saturates the imaged slices, not the bolus
_AXES = {"i": 0, "j": 1, "k": 2}


def volume_times(
    sidecar: Sidecar, key: str, types: Sequence[str], *, zero: bool = False
) -> NDArray[np.float64]:
    """One duration or delay for each volume of a series.

    Parameters
    ----------
    sidecar : Sidecar
    key : str
        'LabelingDuration' or 'PostLabelingDelay', a number or a list with one per volume.
    types : sequence of str, length V
        Volume types; values of an M0 scan and of what is left out do not count.
    zero : bool
        Accept zero.

    Returns
    -------
    ndarray, shape (V,)
        In seconds.

    Raises
    ------
    InputError
        If the key is missing, the list has another length, or a value that counts is no
        number, negative, zero, or so large that it must be milliseconds.
    """
    values, used = numbers(sidecar, key), is_perfusion(types)
    if isinstance(require(sidecar, key), list) and len(values) != len(used):
        raise InputError(
            f"{sidecar.path}: {key} has {len(values)} values for a series of {len(used)} volumes; "
            f"give one number, or one per volume{repeated_hint(key, values, types)}"
        )
    values = np.broadcast_to(values, used.shape)
    check_seconds(sidecar, key, values[used], zero=zero)
    return values


def check_seconds(
    sidecar: Sidecar, key: str, values: NDArray[np.float64], *, zero: bool = False
) -> None:
    """Refuse times that cannot be seconds of an ASL acquisition.

    Parameters
    ----------
    sidecar : Sidecar
        Where to look.
    key : str
        Name of the key.
    values : ndarray, shape (n,)
        What it holds [s].
    zero : bool
        Whether 0 is allowed.

    Raises
    ------
    InputError
        If a value is NaN, negative, zero (unless `zero`) or above 30.
    """
    sound = np.isfinite(values) & ((values >= 0.0) if zero else (values > 0.0))
    if not sound.all():
        limit = "zero or more" if zero else "positive"
        raise InputError(f"{sidecar.path}: {key} must be {limit}, it holds {values[~sound][0]:g}")
    if (values > MAX_SECONDS).any():
        raise InputError(
            f"{sidecar.path}: {key} holds {values.max():g}, too long for seconds; "
            f"BIDS wants seconds, not milliseconds: is it {values.max() / 1000.0:g}?"
        )


def readout_delay(
    sidecar: Sidecar, shape: tuple[int, ...], notes: list[str]
) -> NDArray[np.float32]:
    """What each slice's readout adds to the post-labelling delay.

    Parameters
    ----------
    sidecar : Sidecar
        MRAcquisitionType, SliceTiming and SliceEncodingDirection count.
    shape : tuple of int
        (X, Y, Z).
    notes : list of str
        Gets a line where something was ignored or assumed.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        In seconds; 0 for 3D readouts.

    Raises
    ------
    InputError
        If the slices of a 2D readout have no times, another number of times, or bad ones.
    """
    acquisition = sidecar.metadata.get("MRAcquisitionType")
    stated = sidecar.metadata.get("SliceTiming") is not None
    direction = str(sidecar.metadata.get("SliceEncodingDirection", "k"))
    axis = _AXES.get(direction.removesuffix("-"))
    if axis is None:
        raise InputError(
            f"{sidecar.path}: SliceEncodingDirection is {brief(direction)}; "
            "use i, j, k, i-, j- or k-"
        )
    if acquisition == "3D" or not stated:
        if acquisition == "2D" and shape[axis] > 1:
            raise InputError(
                f"{sidecar.path}: a 2D readout needs SliceTiming; add the time of each slice"
            )
        if stated:
            notes.append("SliceTiming ignored: the readout is 3D")
        elif acquisition not in ("2D", "3D"):
            notes.append("neither MRAcquisitionType nor SliceTiming stated: taken as a 3D readout")
        return np.zeros(shape, np.float32)
    times = numbers(sidecar, "SliceTiming")
    if len(times) != shape[axis]:
        raise InputError(
            f"{sidecar.path}: SliceTiming has {len(times)} values for {shape[axis]} slices "
            f"along {direction!r}"
        )
    check_seconds(sidecar, "SliceTiming", times, zero=True)
    times = times[::-1] if direction.endswith("-") else times
    along = np.expand_dims(times, tuple(other for other in range(3) if other != axis))
    return np.broadcast_to(along, shape).astype(np.float32)


def labeling_type(sidecar: Sidecar) -> str:
    """ArterialSpinLabelingType of a series.

    Parameters
    ----------
    sidecar : Sidecar

    Returns
    -------
    str
        'PCASL', 'CASL' or 'PASL'.

    Raises
    ------
    InputError
        If it is not stated, or another.
    """
    stated = require(sidecar, "ArterialSpinLabelingType")
    kind = stated.upper() if isinstance(stated, str) else stated
    if kind not in LABELING_TYPES:
        raise InputError(
            f"{sidecar.path}: ArterialSpinLabelingType is {brief(stated)}; "
            f"use {', '.join(LABELING_TYPES)}"
        )
    return str(kind)


def bolus_duration(sidecar: Sidecar) -> float:
    """Duration of a pulsed bolus, from the labelling pulse to the first pulse that cuts it off.

    Parameters
    ----------
    sidecar : Sidecar
        BolusCutOffFlag, BolusCutOffTechnique and BolusCutOffDelayTime: one number, or those of
        the first and the last saturation pulse.

    Returns
    -------
    float
        TI1 [s].

    Raises
    ------
    InputError
        If the bolus was not cut off, so that its duration is not known, the technique saturates
        something else than the bolus, or a delay is missing or unsound.

    References
    ----------
    Wong et al., Magn Reson Med 39:702-708 (1998); Luh et al., Magn Reson Med 41:1246-1254 (1999).
    """
    if not flag(sidecar, "BolusCutOffFlag", default=False):
        raise InputError(
            f"{sidecar.path}: BolusCutOffFlag is not true, and the duration of a pulsed bolus that "
            "is not cut off is not known; where it was (QUIPSS II, Q2TIPS), state BolusCutOffFlag, "
            "BolusCutOffTechnique, and BolusCutOffDelayTime in seconds"
        )
    technique = require(sidecar, "BolusCutOffTechnique")
    if technique not in _CUT_OFF_TECHNIQUES:
        raise InputError(
            f"{sidecar.path}: BolusCutOffTechnique is {brief(technique)}, which does not set the "
            f"duration of the bolus; only {' and '.join(_CUT_OFF_TECHNIQUES)} can be quantified"
        )
    delays = numbers(sidecar, "BolusCutOffDelayTime")
    check_seconds(sidecar, "BolusCutOffDelayTime", delays)
    if (np.diff(delays) <= 0.0).any():
        raise InputError(
            f"{sidecar.path}: BolusCutOffDelayTime must increase from the first saturation pulse "
            f"to the last, it holds {', '.join(f'{delay:g}' for delay in delays)}"
        )
    return float(delays[0])
