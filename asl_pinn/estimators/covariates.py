"""Covariates: maps of tissue that are known beforehand and that perfusion may follow."""

from typing import Literal

import numpy as np

from asl_pinn.arrays import FloatArray
from asl_pinn.models.base import Tissue

CovariatesName = Literal["tissue", "none"]

_LEAST_CONTRAST = 1e-3


def tissue_covariates(
    tissue: Tissue, covariates: CovariatesName, *, squares: bool = False
) -> FloatArray:
    """Standardised M0 and 1/T1, where they vary at all.

    CBF, M0 and 1/T1 of a mixed voxel are all near to linear in its tissue fractions. With their
    squares, grey matter may differ from both white matter and CSF.

    Parameters
    ----------
    tissue : Tissue
        `m0` and `t1_tissue` of shape (V,); on the host.
    covariates : {'tissue', 'none'}
        'none' gives no map at all.
    squares : bool
        Whether to add their squares, less one.

    Returns
    -------
    ndarray, shape (F, V)
        Means are 0 and, but for the squares, variances 1.
    """
    m0, t1_tissue = np.asarray(tissue.m0), np.asarray(tissue.t1_tissue)
    rows = [np.zeros((0, *m0.shape), m0.dtype)]
    for values in (m0, 1.0 / t1_tissue) if covariates == "tissue" else ():
        mean, sd = np.mean(values, dtype=np.float64), np.std(values, dtype=np.float64)
        if sd > _LEAST_CONTRAST * abs(mean):
            standard = (values - mean) / sd
            rows += [standard[None], standard[None] ** 2 - 1.0] if squares else [standard[None]]
    return np.concatenate(rows).astype(m0.dtype)
