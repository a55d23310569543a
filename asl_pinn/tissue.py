"""Tissues by which a result is summarised: known ones, else a split that is stated."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from asl_pinn.data import AslData

_GREY_FROM = 1.05
_FLUID_FROM = 2.0


@dataclasses.dataclass(frozen=True)
class Tissues:
    """Regions of the mask, and how they were told apart.

    Attributes
    ----------
    regions : dict of str to ndarray of bool, shape (X, Y, Z)
        By name, without empty ones; together they are the valid voxels.
    origin : str
        A sentence for people.
    """

    regions: dict[str, NDArray[np.bool_]]
    origin: str


def find_tissues(data: AslData, grey_matter: NDArray[np.bool_] | None = None) -> Tissues:
    """Tell the tissues of the valid voxels apart with the best that there is.

    Parameters
    ----------
    data : AslData
    grey_matter : ndarray of bool, shape (X, Y, Z), optional
        Grey matter, where it is known.

    Returns
    -------
    Tissues
        By `grey_matter`; else by T1 where it is a map, at the values halfway between the
        tissues at 3 T; else by the mean difference, the upper half of which is mostly grey
        matter.
    """
    valid = data.valid
    t1 = data.t1_tissue
    if grey_matter is not None:
        regions = {"grey matter": grey_matter, "other tissue": ~grey_matter}
        origin = "Grey matter is that of the dataset's derivatives."
    elif valid.any() and np.ptp(t1[valid]) > 0.0:
        regions = {
            "grey matter": (t1 >= _GREY_FROM) & (t1 < _FLUID_FROM),
            "white matter": t1 < _GREY_FROM,
            "fluid": t1 >= _FLUID_FROM,
        }
        origin = (
            f"By T1: white matter below {_GREY_FROM} s, grey matter below {_FLUID_FROM} s, fluid "
            "above; at another field strength than 3 T these limits are too long or too short."
        )
    else:
        mean = np.where(valid, np.nan_to_num(data.delta_m).mean(axis=-1), 0.0)
        upper = mean > (np.median(mean[valid]) if valid.any() else 0.0)
        regions = {"upper half": upper, "lower half": ~upper}
        origin = (
            "No tissue is known: the voxels are split at the median of the mean difference. The "
            "upper half is mostly grey matter; that its CBF is higher follows from the split."
        )
    inside = {name: region & valid for name, region in regions.items()}
    return Tissues({name: region for name, region in inside.items() if region.any()}, origin)
