"""Fractions of grey and white matter: from probability maps, or made from a map of T1."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition.constants import (
    RELAXATION_TIMES,
    T1_FLUID,
    T1_TISSUE,
    T1_WHITE_MATTER,
    relaxation_times,
)
from asl_pinn.arrays import FloatArray
from asl_pinn.data import check_fractions
from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.images import Image, check_same_grid, load_image
from asl_pinn.io.bids.places import anatomy_folders, is_of_run
from asl_pinn.io.bids.relaxation import Relaxation, field_strength

Source = Path | Literal["derivatives", "t1"]
"""Where fractions come from: an image, the dataset's derivatives, or the map of T1."""


@dataclasses.dataclass(frozen=True)
class Fractions:
    """What is known of the tissues of a run.

    Attributes
    ----------
    gm, wm : ndarray of float32, shape (X, Y, Z), or None
        Fractions of grey and white matter; None where they are not known.
    t1_gm, t1_wm : float
        T1 of pure grey and white matter [s].
    sources : tuple of Path
        Images that were read.
    constants : dict
        T1GreyMatter, T1WhiteMatter and their sources, as a sidecar states them, where the fractions
        are known.
    """

    gm: NDArray[np.float32] | None = None
    wm: NDArray[np.float32] | None = None
    t1_gm: float = T1_TISSUE
    t1_wm: float = T1_WHITE_MATTER
    sources: tuple[Path, ...] = ()
    constants: dict[str, float | str] = dataclasses.field(default_factory=dict)


def read_fractions(
    run: AslRun,
    series: Image,
    gm: Source | None,
    wm: Source | None,
    relaxation: Relaxation,
    notes: list[str],
) -> Fractions:
    """Fractions of grey and white matter of a run.

    Parameters
    ----------
    run : AslRun
        MagneticFieldStrength in its sidecar decides on the T1 of pure tissue.
    series : Image
        The ASL series, whose grid the maps must have.
    gm, wm : Path or 'derivatives' or 't1' or None
        Probability maps, of both or of neither; 'derivatives' as `gm` alone looks for them among
        the dataset's derivatives, 't1' makes them from the map of T1; None for none.
    relaxation : Relaxation
        Of the run, with the map of T1 that 't1' needs.
    notes : list of str
        Gets a line for maps among the derivatives that cannot be used.

    Returns
    -------
    Fractions
        Empty where nothing was asked for, or found among the derivatives.

    Raises
    ------
    InputError
        If an image is missing, on another grid or holds no fractions, one of two is not given,
        there is no map of T1, or T1 of pure tissue is not known at the field strength.
    """
    if gm is None and wm is None:
        return Fractions()
    if gm == "derivatives" and wm is None:
        found = read_derived_fractions(run, series, notes)
    elif gm == "t1" and wm in (None, "t1"):
        if relaxation.t1_map is None:
            raise InputError("--gm=t1 needs a map of T1: give --t1_tissue=map, or an image of it")
        found = Fractions()
    elif isinstance(gm, Path) and isinstance(wm, Path):
        found = _load(gm, wm, series)
    else:
        raise InputError("give the images of both grey and white matter, --gm and --wm, or none")
    if found.gm is None and gm != "t1":
        return found
    t1_gm, t1_wm, constants = _pure_t1(run)
    if gm == "t1":
        grey, white = fractions_from_t1(relaxation.t1_tissue, t1_gm, t1_wm)
        found = Fractions(grey.astype(np.float32), white.astype(np.float32))
    return dataclasses.replace(found, t1_gm=t1_gm, t1_wm=t1_wm, constants=constants)


