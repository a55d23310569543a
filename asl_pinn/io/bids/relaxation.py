"""T1 of arterial blood and of tissue: as the user gives them, else by the field strength."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition.constants import RELAXATION_TIMES, relaxation_times
from asl_pinn.acquisition.protocol import MAX_SECONDS
from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import IMAGE_EXTENSIONS, AslRun
from asl_pinn.io.bids.images import Image, check_same_grid, load_image
from asl_pinn.io.bids.participants import Constant, blood_of_participant
from asl_pinn.io.bids.sidecar import Sidecar, number

_USUAL_FIELD = 3.0
_SIDECAR_KEYS = {"t1_blood": "T1Blood", "t1_tissue": "T1Tissue"}
_MEANINGS = {"t1_blood": "T1 of arterial blood", "t1_tissue": "T1 of tissue"}


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """Longitudinal relaxation times of a run.

    Attributes
    ----------
    t1_blood : float
        Of arterial blood [s].
    t1_tissue : ndarray of float32, shape (X, Y, Z)
        Of tissue [s].
    t1_map : Path or None
        The image of T1 of tissue, where one was read.
    constants : dict
        T1Blood, T1BloodSource, T1Tissue and T1TissueSource, as a sidecar states them; without
        those of tissue where an image was read.
    """

    t1_blood: float
    t1_tissue: NDArray[np.float32]
    t1_map: Path | None
    constants: dict[str, float | str]


def field_strength(sidecar: Sidecar) -> float:
    """Field strength of the scanner [T]; 3 T where none is stated."""
    stated = sidecar.metadata.get("MagneticFieldStrength") is not None
    return number(sidecar, "MagneticFieldStrength") if stated else _USUAL_FIELD


def read_relaxation(
    run: AslRun,
    series: Image,
    t1_tissue: float | Path | Literal["map"] | None,
    t1_blood: float | None,
    notes: list[str],
) -> Relaxation:
    """T1 of arterial blood and of tissue of a run.

    Parameters
    ----------
    run : AslRun
        MagneticFieldStrength in its sidecar decides on what is not given.
    series : Image
        The ASL series, whose grid a T1 map must have.
    t1_tissue : float or Path or 'map' or None
        One T1 [s], an image of T1 [s], or 'map' for the participant's anat/*_T1map.nii[.gz].
    t1_blood : float or None
        T1 of arterial blood [s]; else that of the participant in participants.tsv, if it has one.
    notes : list of str
        Gets a line where the field strength is not stated, or is another than 3 T, or T1 of blood
        is that of the participant.

    Returns
    -------
    Relaxation

    Raises
    ------
    InputError
        If a value is out of range, a T1 map is missing or unsound, or what is not given is not
        known at the field strength.
    """
    options = {"t1_blood": t1_blood, "t1_tissue": t1_tissue}
    constants = {
        name: _given(name, value)
        for name, value in options.items()
        if isinstance(value, (int, float))
    }
    if t1_blood is None:
        own = blood_of_participant(run, field_strength(run.sidecar), notes)
        constants |= {} if own is None else {"t1_blood": own}
    missing = [n for n, value in options.items() if value is None and n not in constants]
    if missing:
        constants |= _by_field_strength(run.sidecar, missing, notes)
    stated: dict[str, float | str] = {}
    for name, constant in constants.items():
        key = _SIDECAR_KEYS[name]
        stated |= {key: constant.value, f"{key}Source": constant.source}
    blood = constants["t1_blood"].value
    if "t1_tissue" in constants:
        shape = series.values.shape[:3]
        t1 = np.full(shape, constants["t1_tissue"].value, np.float32)
        return Relaxation(blood, t1, None, stated)
    path = _find_t1_map(run) if t1_tissue == "map" else Path(str(t1_tissue))
    return Relaxation(blood, _load_t1_map(path, series), path, stated)


def _given(name: str, value: float) -> Constant:
    if not 0.0 < value <= MAX_SECONDS:
        raise InputError(f"--{name} must be a positive number of seconds, it is {value:g}")
    return Constant(value, f"--{name}")


def _by_field_strength(
    sidecar: Sidecar, missing: Sequence[str], notes: list[str]
) -> dict[str, Constant]:
    """Constants that nobody gave; those of 3 T where no field strength is stated."""
    is_stated = sidecar.metadata.get("MagneticFieldStrength") is not None
    field = field_strength(sidecar)
    known = relaxation_times(field)
    if known is None:
        fields = ", ".join(f"{times.field_strength:g}" for times in RELAXATION_TIMES)
        raise InputError(
            f"{sidecar.path}: MagneticFieldStrength is {field:g} T, and T1 is known at "
            f"{fields} T alone; give {' and '.join(f'--{name}' for name in missing)} in seconds"
        )
    at_field = f"at {known.field_strength:g} T"
    by_field = {
        "t1_blood": Constant(known.t1_blood, f"{known.blood_source}, {at_field}"),
        "t1_tissue": Constant(known.t1_tissue, f"{known.tissue_source}, {at_field}"),
    }
    constants = {name: by_field[name] for name in missing}
    if not is_stated:
        values = " and ".join(f"{_MEANINGS[n]} {c.value:g} s" for n, c in constants.items())
        notes.append(f"MagneticFieldStrength is not stated: {values}, as {at_field}")
    elif known.field_strength != _USUAL_FIELD:
        notes += [f"{_MEANINGS[n]} {c.value:g} s ({c.source})" for n, c in constants.items()]
    return constants


def _load_t1_map(path: Path, series: Image) -> NDArray[np.float32]:
    image = load_image(path)
    check_same_grid(image, series)
    finite = image.values[np.isfinite(image.values)]
    if not (finite > 0.0).any():
        raise InputError(f"{path}: T1 is nowhere positive; give a map of T1 in seconds")
    if np.median(finite[finite > 0.0]) > MAX_SECONDS:
        raise InputError(f"{path}: T1 values are too long for seconds; BIDS wants seconds")
    return image.values


def _find_t1_map(run: AslRun) -> Path:
    participant = run.bids_dir / f"sub-{run.entities['sub']}"
    for folder in dict.fromkeys((run.path.parent.parent / "anat", participant / "anat")):
        maps = [path for end in IMAGE_EXTENSIONS for path in sorted(folder.glob(f"*_T1map{end}"))]
        if len(maps) > 1:
            names = ", ".join(path.name for path in maps)
            raise InputError(f"{folder}: several T1 maps ({names}); name one with --t1_tissue")
        if maps:
            return maps[0]
    raise InputError(f"{participant / 'anat'}: no *_T1map.nii.gz; give T1 in seconds instead")
