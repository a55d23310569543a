"""Equilibrium magnetisation M0, from wherever a dataset keeps it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.images import Image, check_same_grid, load_image
from asl_pinn.io.bids.inheritance import file_entities, inherited_sidecar
from asl_pinn.io.bids.sidecar import Sidecar, brief, flag, number, numbers, require
from asl_pinn.io.bids.timing import check_seconds

_RELAXED = 5.0
_REPETITION_TIMES = ("RepetitionTimePreparation", "RepetitionTime")


def read_m0(
    run: AslRun,
    series: Image,
    types: Sequence[str],
    control: NDArray[np.float32] | None,
    notes: list[str],
) -> tuple[NDArray[np.float32], Path]:
    """M0 of a run, as its M0Type says.

    Parameters
    ----------
    run : AslRun
    series : Image
        The ASL series, four-dimensional.
    types : sequence of str
        Volume types of the series.
    control : ndarray of float32, shape (X, Y, Z), or None
        Mean control image.
    notes : list of str
        Gets a line for each thing that a user should know.

    Returns
    -------
    m0 : ndarray of float32, shape (X, Y, Z)
        Mean of the M0 volumes, in the unit of the series.
    source : Path
        The image or sidecar that it came from.

    Raises
    ------
    InputError
        If there is no M0, or it is on another grid, zero or negative everywhere, or was taken at
        a repetition time that cannot be.
    """
    kind = require(run.sidecar, "M0Type")
    source, timing = run.path, run.sidecar
    taken = np.array(types) == ("m0scan" if kind == "Included" else "control")
    if kind == "Separate":
        source = _separate_path(run)
        timing = inherited_sidecar(source, run.bids_dir)
        image = _load_scan(source, series)
        m0, taken = image.mean(axis=-1), np.ones(image.shape[-1], bool)
    elif kind == "Included":
        if not taken.any():
            raise InputError(
                f"{run.context}: M0Type is 'Included', but no volume is an m0scan; "
                "correct M0Type or the volume types"
            )
        m0 = series.values[..., taken].mean(axis=-1)
    elif kind == "Estimate":
        m0, source = _estimate(run, series), run.sidecar.path
    elif kind == "Absent":
        m0 = _control_as_m0(run, control)
        notes.append("M0Type is 'Absent': the mean control image was taken as M0")
    else:
        raise InputError(
            f"{run.sidecar.path}: M0Type is {brief(kind)}; "
            "use Separate, Included, Estimate or Absent"
        )
    if not (m0[np.isfinite(m0)] > 0.0).any():
        raise InputError(f"{source}: M0 is nowhere positive; quantification divides by it")
    if kind != "Estimate":
        _check_relaxed(timing, taken, source, notes)
    return m0, source


def _check_relaxed(
    timing: Sidecar, taken: NDArray[np.bool_], source: Path, notes: list[str]
) -> None:
    """Note an M0 that may not have relaxed: after a time TR, 1 - exp(-TR/T1) of it is back."""
    key = next((key for key in _REPETITION_TIMES if timing.metadata.get(key) is not None), None)
    if key is None:
        notes.append(
            f"the repetition time of M0 ({source.name}) is not stated, so that incomplete "
            "relaxation could not be checked: CBF may come out high"
        )
        return
    times = numbers(timing, key)
    times = times[taken] if taken.any() and len(times) == len(taken) else times
    check_seconds(timing, key, times)
    if times.min() < _RELAXED:
        notes.append(
            f"M0 of {source.name} was taken at a repetition time of {times.min():g} s and not "
            "corrected for incomplete relaxation: CBF may come out high"
        )


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
