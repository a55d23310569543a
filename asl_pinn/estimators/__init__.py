"""Estimators: each turns `AslData` into `PerfusionMaps`; one file each, one line here."""

import dataclasses
from collections.abc import Callable
from typing import Any

from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.errors import InputError
from asl_pinn.estimators import (
    fixed_att,
    nlls,
    nlls_scipy,
    nlls_smoothed,
    pinn,
    spatial_map,
    voxelwise,
)
from asl_pinn.execution import Execution

Fit = Callable[[AslData, Any, Execution], PerfusionMaps]


@dataclasses.dataclass(frozen=True)
class Estimator:
    """A method by name.

    Attributes
    ----------
    fit : callable
        (data, options, execution) -> maps.
    options : type
        Dataclass of the method's options.
    summary : str
        One line for people.
    """

    fit: Fit
    options: type
    summary: str


ESTIMATORS: dict[str, Estimator] = {
    "nlls": Estimator(nlls.fit, voxelwise.NllsOptions, "voxel-wise regularised least squares"),
    "nlls-smoothed": Estimator(
        nlls_smoothed.fit, nlls_smoothed.SmoothedOptions, "the same of smoothed images"
    ),
    "spatial-map": Estimator(
        spatial_map.fit, spatial_map.SpatialOptions, "random fields over all voxels at once"
    ),
    "pinn": Estimator(pinn.fit, pinn.PinnOptions, "physics-informed coordinate networks"),
    "nlls-scipy": Estimator(nlls_scipy.fit, voxelwise.NllsOptions, "`nlls` by SciPy, slowly"),
    "fixed-att": Estimator(
        fixed_att.fit, fixed_att.FixedAttOptions, "CBF alone, ATT held, for single-delay data"
    ),
}


def get_estimator(method: str) -> Estimator:
    """Look a method up.

    Parameters
    ----------
    method : str
        Its name.

    Returns
    -------
    Estimator

    Raises
    ------
    InputError
        If there is no such method.
    """
    if method not in ESTIMATORS:
        raise InputError(f"unknown method {method!r}; choose {', '.join(ESTIMATORS)}")
    return ESTIMATORS[method]
