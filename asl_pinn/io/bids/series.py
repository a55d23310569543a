"""From the volumes of an ASL series to one difference image per delay."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition import encoding
from asl_pinn.acquisition.protocol import time_encoded_protocol
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.io.bids.sidecar import Sidecar, flag, number, numbers, require
from asl_pinn.io.bids.timing import (
    bolus_duration,
    check_seconds,
    labeling_type,
    volume_times,
)
from asl_pinn.io.bids.volume_types import is_perfusion

_SAME_TIME = 4  # decimals of a second in which two delays must agree to be one


@dataclasses.dataclass(frozen=True)
class Differences:
    """Difference images of a series, one per delay in the order of first occurrence.

    Attributes
    ----------
    delta_m : ndarray of float32, shape (X, Y, Z, D)
        Control - label, averaged over repeats [a.u.].
    n_averages : ndarray, shape (D,)
        Number of differences behind each average.
    label_duration, pld : ndarray, shape (D,)
        Timing of each [s].
    control : ndarray of float32, shape (X, Y, Z), or None
        Mean of the images without label, where there are any [a.u.].
    variance : ndarray, shape (X, Y, Z), or None
        Variance of one difference, from the scatter of repeats; None where there are none.
    """

    delta_m: NDArray[np.float32]
    n_averages: NDArray[np.float32]
    label_duration: FloatArray
    pld: FloatArray
    control: NDArray[np.float32] | None
    variance: NDArray[np.float64] | None = None


@dataclasses.dataclass(frozen=True)
class TimeEncoding:
    """How the volumes of a time-encoded series were labelled.

    Attributes
    ----------
    matrix : ndarray, shape (N, N - 1)
        +1 for control, -1 for label, a row per image, a column per sub-bolus.
    sign_flip : bool
        True where the scanner acquired the complement.
    label_duration : ndarray, shape (N - 1,)
        Durations of the sub-boluses, earliest first [s].
    """

    matrix: NDArray[np.float64]
    sign_flip: bool
    label_duration: NDArray[np.float64]

    @property
    def all_control(self) -> NDArray[np.bool_]:
        """Images in which every sub-bolus is a control, shape (N,)."""
        return (self.matrix == (-1.0 if self.sign_flip else 1.0)).all(axis=1)

    @property
    def volume_types(self) -> list[str]:
        """Volume types of one cycle of N images, as an aslcontext file lists them."""
        return ["control" if control else "label" for control in self.all_control]


def is_time_encoded(sidecar: Sidecar, types: Sequence[str]) -> bool:
    """Whether a series has images that are yet to be decoded.

    Parameters
    ----------
    sidecar : Sidecar
        Of the series.
    types : sequence of str
        Volume types, from its aslcontext.

    Returns
    -------
    bool
        True where a matrix is stated and no volume is a difference already.
    """
    stated = {"TimeEncodedMatrixSize", "TimeEncodedMatrix"} & set(sidecar.metadata)
    return bool(stated) and "deltam" not in types


def time_encoding(sidecar: Sidecar) -> TimeEncoding:
    """Time encoding that a sidecar states.

    Parameters
    ----------
    sidecar : Sidecar
        TimeEncodedMatrixSize (N) and TimeEncodedMatrixType ('hadamard', 'walsh', 'custom'),
        or TimeEncodedMatrix (N rows of N - 1 entries +1 or -1), which wins;
        TimeEncodedSubBolusDurations (N - 1 seconds, earliest first); TimeEncodedSignFlip.

    Returns
    -------
    TimeEncoding

    Raises
    ------
    InputError
        If a key is missing, contradicts another or cannot be decoded.
    """
    matrix = _matrix(sidecar)
    durations = numbers(sidecar, "TimeEncodedSubBolusDurations")
    check_seconds(sidecar, "TimeEncodedSubBolusDurations", durations)
    if len(durations) != matrix.shape[1]:
        raise InputError(
            f"{sidecar.path}: TimeEncodedSubBolusDurations has {len(durations)} values for the "
            f"{matrix.shape[1]} sub-boluses of the encoding matrix"
        )
    return TimeEncoding(matrix, flag(sidecar, "TimeEncodedSignFlip", default=False), durations)


def differences(
    values: NDArray[np.float32], types: Sequence[str], sidecar: Sidecar, notes: list[str]
) -> Differences:
    """Subtract, average or decode the volumes of a series.

    Parameters
    ----------
    values : ndarray of float32, shape (X, Y, Z, V)
    types : sequence of str, length V
        From `read_volume_types`.
    sidecar : Sidecar
        Of the series.
    notes : list of str
        Gets a line for each thing that a user should know.

    Returns
    -------
    Differences

    Raises
    ------
    InputError
        If timing is missing or unsound, or controls and labels do not match.
    """
    kinds = np.array(types)
    used = is_perfusion(types)
    if labeling_type(sidecar) == "PASL":
        return _subtract_pulsed(values[..., used], kinds[used], types, sidecar)
    durations = volume_times(sidecar, "LabelingDuration", types)[used]
    plds = volume_times(sidecar, "PostLabelingDelay", types, zero=True)[used]
    if is_time_encoded(sidecar, types):
        return _decode(values[..., used], kinds[used], durations, plds, sidecar, notes)
    return _subtract(values[..., used], kinds[used], durations, plds, sidecar)


def _subtract_pulsed(
    values: NDArray[np.float32],
    kinds: NDArray[np.str_],
    types: Sequence[str],
    sidecar: Sidecar,
) -> Differences:
    """Differences of PASL, whose PostLabelingDelay counts from the pulse: the inversion time."""
    if is_time_encoded(sidecar, kinds.tolist()):
        raise InputError(
            f"{sidecar.path}: ArterialSpinLabelingType is 'PASL', but a pulse cannot be "
            "time-encoded; correct it, or leave TimeEncodedMatrix out"
        )
    duration = bolus_duration(sidecar)
    inversion_times = volume_times(sidecar, "PostLabelingDelay", types)[is_perfusion(types)]
    durations = np.full_like(inversion_times, duration)
    found = _subtract(values, kinds, durations, inversion_times, sidecar)
    return dataclasses.replace(found, pld=found.pld - duration)


def _subtract(
    values: NDArray[np.float32],
    kinds: NDArray[np.str_],
    durations: FloatArray,
    plds: FloatArray,
    sidecar: Sidecar,
) -> Differences:
    timing = np.stack([durations, plds], axis=1)
    _, first, delay = np.unique(
        timing.round(_SAME_TIME), axis=0, return_index=True, return_inverse=True
    )
    order = np.argsort(first)
    member = delay.ravel()[:, None] == order
    label, control = kinds == "label", kinds == "control"
    n_labels = member[label].sum(axis=0)
    n_controls = member[control].sum(axis=0)
    for index in np.flatnonzero(n_labels != n_controls):
        raise InputError(
            f"{sidecar.path}: {n_controls[index]} control and {n_labels[index]} label volumes "
            f"at a PostLabelingDelay of {plds[first[order[index]]]:g} s; they must pair up"
        )
    n_averages = (member.sum(axis=0) - n_labels).astype(np.float32)
    signs = np.where(label, -1.0, 1.0)[:, None] * member
    return Differences(
        values @ signs.astype(np.float32) / n_averages,
        n_averages,
        durations[first[order]],
        plds[first[order]],
        values[..., control].mean(axis=-1) if control.any() else None,
        _variance(values, [member.T & kind for kind in (label, ~label)]),
    )


def _variance(
    values: NDArray[np.float32], kinds: Sequence[NDArray[np.bool_]]
) -> NDArray[np.float64] | None:
    """Variance of a difference, from repeats of the images that are subtracted.

    Parameters
    ----------
    values : ndarray of float32, shape (X, Y, Z, V)
    kinds : sequence of ndarray of bool, shape (G, V)
        Of each kind of image, which are repeats of one another, a row for each group.
    """
    total, found = np.zeros(values.shape[:3]), False
    for groups in kinds:
        repeated = [group for group in groups if group.sum() > 1]
        for group in repeated:
            scatter = values[..., group].astype(np.float64)
            total += scatter.var(axis=-1, ddof=1) / len(repeated)
            found = True
    return total if found else None


def _decode(
    values: NDArray[np.float32],
    kinds: NDArray[np.str_],
    durations: NDArray[np.float64],
    plds: NDArray[np.float64],
    sidecar: Sidecar,
    notes: list[str],
) -> Differences:
    encoded = time_encoding(sidecar)
    size, n_sub_boluses = encoded.matrix.shape
    if len(kinds) % size:
        raise InputError(
            f"{sidecar.path}: {len(kinds)} encoded volumes are no whole number of cycles "
            f"of {size} images"
        )
    for key, times in (("LabelingDuration", durations), ("PostLabelingDelay", plds)):
        if np.ptp(times) > 10.0**-_SAME_TIME:
            raise InputError(
                f"{sidecar.path}: {key} varies between encoded volumes; state the one value "
                "of the whole train"
            )
    total = encoded.label_duration.sum()
    if abs(total - durations[0]) > 1e-3:
        raise InputError(
            f"{sidecar.path}: TimeEncodedSubBolusDurations add up to {total:g} s, but "
            f"LabelingDuration is {durations[0]:g} s; they must agree"
        )
    n_cycles = len(kinds) // size
    if not np.array_equal(kinds, encoded.volume_types * n_cycles):
        notes.append(
            "volume types of aslcontext.tsv differ from the rows of the encoding matrix; "
            "the matrix was used"
        )
    cycles = values.reshape(*values.shape[:-1], n_cycles, size).mean(axis=-2)
    scatter = _variance(values, [np.tile(np.eye(size, dtype=bool), n_cycles)])
    protocol = time_encoded_protocol(encoded.label_duration, plds[0])
    delta_m = encoding.decode(cycles, encoded.matrix, sign_flip=encoded.sign_flip)
    return Differences(
        delta_m.astype(np.float32),
        np.full(n_sub_boluses, n_cycles, np.float32),
        protocol.label_duration,
        protocol.pld,
        cycles[..., encoded.all_control].mean(axis=-1) if encoded.all_control.any() else None,
        # a difference is the sum of all images of a cycle, times 2 / N
        None if scatter is None else scatter * 4.0 / size,
    )


def _matrix(sidecar: Sidecar) -> NDArray[np.float64]:
    try:
        if sidecar.metadata.get("TimeEncodedMatrix") is not None:
            matrix = encoding.check_matrix(sidecar.metadata["TimeEncodedMatrix"])
        else:
            order = require(sidecar, "TimeEncodedMatrixType")
            if order == "custom":
                require(sidecar, "TimeEncodedMatrix")
            matrix = encoding.encoding_matrix(int(number(sidecar, "TimeEncodedMatrixSize")), order)
    except InputError as error:
        fault = str(error).removeprefix(f"{sidecar.path}: ")
        raise InputError(f"{sidecar.path}: {fault}") from None
    if "TimeEncodedMatrixSize" in sidecar.metadata:
        size = number(sidecar, "TimeEncodedMatrixSize")
        if size != len(matrix):
            raise InputError(
                f"{sidecar.path}: TimeEncodedMatrixSize is {size:g}, "
                f"but the encoding matrix has {len(matrix)} rows"
            )
    return matrix
