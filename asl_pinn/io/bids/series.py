"""From the volumes of an ASL series to one difference image per delay."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.io.bids.encoded import decoded, encoding_of, is_time_encoded
from asl_pinn.io.bids.sidecar import Sidecar
from asl_pinn.io.bids.timing import bolus_duration, labeling_type, volume_times
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
    encoded = is_time_encoded(sidecar, types)
    durations = volume_times(sidecar, "LabelingDuration", types, zero=encoded)[used]
    plds = volume_times(sidecar, "PostLabelingDelay", types, zero=True)[used]
    if encoded:
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
    """Differences of encoded images, by the delays of their trains."""
    encoded = encoding_of(sidecar, notes)
    size = len(encoded.matrix)
    if len(kinds) % size:
        raise InputError(
            f"{sidecar.path}: {len(kinds)} encoded volumes are no whole number of cycles "
            f"of {size} images"
        )
    n_cycles = len(kinds) // size
    if not np.array_equal(kinds, encoded.volume_types * n_cycles):
        notes.append(
            "volume types of aslcontext.tsv differ from the rows of the encoding matrix; "
            "the matrix was used"
        )
    timing = np.stack([durations, plds], axis=-1).reshape(n_cycles, -1)
    _, first, train = np.unique(
        timing.round(_SAME_TIME), axis=0, return_index=True, return_inverse=True
    )
    cycles = values.reshape(*values.shape[:-1], n_cycles, size)
    controls, found = [], []
    for cycle in np.sort(first):
        members = train.ravel() == train.ravel()[cycle]
        own = slice(cycle * size, (cycle + 1) * size)
        mean = cycles[..., members, :].mean(axis=-2)
        found.append(decoded(mean, encoded, durations[own], plds[own], int(members.sum()), sidecar))
        controls.append(mean[..., encoded.all_control])
    image = np.tile(np.arange(size), n_cycles) + size * np.repeat(train.ravel(), size)
    scatter = _variance(values, [np.unique(image)[:, None] == image])
    control = np.concatenate(controls, axis=-1)
    delta_m, n_averages, own_durations, own_plds = (
        np.concatenate(part, axis=-1) for part in zip(*found, strict=True)
    )
    return Differences(
        delta_m,
        n_averages,
        own_durations,
        own_plds,
        control.mean(axis=-1) if control.shape[-1] else None,
        # a difference is the sum of all images of a cycle, times 2 / N
        None if scatter is None else scatter * 4.0 / size,
    )
