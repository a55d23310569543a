"""Equilibrium magnetisation M0, from wherever a dataset keeps it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition.calibration import Calibration
from asl_pinn.acquisition.constants import relaxation_times
from asl_pinn.acquisition.equilibrium import (
    Reference,
    from_reference,
    reference,
    relaxed_fraction,
    relaxed_fraction_of_tissues,
    smoothed,
    without_rim,
)
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.images import Image, check_same_grid, load_image
from asl_pinn.io.bids.inheritance import file_entities, inherited_sidecar
from asl_pinn.io.bids.relaxation import Relaxation, field_strength
from asl_pinn.io.bids.sidecar import (
    Sidecar,
    brief,
    flag,
    number,
    numbers,
    read_json,
    require,
)
from asl_pinn.io.bids.timing import check_seconds
from asl_pinn.io.bids.tissues import Fractions

_RELAXED = 5.0
_REPETITION_TIMES = ("RepetitionTimePreparation", "RepetitionTime")
_NAMES = {"CSF": "cerebrospinal fluid", "WM": "white matter"}
_PURE, _LEAST_REFERENCE = 0.9, 10  # fraction of a reference tissue, and voxels of it


@dataclasses.dataclass(frozen=True)
class MeasuredM0:
    """Images of M0 as they were taken.

    Attributes
    ----------
    volumes : ndarray of float32, shape (X, Y, Z, V)
        In the unit of the series.
    times : ndarray, shape (V,) or (1,), or None
        Repetition times [s]; None where they are not known, or there are none, as of a number.
    kind : str
        M0Type, or '--m0'.
    source : Path or None
        The image or sidecar that they came from; None for a number of the user's.
    """

    volumes: NDArray[np.float32]
    times: FloatArray | None
    kind: str
    source: Path | None

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the volumes, shape (X, Y, Z)."""
        return self.volumes.mean(axis=-1)


def read_m0(
    run: AslRun,
    series: Image,
    types: Sequence[str],
    control: NDArray[np.float32] | None,
    given: str | None,
    notes: list[str],
) -> MeasuredM0:
    """M0 of a run, as the user or else its M0Type says.

    Parameters
    ----------
    run : AslRun
    series : Image
        The ASL series, four-dimensional.
    types : sequence of str
        Volume types of the series.
    control : ndarray of float32, shape (X, Y, Z), or None
        Mean control image.
    given : str or None
        Path of an image, or a number, in place of what M0Type says.
    notes : list of str
        Gets a line for each thing that a user should know.

    Returns
    -------
    MeasuredM0

    Raises
    ------
    InputError
        If there is no M0, or it is on another grid, zero or negative everywhere, or was taken at
        a repetition time that cannot be.
    """
    found = _stated(run, series, types, control, notes) if given is None else _given(given, series)
    if not (found.mean[np.isfinite(found.mean)] > 0.0).any():
        where = found.source or f"--m0={given}"
        raise InputError(f"{where}: M0 is nowhere positive; quantification divides by it")
    return found


