"""Time-encoded series: matrix and delays as a sidecar states them, ours or ExploreASL's."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition import encoding
from asl_pinn.acquisition.protocol import time_encoded_protocol
from asl_pinn.errors import InputError
from asl_pinn.io.bids.sidecar import Sidecar, flag, number, numbers, require
from asl_pinn.io.bids.timing import check_seconds

_MATRIX_KEYS = ("TimeEncodedMatrixSize", "TimeEncodedMatrix")
_NONE: tuple[Any, ...] = (
    None,
    0,
    [],
    "",
    False,
)  # as other tools state that a series is not encoded
_EXPLOREASL: dict[str, encoding.MatrixOrder] = {"Hadamard": "hadamard", "Walsh": "walsh"}
_EXPLOREASL_SIZES = (4, 8)
_SAME_TIME = 1e-3  # seconds within which times must agree to be one
_GAP = 0.05  # seconds by which a bolus may begin after the end of the one before, or before it


@dataclasses.dataclass(frozen=True)
class TimeEncoding:
    """How the volumes of a time-encoded series were labelled.

    Attributes
    ----------
    matrix : ndarray, shape (N, N - 1)
        +1 for control, -1 for label, a row per image, a column per sub-bolus.
    sign_flip : bool
        True where the scanner acquired the complement.
    """

    matrix: NDArray[np.float64]
    sign_flip: bool

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
        True where a matrix is stated, of another size than 0, and no volume is a difference
        already.
    """
    stated = any(not _is_none(sidecar.metadata.get(key)) for key in _MATRIX_KEYS)
    return stated and "deltam" not in types


def encoding_of(sidecar: Sidecar, notes: list[str]) -> TimeEncoding:
    """Time encoding that a sidecar states.

    Parameters
    ----------
    sidecar : Sidecar
        TimeEncodedMatrixSize (N) and TimeEncodedMatrixType ('hadamard', 'walsh', 'custom', or
        'Hadamard', 'Walsh' for the matrices of ExploreASL), or TimeEncodedMatrix (N rows of N - 1
        entries +1 or -1), which wins; also as ExploreASL has it, a row for each delay, with or
        without a first row of ones. TimeEncodedSignFlip; unless stated, true for ExploreASL's
        forms where the Manufacturer is Philips, as there.
    notes : list of str
        Gets a line where the form is that of ExploreASL.

    Returns
    -------
    TimeEncoding

    Raises
    ------
    InputError
        If a key is missing, contradicts another or cannot be decoded.
    """
    try:
        matrix, form = _matrix(sidecar)
    except InputError as error:
        fault = str(error).removeprefix(f"{sidecar.path}: ")
        raise InputError(f"{sidecar.path}: {fault}") from None
    if not _is_none(sidecar.metadata.get("TimeEncodedMatrixSize")):
        size = number(sidecar, "TimeEncodedMatrixSize")
        if size != len(matrix):
            raise InputError(
                f"{sidecar.path}: TimeEncodedMatrixSize is {size:g}, "
                f"but the encoding matrix has {len(matrix)} rows"
            )
    of_philips = "philips" in str(sidecar.metadata.get("Manufacturer", "")).lower()
    flipped = bool(form) and of_philips
    stated = sidecar.metadata.get("TimeEncodedSignFlip") is not None
    if form:
        sign = ", and its sign is exchanged, as that of Philips" if flipped and not stated else ""
        notes.append(f"{form}{sign}")
    return TimeEncoding(matrix, flag(sidecar, "TimeEncodedSignFlip", default=flipped))


def sub_bolus_durations(sidecar: Sidecar, n_sub_boluses: int) -> NDArray[np.float64]:
    """Durations of the sub-boluses that a sidecar states.

    Parameters
    ----------
    sidecar : Sidecar
        TimeEncodedSubBolusDurations (N - 1 seconds, earliest first).
    n_sub_boluses : int
        Those of the matrix.

    Returns
    -------
    ndarray, shape (N - 1,)
        In seconds.

    Raises
    ------
    InputError
        If they are missing, unsound, or not as many.
    """
    durations = numbers(sidecar, "TimeEncodedSubBolusDurations")
    check_seconds(sidecar, "TimeEncodedSubBolusDurations", durations)
    if len(durations) != n_sub_boluses:
        raise InputError(
            f"{sidecar.path}: TimeEncodedSubBolusDurations has {len(durations)} values for the "
            f"{n_sub_boluses} sub-boluses of the encoding matrix"
        )
    return durations


