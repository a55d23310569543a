"""Equilibrium magnetisation M0, from wherever a dataset keeps it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asl_pinn.bids.dataset import AslRun
from asl_pinn.bids.images import Image, check_same_grid, load_image
from asl_pinn.bids.inheritance import file_entities, inherited_metadata
from asl_pinn.bids.sidecar import brief, flag, number, require
from asl_pinn.errors import InputError

_RELAXED = 5.0


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
        If there is no M0, or it is on another grid, zero or negative everywhere.
    """
    kind = require(run.sidecar, "M0Type")
    source, timing = run.path, run.sidecar.metadata
    if kind == "Separate":
        source = _separate_path(run)
        timing = inherited_metadata(source, run.bids_dir)
        m0 = _mean_volume(source, series)
    elif kind == "Included":
        included = np.array(types) == "m0scan"
        if not included.any():
            raise InputError(
                f"{run.context}: M0Type is 'Included', but no volume is an m0scan; "
                "correct M0Type or the volume types"
            )
        m0 = series.values[..., included].mean(axis=-1)
    elif kind == "Estimate":
        m0, source, timing = _estimate(run, series), run.sidecar.path, {}
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
    repetition_time = timing.get("RepetitionTimePreparation")
    if isinstance(repetition_time, (int, float)) and repetition_time < _RELAXED:
        notes.append(
            f"M0 of {source.name} was taken at a repetition time of {repetition_time:g} s and not "
            "corrected for incomplete relaxation: CBF may come out high"
        )
    return m0, source


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
    intended = inherited_metadata(scan, run.bids_dir).get("IntendedFor", [])
    targets = intended if isinstance(intended, list) else [intended]
    if not all(isinstance(target, str) for target in targets):
        sidecar = scan.with_name(f"{scan.name.split('.')[0]}.json")
        raise InputError(f"{sidecar}: IntendedFor must be a file or a list of files of the dataset")
    path = f"/{run.path.as_posix()}"
    return any(
        path.endswith(f"/{target.removeprefix('bids::').removeprefix('/')}") for target in targets
    )


def _mean_volume(path: Path, series: Image) -> NDArray[np.float32]:
    image = load_image(path, ndim=(3, 4))
    check_same_grid(image, series)
    return image.values if image.values.ndim == 3 else image.values.mean(axis=-1)


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