def fractions_from_t1(
    t1: FloatArray, t1_gm: float, t1_wm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractions of tissues that explain a T1, mixing two neighbours in the order of their T1.

    The rate 1/T1 of a voxel is the mean of those of its tissues, which are taken to be white and
    grey matter above the rate of grey matter, and grey matter and fluid below it.

    Parameters
    ----------
    t1 : ndarray, any shape
        Of the voxels [s].
    t1_gm, t1_wm : float
        Of pure grey and white matter [s].

    Returns
    -------
    gm, wm : ndarray, of the shape of `t1`
        Fractions; 0 where T1 is not positive.

    References
    ----------
    Shin et al., NeuroImage 52:1347-1354 (2010), for tissue fractions from T1.

    Examples
    --------
    >>> gm, wm = fractions_from_t1(np.array([0.8, 1.0, 1.33, 2.1, 5.0]), 1.33, 0.83)
    >>> gm.round(2), wm.round(2)
    (array([0.  , 0.45, 1.  , 0.47, 0.  ]), array([1.  , 0.55, 0.  , 0.  , 0.  ]))
    """
    sound = np.isfinite(t1) & (t1 > 0.0)
    rate = 1.0 / np.where(sound, t1, T1_FLUID)
    of_gm, of_wm, of_fluid = 1.0 / t1_gm, 1.0 / t1_wm, 1.0 / T1_FLUID
    wm = np.clip((rate - of_gm) / (of_wm - of_gm), 0.0, 1.0)
    gm = np.clip((rate - of_fluid) / (of_gm - of_fluid), 0.0, 1.0) - wm
    return gm, wm


def read_derived_fractions(run: AslRun, series: Image, notes: list[str]) -> Fractions:
    """The one pair of maps among the derivatives that is on the grid of the series.

    Parameters
    ----------
    run : AslRun
    series : Image
        The ASL series.
    notes : list of str
        Gets a line for maps that cannot be used.

    Returns
    -------
    Fractions
        Empty where there is none, or several are equally good.
    """
    found: list[Fractions] = []
    for gm in _candidates(run):
        try:
            found.append(_load(gm, gm.with_name(gm.name.replace("label-GM", "label-WM")), series))
        except InputError as error:
            notes.append(f"no fractions of tissues from {gm.name}: {error}")
    if len(found) > 1:
        names = ", ".join(each.sources[0].relative_to(run.bids_dir).as_posix() for each in found)
        notes.append(f"several maps of grey matter fit ({names}): choose with --gm and --wm")
    return found[0] if len(found) == 1 else Fractions()


def _candidates(run: AslRun) -> Iterator[Path]:
    """Maps of grey matter in derivatives/*/<folder of the run> and in anat beside it."""
    for place, shared in anatomy_folders(run):
        for path in sorted(place.glob("*_label-GM*_probseg.nii*")):
            if is_of_run(run, path, shared, ("desc", "label", "space")):
                yield path


def known_fractions(
    run: AslRun, series: Image, fractions: Fractions, relaxation: Relaxation
) -> Fractions:
    """Fractions for what serves a fit without being part of its model, as far as they are known.

    Parameters
    ----------
    run : AslRun
    series : Image
        The ASL series.
    fractions : Fractions
        Of the model, if it has some.
    relaxation : Relaxation
        Of the run.

    Returns
    -------
    Fractions
        Those of the model; else those among the derivatives; else those that a map of T1 tells;
        empty where nothing is known, or T1 of pure tissue at the field strength.
    """
    known = relaxation_times(field_strength(run.sidecar))
    if fractions.gm is not None or known is None:
        return fractions
    found = read_derived_fractions(run, series, [])
    if found.gm is None and relaxation.t1_map is not None:
        grey, white = fractions_from_t1(
            relaxation.t1_tissue, known.t1_tissue, known.t1_white_matter
        )
        found = Fractions(grey.astype(np.float32), white.astype(np.float32))
    return dataclasses.replace(found, t1_gm=known.t1_tissue, t1_wm=known.t1_white_matter)


def _load(gm: Path, wm: Path, series: Image) -> Fractions:
    images = [load_image(path) for path in (gm, wm)]
    for image in images:
        check_same_grid(image, series)
        highest = np.nanmax(image.values, initial=0.0)
        if not highest > 0.0:
            raise InputError(f"{image.path}: is 0 everywhere; give a map of fractions")
        if 1.1 < highest <= 110.0:
            raise InputError(
                f"{image.path}: holds values up to {highest:g}, as percent do; fractions between 0 "
                "and 1 are needed: divide it by 100"
            )
    try:
        check_fractions(images[0].values, images[1].values)
    except InputError as error:
        raise InputError(f"{gm}, {wm.name}: {error}") from None
    return Fractions(images[0].values, images[1].values, sources=(gm, wm))


def _pure_t1(run: AslRun) -> tuple[float, float, dict[str, float | str]]:
    """T1 of grey and of white matter by the field strength; of 3 T where none is stated."""
    field = field_strength(run.sidecar)
    known = relaxation_times(field)
    if known is None:
        fields = ", ".join(f"{times.field_strength:g}" for times in RELAXATION_TIMES)
        raise InputError(
            f"{run.sidecar.path}: MagneticFieldStrength is {field:g} T, and T1 of pure "
            f"grey and white matter is known at {fields} T alone; choose --model=buxton"
        )
    source = f"{known.tissue_source}, at {known.field_strength:g} T"
    constants: dict[str, float | str] = {
        "T1GreyMatter": known.t1_tissue,
        "T1GreyMatterSource": source,
        "T1WhiteMatter": known.t1_white_matter,
        "T1WhiteMatterSource": source,
    }
    return known.t1_tissue, known.t1_white_matter, constants