def decoded(
    images: NDArray[np.float32],
    encoded: TimeEncoding,
    durations: NDArray[np.float64],
    plds: NDArray[np.float64],
    n_cycles: int,
    sidecar: Sidecar,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Differences of a train of sub-boluses.

    Parameters
    ----------
    images : ndarray of float32, shape (X, Y, Z, N)
        Mean of its cycles [a.u.].
    encoded : TimeEncoding
    durations, plds : ndarray, shape (N,)
        LabelingDuration and PostLabelingDelay of each image [s].
    n_cycles : int
        How many there were.
    sidecar : Sidecar

    Returns
    -------
    delta_m : ndarray of float32, shape (X, Y, Z, N - 1)
        Earliest sub-bolus first.
    n_averages : ndarray of float32, shape (N - 1,)
    label_duration, pld : ndarray, shape (N - 1,)
        In seconds.

    Raises
    ------
    InputError
        If the times are missing or contradict one another.
    """
    n_sub_boluses = encoded.matrix.shape[1]
    if np.ptp(plds) <= _SAME_TIME:
        durations, plds = _of_whole_train(durations, plds, n_sub_boluses, sidecar)
        order = np.arange(n_sub_boluses)
    else:
        durations, plds = _of_each_image(durations, plds, sidecar)
        order = np.argsort(-plds, kind="stable")
    matrix = encoded.matrix[:, order]
    delta_m = encoding.decode(images, matrix, sign_flip=encoded.sign_flip)
    averages = np.full(n_sub_boluses, n_cycles, np.float32)
    return delta_m.astype(np.float32), averages, durations[order], plds[order]


def _of_whole_train(
    durations: NDArray[np.float64], plds: NDArray[np.float64], n_sub_boluses: int, sidecar: Sidecar
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times of sub-boluses whose train has one LabelingDuration and one PostLabelingDelay."""
    own = sub_bolus_durations(sidecar, n_sub_boluses)
    check_seconds(sidecar, "LabelingDuration", durations)
    if np.ptp(durations) > _SAME_TIME:
        raise InputError(
            f"{sidecar.path}: LabelingDuration varies between encoded volumes; state the one value "
            "of the whole train"
        )
    total = own.sum()
    if abs(total - durations[0]) > _SAME_TIME:
        raise InputError(
            f"{sidecar.path}: TimeEncodedSubBolusDurations add up to {total:g} s, but "
            f"LabelingDuration is {durations[0]:g} s; they must agree"
        )
    protocol = time_encoded_protocol(own, plds[0])
    return np.asarray(protocol.label_duration), np.asarray(protocol.pld)


def _of_each_image(
    durations: NDArray[np.float64], plds: NDArray[np.float64], sidecar: Sidecar
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times of sub-boluses as ExploreASL has them: of each image, the first of which is none."""
    if not _is_none(sidecar.metadata.get("TimeEncodedSubBolusDurations")):
        raise InputError(
            f"{sidecar.path}: PostLabelingDelay varies between encoded volumes, and "
            "TimeEncodedSubBolusDurations is stated as well; state the one delay of the whole "
            "train, or leave the durations to LabelingDuration"
        )
    durations, plds = durations[1:], plds[1:]
    check_seconds(sidecar, "LabelingDuration", durations)
    order = np.argsort(-plds, kind="stable")
    ends, begins = plds[order][:-1], (plds + durations)[order][1:]
    if (np.abs(ends - begins) > _GAP).any():
        worst = int(np.argmax(np.abs(ends - begins)))
        raise InputError(
            f"{sidecar.path}: the sub-boluses of PostLabelingDelay and LabelingDuration do not "
            f"follow one another: one ends {ends[worst]:g} s before the readout, and the next "
            f"begins {begins[worst]:g} s before it; state both for each image, the first of a "
            "cycle aside"
        )
    return durations, plds


def _matrix(sidecar: Sidecar) -> tuple[NDArray[np.float64], str]:
    """Matrix in this package's form, and what to say where it was in another."""
    stated = sidecar.metadata.get("TimeEncodedMatrix")
    if not _is_none(stated):
        return _own_matrix(stated)
    order = require(sidecar, "TimeEncodedMatrixType")
    if order == "custom":
        require(sidecar, "TimeEncodedMatrix")
    size = int(number(sidecar, "TimeEncodedMatrixSize"))
    if not isinstance(order, str) or order not in _EXPLOREASL:
        return encoding.encoding_matrix(size, order), ""
    if size not in _EXPLOREASL_SIZES:
        raise InputError(
            f"TimeEncodedMatrixType {order!r}, with a capital, is a matrix of ExploreASL, of size "
            f"{' or '.join(map(str, _EXPLOREASL_SIZES))}, not {size}; state TimeEncodedMatrix"
        )
    columns = encoding.encoding_matrix(size, _EXPLOREASL[order])
    # Its rows are those of Sylvester or of sequency from the last to the first, but for one.
    reverse = (order, size) != ("Hadamard", 4)
    return (
        columns[:, ::-1] if reverse else columns,
        f"TimeEncodedMatrixType {order!r}, with a capital, is the matrix of ExploreASL",
    )


def _own_matrix(stated: Any) -> tuple[NDArray[np.float64], str]:
    """A stated matrix; one with a row for each delay is transposed."""
    try:
        table = np.asarray(stated, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return encoding.check_matrix(stated), ""  # which says what is wrong
    if table.ndim != 2:
        return encoding.check_matrix(table), ""
    n_rows, n_columns = table.shape
    if n_rows == n_columns and (table[0] == 1.0).all():
        table = table[1:]
    if table.shape[0] == n_columns - 1:
        said = "TimeEncodedMatrix has a row for each delay, as ExploreASL has it: transposed"
        return encoding.check_matrix(table.T), said
    return encoding.check_matrix(table), ""


def _is_none(value: Any) -> bool:
    return any(type(value) is type(none) and value == none for none in _NONE)
