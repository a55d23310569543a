"""Lesions that change perfusion and leave M0 and T1 as they are: strokes and small foci."""

import dataclasses
from typing import NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from asl_pinn.data import Phantom
from asl_pinn.errors import InputError


class Lesion(NamedTuple):
    """A ball that is cut by the brain, about a voxel of grey matter.

    Attributes
    ----------
    name : str
        For tables.
    centre : tuple of float
        Wanted distance from the middle of the brain's extent in the slice, along the first
        two axes, over half that extent; the nearest voxel of grey matter is taken.
    diameter : float
        [mm]
    cbf_factor : float
        CBF over what it was.
    att_delay : float
        What is added to ATT [s].
    """

    name: str
    centre: tuple[float, float]
    diameter: float
    cbf_factor: float
    att_delay: float = 0.0


LESIONS = (
    Lesion("territory", (-0.55, -0.05), 50.0, 0.5, 0.5),
    Lesion("low 12 mm", (0.35, 0.50), 12.0, 0.4),
    Lesion("high 12 mm", (0.55, -0.15), 12.0, 2.0),
    Lesion("low 9 mm", (0.15, -0.60), 9.0, 0.4),
    Lesion("high 9 mm", (0.25, 0.10), 9.0, 2.0),
    Lesion("low 6 mm", (-0.25, 0.65), 6.0, 0.4),
    Lesion("high 6 mm", (0.50, -0.55), 6.0, 2.0),
)
"""A hypoperfused territory with late arrival, and foci of low and of high CBF."""


def add_lesions(
    phantom: Phantom, slice_index: int, lesions: tuple[Lesion, ...] = LESIONS
) -> tuple[Phantom, dict[str, NDArray[np.bool_]]]:
    """Put lesions into a phantom, centred in one of its slices.

    Parameters
    ----------
    phantom : Phantom
        Healthy brain.
    slice_index : int
        Slice that holds the centres.
    lesions : tuple of Lesion
        They must not overlap.

    Returns
    -------
    phantom : Phantom
        With CBF and ATT changed, those of pure tissues too, and all else as it was.
    where : dict of str to ndarray of bool, shape (X, Y, Z)
        The voxels of each lesion, by its name.

    Raises
    ------
    InputError
        If the slice holds no grey matter, or a lesion lies over another one.
    """
    edges = voxel_sizes(phantom.affine)
    grid = np.moveaxis(np.indices(phantom.mask.shape), 0, -1) * edges
    inside, grey = (
        grid[:, :, slice_index][volume[:, :, slice_index]]
        for volume in (phantom.mask, phantom.grey_matter)
    )
    if not len(grey):
        raise InputError(f"slice {slice_index} holds no grey matter to put lesions in")
    low, high = inside.min(axis=0), inside.max(axis=0)
    values = {name: volume.copy() for name, volume in phantom.values.items()}
    flows, times = ([n for n in values if n.split("_")[0] == kind] for kind in ("cbf", "att"))
    taken = np.zeros(phantom.mask.shape, bool)
    where = {}
    for lesion in lesions:
        wanted = (low + high) / 2.0
        wanted[:2] += np.asarray(lesion.centre) * (high - low)[:2] / 2.0
        centre = grey[np.argmin(np.linalg.norm(grey - wanted, axis=1))]
        ball = np.linalg.norm(grid - centre, axis=-1) <= lesion.diameter / 2.0
        voxels = ball & phantom.mask
        if (voxels & taken).any():
            raise InputError(f"lesion {lesion.name!r} lies over another one")
        taken |= voxels
        for name in flows:
            values[name][voxels] *= lesion.cbf_factor
        for name in times:
            values[name][voxels] += lesion.att_delay
        where[lesion.name] = voxels
    return dataclasses.replace(phantom, values=values), where
