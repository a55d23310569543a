"""Tissue maps that are known beforehand and that CBF may follow."""

from typing import Literal

import numpy as np

from asl_pinn.arrays import FloatArray
from asl_pinn.voxels import Voxels

_LEAST_CONTRAST = 1e-3


def tissue_features(
    voxels: Voxels, guide: Literal["tissue", "none"], *, squares: bool
) -> FloatArray:
    """Standardised M0 and 1/T1, where they vary at all.

    CBF, M0 and 1/T1 of a mixed voxel are all near to linear in its tissue fractions.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    guide : {'tissue', 'none'}
        'none' gives no map at all.
    squares : bool
        Whether to add their squares, less one.

    Returns
    -------
    ndarray, shape (V, F)
        Means are 0 and, but for the squares, variances 1.
    """
    columns = []
    for values in (voxels.m0, 1.0 / voxels.t1_tissue) if guide == "tissue" else ():
        spread = np.std(values, dtype=np.float64)
        if spread > _LEAST_CONTRAST * abs(np.mean(values, dtype=np.float64)):
            standard = (values - np.mean(values, dtype=np.float64)) / spread
            columns += [standard, standard**2 - 1.0] if squares else [standard]
    empty = np.zeros((len(voxels.m0), 0), voxels.m0.dtype)
    return np.stack(columns, axis=1).astype(voxels.m0.dtype) if columns else empty
