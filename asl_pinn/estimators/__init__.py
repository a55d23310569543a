"""Estimators: each turns `AslData` into `PerfusionMaps`; one file each, one line here."""

import dataclasses
from collections.abc import Callable, Mapping
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
    description : str
        A sentence for a methods section, in which {name} stands for an option of that name and
        [2], [3], ... for `references`.
    references : tuple of str
        Works that it cites.
    words : dict of str to callable
        What that sentence says for the values of some options.
    """

    fit: Fit
    options: type
    summary: str
    description: str
    references: tuple[str, ...] = ()
    words: Mapping[str, Callable[[Any], str]] = dataclasses.field(default_factory=dict)

    def describe(self, options: Mapping[str, Any]) -> str:
        """The sentence for a methods section, with these options."""
        said = {name: say(options[name]) for name, say in self.words.items()}
        return self.description.format_map({**options, **said})


def _guide(guide: str) -> str:
    return "following M0 and T1 as far as the data bore it out" if guide == "tissue" else "unguided"


def _width(fwhm: float) -> str:
    if fwhm < 0.0:
        return "of the width that predicted held-out delays best"
    return f"of {fwhm:g} mm full width at half maximum"


_VOXELWISE = (
    "CBF and ATT of each voxel were fitted by non-linear least squares within bounds (CBF at most "
    "{cbf_max:g} mL/100g/min, ATT {att_min:g} to {att_max:g} s), with soft-L1 loss, the best of "
    "{att_grid} transit times as start and a weak penalty on the distance of ATT from "
    "{att_guess:g} s (SD {att_guess_sd:g} s)"
)

ESTIMATORS: dict[str, Estimator] = {
    "nlls": Estimator(
        nlls.fit,
        voxelwise.NllsOptions,
        "voxel-wise regularised least squares",
        f"{_VOXELWISE}.",
    ),
    "nlls-smoothed": Estimator(
        nlls_smoothed.fit,
        nlls_smoothed.SmoothedOptions,
        "the same of smoothed images",
        "The difference images were smoothed inside the mask with a Gaussian "
        f"{{smoothing_fwhm}}. {_VOXELWISE}.",
        words={"smoothing_fwhm": _width},
    ),
    "spatial-map": Estimator(
        spatial_map.fit,
        spatial_map.SpatialOptions,
        "random fields over all voxels at once",
        "All voxels were fitted at once, CBF and ATT being random fields (roughness of order "
        "{cbf_order} and {att_order}, CBF {guide}) whose strengths, with the noise of "
        "each delay and outlying voxels, were estimated from the data by marginal likelihood, as "
        "in spatial variational Bayes [2, 3]; standard deviations are the spread of draws from "
        "the Laplace approximation, times factors calibrated on simulations.",
        (
            "Penny WD, Trujillo-Barreto NJ, Friston KJ. Bayesian fMRI time series analysis with "
            "spatial priors. NeuroImage 2005;24:350-362.",
            "Groves AR, Chappell MA, Woolrich MW. Combined spatial and non-spatial prior for "
            "inference on MRI time-series. NeuroImage 2009;45:795-809.",
        ),
        words={"guide": _guide},
    ),
    "pinn": Estimator(
        pinn.fit,
        pinn.PinnOptions,
        "physics-informed coordinate networks",
        "CBF and ATT were represented by sine networks [2] of the position ({members} trained for "
        "{steps} steps at most, preset {preset}, CBF {guide}), tied to the data by the "
        "kinetic model after the method of physics-informed networks [3].",
        (
            "Sitzmann V, Martel JNP, Bergman AW, Lindell DB, Wetzstein G. Implicit neural "
            "representations with periodic activation functions. NeurIPS 2020.",
            "Raissi M, Perdikaris P, Karniadakis GE. Physics-informed neural networks. J Comput "
            "Phys 2019;378:686-707.",
        ),
        words={"guide": _guide},
    ),
    "nlls-scipy": Estimator(
        nlls_scipy.fit,
        voxelwise.NllsOptions,
        "`nlls` by SciPy, slowly",
        f"{_VOXELWISE}, by SciPy's least_squares.",
    ),
    "fixed-att": Estimator(
        fixed_att.fit,
        fixed_att.FixedAttOptions,
        "CBF alone, ATT held, for single-delay data",
        "ATT was not estimated but held at {att:g} s in every voxel, and CBF (at most {cbf_max:g} "
        "mL/100g/min) fitted by least squares.",
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
