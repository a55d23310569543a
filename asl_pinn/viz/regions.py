"""Regions by which a result is summarised: known grey matter, else a split that is stated."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from asl_pinn.data import AslData

# Halfway between the T1 of white and grey matter, and of grey matter and fluid, at 3 T:
# 0.83, 1.33 and about 4 s (Lu et al., J Magn Reson Imaging 22:13-22, 2005).
_GREY_FROM = 1.05
_FLUID_FROM = 2.0


@dataclasses.dataclass(frozen=True)
class Regions:
    """Parts of the mask, and how they were told apart.

    Attributes
    ----------
    masks : dict of str to ndarray of bool, shape (X, Y, Z)
        By name, without empty ones; together they are the valid voxels.
    origin : str
        A sentence for people.
    """

    masks: dict[str, NDArray[np.bool_]]
    origin: str


def find_regions(data: AslData, grey_matter: NDArray[np.bool_] | None = None) -> Regions:
    """Divide the valid voxels by tissue, as well as the data allow.

    Parameters
    ----------
    data : AslData
        What was quantified.
    grey_matter : ndarray of bool, shape (X, Y, Z), optional
        Grey matter, where it is known.

    Returns
    -------
    Regions
        By `grey_matter`; else by T1 where it is a map, with limits that hold at 3 T; else by the
        mean difference signal, whose upper half is mostly grey matter.
    """
    valid = data.valid
    t1 = data.t1_tissue
    if grey_matter is not None:
        masks = {"grey matter": grey_matter, "other tissue": ~grey_matter}
        origin = "Grey matter is that of the dataset's derivatives."
    elif valid.any() and np.ptp(t1[valid]) > 0.0:
        masks = {
            "grey matter": (t1 >= _GREY_FROM) & (t1 < _FLUID_FROM),
            "white matter": t1 < _GREY_FROM,
            "fluid": t1 >= _FLUID_FROM,
        }
        origin = (
            f"Tissues were told apart by T1 (white matter below {_GREY_FROM} s, grey matter up to "
            f"{_FLUID_FROM} s, fluid above). These limits assume 3 T."
        )
    else:
        mean = np.where(valid, np.nan_to_num(data.delta_m).mean(axis=-1), 0.0)
        upper = mean > (np.median(mean[valid]) if valid.any() else 0.0)
        masks = {"upper half": upper, "lower half": ~upper}
        origin = (
            "No tissue segmentation was found: voxels are split at the median of the mean "
            "difference signal. The upper half is mostly grey matter; its higher CBF follows from "
            "this split."
        )
    inside = {name: mask & valid for name, mask in masks.items()}
    return Regions({name: mask for name, mask in inside.items() if mask.any()}, origin)