def calibrate(
    measured: MeasuredM0,
    run: AslRun,
    inside: NDArray[np.bool_],
    series: Image,
    relaxation: Relaxation,
    fractions: Fractions,
    options: Calibration,
    notes: list[str],
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """M0 of tissue in equilibrium, from the images that were taken of it.

    Parameters
    ----------
    measured : MeasuredM0
    run : AslRun
    inside : ndarray of bool, shape (X, Y, Z)
        Mask of the brain.
    series : Image
        The ASL series.
    relaxation : Relaxation
        T1 of tissue.
    fractions : Fractions
        Of tissues, as far as they are known.
    options : Calibration
        What to correct, and the reference.
    notes : list of str
        Gets a line for each correction, with its size.

    Returns
    -------
    m0 : ndarray of float32, shape (X, Y, Z)
    stated : dict
        What was done, as sidecar keys.

    Raises
    ------
    InputError
        If a rim leaves nothing, or a reference tissue is not known or hardly there.
    """
    affine, raw = series.affine, measured.mean
    stated: dict[str, Any] = {
        "M0Type": measured.kind,
        "M0Scale": options.m0_scale,
        "M0Reference": options.m0_reference,
        "M0RimVoxels": options.m0_rim,
        "M0SmoothingFWHM": options.m0_smoothing,
    }
    tissue = _reference(run, options)
    m0 = options.m0_scale * _relaxed(measured, relaxation, fractions, tissue, options)
    m0 = m0.astype(np.float32)
    stated |= _relaxation_stated(measured, raw, m0 / options.m0_scale, inside, tissue, notes)
    if options.m0_rim:
        before = m0
        m0 = without_rim(m0, inside, options.m0_rim, affine)
        rim = (m0 != before) & inside
        change = _percent(before, m0, rim)
        notes.append(
            f"M0 of {np.count_nonzero(rim)} voxels at the edge of the mask was replaced by that "
            f"inside, which changes it there by {change:+.0f} % (median)"
        )
    blurred = smoothed(m0, inside, options.m0_smoothing, affine) if options.m0_smoothing else m0
    if tissue is None:
        return blurred, stated
    where, mask = _reference_voxels(series, inside & (m0 > 0.0), fractions, tissue, options)
    sensitivity = blurred / np.median(blurred[inside]) if options.m0_smoothing else 1.0
    made, value = from_reference(m0, where, tissue, options.partition_coefficient, sensitivity)
    n_reference = int(np.count_nonzero(where))
    notes.append(
        f"M0 from {_NAMES[tissue.label]}: {value:.5g} in {n_reference} voxels ({mask}); its T2* "
        "is not that of blood, which is not corrected for, so that CBF depends on the echo time"
    )
    return made, {**stated, "M0ReferenceValue": value, "M0ReferenceVoxels": n_reference}


def _stated(
    run: AslRun,
    series: Image,
    types: Sequence[str],
    control: NDArray[np.float32] | None,
    notes: list[str],
) -> MeasuredM0:
    kind = require(run.sidecar, "M0Type")
    source, timing = run.path, run.sidecar
    taken = np.array(types) == ("m0scan" if kind == "Included" else "control")
    if kind == "Separate":
        source = _separate_path(run)
        timing = inherited_sidecar(source, run.bids_dir)
        volumes = _load_scan(source, series)
        taken = np.ones(volumes.shape[-1], bool)
    elif kind == "Included":
        if not taken.any():
            raise InputError(
                f"{run.context}: M0Type is 'Included', but no volume is an m0scan; "
                "correct M0Type or the volume types"
            )
        volumes = series.values[..., taken]
    elif kind == "Estimate":
        return MeasuredM0(_estimate(run, series)[..., None], None, kind, run.sidecar.path)
    elif kind == "Absent":
        volumes = _control_as_m0(run, control)[..., None]
        notes.append("M0Type is 'Absent': the mean control image was taken as M0")
    else:
        raise InputError(
            f"{run.sidecar.path}: M0Type is {brief(kind)}; "
            "use Separate, Included, Estimate or Absent"
        )
    times = _repetition_times(timing, taken, source, notes)
    if kind == "Absent" and times is not None:
        times = times.min(keepdims=True)  # of the one mean image
    return MeasuredM0(volumes, times, kind, source)


def _given(given: str, series: Image) -> MeasuredM0:
    """M0 that the user names: a number, or an image with or without a sidecar beside it."""
    try:
        value = float(given)
    except ValueError:
        value = None
    if value is not None:
        if not 0.0 < value < float("inf"):
            raise InputError(f"--m0 must be a positive number or an image, it is {given}")
        return MeasuredM0(
            np.full((*series.values.shape[:3], 1), value, np.float32), None, "--m0", None
        )
    path = Path(given)
    volumes = _load_scan(path, series)
    beside = path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.nii')}.json")
    keys = read_json(beside) if beside.is_file() else {}
    times = _repetition_times(Sidecar(beside, keys), np.ones(volumes.shape[-1], bool), path, [])
    return MeasuredM0(volumes, times, "--m0", path)


def _repetition_times(
    timing: Sidecar, taken: NDArray[np.bool_], source: Path, notes: list[str]
) -> FloatArray | None:
    """Repetition time of each M0 volume, or one of all; noted where it is not known."""
    key = next((key for key in _REPETITION_TIMES if timing.metadata.get(key) is not None), None)
    if key is None:
        notes.append(
            f"the repetition time of M0 ({source.name}) is not stated, so that incomplete "
            "relaxation could not be checked: CBF may come out high"
        )
        return None
    times = numbers(timing, key)
    times = times[taken] if taken.any() and len(times) == len(taken) else times
    check_seconds(timing, key, times)
    return times if len(times) == np.count_nonzero(taken) else times.min(keepdims=True)


def _relaxed(
    measured: MeasuredM0,
    relaxation: Relaxation,
    fractions: Fractions,
    tissue: Reference | None,
    options: Calibration,
) -> FloatArray:
    """Mean of the volumes, each divided by the part of M0 that was back when it was taken."""
    times = measured.times
    if times is None or not options.m0_tr_correction:
        return measured.mean

    def back(time: float) -> FloatArray | float:
        if tissue is not None:
            return relaxed_fraction(time, tissue.t1)
        if time >= _RELAXED:
            return 1.0
        if fractions.gm is None or fractions.wm is None:
            return relaxed_fraction(time, relaxation.t1_tissue)
        return relaxed_fraction_of_tissues(
            time, fractions.gm, fractions.wm, fractions.t1_gm, fractions.t1_wm
        )

    each = np.broadcast_to(times, measured.volumes.shape[-1])
    parts = [measured.volumes[..., v] / back(float(time)) for v, time in enumerate(each)]
    return np.mean(parts, axis=0)


def _relaxation_stated(
    measured: MeasuredM0,
    raw: FloatArray,
    relaxed: FloatArray,
    inside: NDArray[np.bool_],
    tissue: Reference | None,
    notes: list[str],
) -> dict[str, Any]:
    """The correction for incomplete relaxation, told and as sidecar keys."""
    if measured.times is None:
        return {}
    name = "M0" if measured.source is None else f"M0 of {measured.source.name}"
    shortest = float(measured.times.min())
    change = _percent(raw, relaxed, inside)
    taken = f"{name} was taken at a repetition time of {shortest:g} s"
    if change > 0.0:
        of = "tissue" if tissue is None else _NAMES[tissue.label]
        notes.append(
            f"{taken} and divided by 1 - exp(-TR/T1), with T1 of {of}: this raises it by "
            f"{change:.1f} % (median)"
        )
    elif shortest < _RELAXED:
        notes.append(f"{taken} and not corrected for incomplete relaxation: CBF may come out high")
    return {
        "M0RepetitionTime": measured.times.tolist(),
        "M0RelaxationCorrectionPercent": round(change, 3),
    }


def _percent(before: FloatArray, after: FloatArray, where: NDArray[np.bool_]) -> float:
    """Median change in voxels [%]."""
    sound = where & np.isfinite(before) & np.isfinite(after) & (before > 0.0)
    if not sound.any():
        return 0.0
    return float(np.median(100.0 * (after[sound].astype(np.float64) / before[sound] - 1.0)))


def _reference(run: AslRun, options: Calibration) -> Reference | None:
    if options.m0_reference == "voxel":
        return None
    field = field_strength(run.sidecar)
    known = relaxation_times(field)
    if known is None:
        raise InputError(
            f"{run.sidecar.path}: MagneticFieldStrength is {field:g} T, where T1 of a reference "
            "tissue is not known; use --m0_reference=voxel"
        )
    return reference(options.m0_reference.upper(), known.t1_white_matter)


def _reference_voxels(
    series: Image,
    sound: NDArray[np.bool_],
    fractions: Fractions,
    tissue: Reference,
    options: Calibration,
) -> tuple[NDArray[np.bool_], str]:
    """Voxels of the reference tissue, and how they are known."""
    if options.m0_reference_mask is not None:
        path = Path(options.m0_reference_mask)
        image = load_image(path)
        check_same_grid(image, series)
        where, name = (image.values > 0.5) & np.isfinite(series.values).all(axis=-1), path.name
    elif fractions.gm is None or fractions.wm is None:
        raise InputError(
            f"{series.path}: --m0_reference={options.m0_reference} needs to know where "
            f"{_NAMES[tissue.label]} is: give --m0_reference_mask, --gm and --wm, or a T1 map"
        )
    else:
        fluid = 1.0 - fractions.gm - fractions.wm
        part = fluid if tissue.label == "CSF" else fractions.wm
        where, name = sound & (part >= _PURE), f"fraction above {_PURE:g}"
    if np.count_nonzero(where) < _LEAST_REFERENCE:
        raise InputError(
            f"{series.path}: only {np.count_nonzero(where)} voxels of {_NAMES[tissue.label]} for "
            f"--m0_reference ({name}), {_LEAST_REFERENCE} are needed; give another "
            "--m0_reference_mask, or use --m0_reference=voxel"
        )
    return where, name


def _separate_path(run: AslRun) -> Path:
    same_name = [scan for scan in run.m0scans if _has_same_name(scan, run)]
    scans = same_name or [scan for scan in run.m0scans if _is_intended_for(scan, run)]
    if len(scans) > 1:
        names = ", ".join(scan.name for scan in scans)
        raise InputError(f"{run.path}: several M0 scans are intended for it ({names}); keep one")
    if not scans:
        raise InputError(
            f"{run.path.with_name(f'{run.stem}_m0scan.nii.gz')}: no such file, though M0Type is "
            "'Separate'; add it, name the ASL series in its IntendedFor, or correct M0Type"
        )
    return scans[0]


def _has_same_name(scan: Path, run: AslRun) -> bool:
    return scan.parent == run.path.parent and file_entities(scan) == run.entities


def _is_intended_for(scan: Path, run: AslRun) -> bool:
    sidecar = inherited_sidecar(scan, run.bids_dir)
    intended = sidecar.metadata.get("IntendedFor", [])
    targets = intended if isinstance(intended, list) else [intended]
    if not all(isinstance(target, str) for target in targets):
        raise InputError(
            f"{sidecar.path}: IntendedFor must be a file or a list of files of the dataset"
        )
    path = f"/{run.path.as_posix()}"
    return any(
        path.endswith(f"/{target.removeprefix('bids::').removeprefix('/')}") for target in targets
    )


def _load_scan(path: Path, series: Image) -> NDArray[np.float32]:
    """Volumes of an M0 scan, shape (X, Y, Z, V)."""
    image = load_image(path, ndim=(3, 4))
    check_same_grid(image, series)
    return image.values if image.values.ndim == 4 else image.values[..., None]


def _estimate(run: AslRun, series: Image) -> NDArray[np.float32]:
    value = number(run.sidecar, "M0Estimate")
    if value <= 0.0:
        raise InputError(f"{run.sidecar.path}: M0Estimate must be positive, it is {value:g}")
    return np.full(series.values.shape[:3], value, np.float32)


def _control_as_m0(run: AslRun, control: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if control is None:
        raise InputError(
            f"{run.path}: M0Type is 'Absent' and the series has no control images; "
            "add an M0 scan or an M0Estimate"
        )
    if flag(run.sidecar, "BackgroundSuppression"):
        raise InputError(
            f"{run.path}: M0Type is 'Absent' and background suppression spoils the control "
            "images as M0; add an M0 scan or an M0Estimate"
        )
    return control
