"""All voxels at once: a random field for each parameter, how smooth told by the data."""

from collections.abc import Mapping

from asl_pinn.estimators.base import Estimator
from asl_pinn.estimators.spatial.fit import fit
from asl_pinn.estimators.spatial.options import CHOSEN, SpatialOptions

__all__ = ["SPATIAL_MAP", "SpatialOptions"]


def _by_parameter(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{number:g} for {name}" for name, number in numbers.items())


def _order(orders: Mapping[str, float]) -> str:
    chosen = [name for name, order in orders.items() if order == CHOSEN]
    stated = {name: order for name, order in orders.items() if order != CHOSEN}
    said = [_by_parameter(stated)] if stated else []
    if chosen:
        said.append(f"1 or 2 by Mallows' Cp for {', '.join(chosen)}")
    return ", ".join(said)


def _covariates(covariates: str) -> str:
    if covariates == "tissue":
        return "CBF had M0 and T1 as covariates, whose coefficients were estimated with it"
    return "no map had covariates"


SPATIAL_MAP = Estimator(
    fit,
    SpatialOptions,
    "random fields over all voxels at once",
    "All voxels were fitted at once, the map of each parameter being a Gaussian Markov random "
    "field whose roughness (of order {order}) had a Student t distribution (degrees of freedom: "
    "{edge_dof}); {covariates}. How smooth the maps are, the noise of each delay and the outlying "
    "voxels were estimated from the data by marginal likelihood, as in spatial variational Bayes "
    "[2, 3]; standard deviations are those of draws from the Laplace approximation of the "
    "posterior, times factors calibrated on simulations.",
    (
        "Penny WD, Trujillo-Barreto NJ, Friston KJ. Bayesian fMRI time series analysis with "
        "spatial priors. NeuroImage 2005;24:350-362.",
        "Groves AR, Chappell MA, Woolrich MW. Combined spatial and non-spatial prior for "
        "inference on MRI time-series. NeuroImage 2009;45:795-809.",
    ),
    words={"order": _order, "edge_dof": _by_parameter, "covariates": _covariates},
    weak_priors=False,
)
