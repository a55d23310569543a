"""One axial slice of a phantom, or all of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asl_pinn.data import Phantom
from asl_pinn.errors import InputError


def select_slices(phantom: Phantom, which: str) -> Phantom:
    """Keep one slice along the third axis, or all.

    Parameters
    ----------
    phantom : Phantom
        Maps of shape (X, Y, Z).
    which : str
        'central' for slice Z // 2, 'all', or a slice index as text, from '0' to Z - 1.

    Returns
    -------
    Phantom
        Maps of shape (X, Y, 1), or `phantom` itself for 'all'; the affine's origin moves
        with the slice, so that voxels keep their place in space.

    Raises
    ------
    InputError
        If `which` is none of these, or the slice holds no brain.
    """
    if which == "all":
        return phantom
    n_slices = phantom.mask.shape[2]
    if which != "central" and not (which.isdecimal() and int(which) < n_slices):
        raise InputError(
            f"slice {which!r} is not in the phantom; choose central, all or 0 to {n_slices - 1}"
        )
    index = n_slices // 2 if which == "central" else int(which)
    if not phantom.mask[:, :, index].any():
        filled = np.flatnonzero(phantom.mask.any(axis=(0, 1)))
        raise InputError(
            f"slice {index} of the phantom holds no brain; choose one from "
            f"{filled[0]} to {filled[-1]}"
        )
    affine = phantom.affine.copy()
    affine[:3, 3] += index * affine[:3, 2]

    def cut(volume: NDArray[Any]) -> NDArray[Any]:
        return volume[:, :, index : index + 1]

    return Phantom(
        values={name: cut(volume) for name, volume in phantom.values.items()},
        m0=cut(phantom.m0),
        t1_tissue=cut(phantom.t1_tissue),
        mask=cut(phantom.mask),
        grey_matter=cut(phantom.grey_matter),
        affine=affine,
        fractions={name: cut(volume) for name, volume in phantom.fractions.items()},
    )
