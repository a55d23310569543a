"""Options of the random fields."""

import dataclasses
from typing import Literal

from asl_pinn.errors import InputError
from asl_pinn.estimators.checks import require_numbers, require_spatial_dims
from asl_pinn.estimators.covariates import CovariatesName
from asl_pinn.estimators.options import ByParameter, fraction_option, option

CHOSEN = 0
"""Order of a roughness that the data choose."""


@dataclasses.dataclass(frozen=True)
class SpatialOptions:
    """Options of `spatial-map`."""

    amplitude_scale: Literal["linear", "log"] = option(
        "linear",
        "On which scale amplitudes such as CBF are smooth: themselves (positive all the same), or "
        "their logarithms.",
    )
    order: ByParameter = option(
        ByParameter.of(other=CHOSEN, cbf=1),
        "What a smooth map keeps small: 1 for differences of neighbours, 2 for its Laplacian; 0 "
        "for the one of both whose maps are expected to predict new data better.",
    )
    edge_dof: ByParameter = option(
        ByParameter.of(other=3, cbf=1),
        "Degrees of freedom of the Student t distribution of a map's roughness: few let edges "
        "stand; 0 for a normal distribution.",
    )
    covariates: CovariatesName = option(
        "tissue",
        "Let the parameters that follow tissue, as CBF does, follow M0 and T1, as far as the data "
        "say so, or not at all.",
    )
    spatial_dims: int = option(3, "2 for neighbours within slices alone, 3 for all neighbours.")
    samples: int = option(
        16,
        "Draws from the posterior, for the hyperparameters, the SDs and the samples.",
        most=1_024,
    )
    rounds: int = option(
        60, "Most rounds of Gauss-Newton steps and new hyperparameters.", most=10_000
    )
    rtol: float = option(3e-3, "Relative change of the hyperparameters that ends the rounds.")
    f_scale: float = option(3.0, "Misfit, in noise SDs, where soft-L1 turns linear.")
    min_fraction: float = fraction_option()


def check(options: SpatialOptions, names: tuple[str, ...]) -> None:
    """Refuse options that no fit can work with.

    Parameters
    ----------
    options : SpatialOptions
        Of the method.
    names : tuple of str
        Parameters that are to be fitted.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    for name in names:
        if options.order[name] not in (CHOSEN, 1, 2):
            raise InputError(f"--order must be 0, 1 or 2, it is {options.order[name]:g} for {name}")
        if not 0.0 <= options.edge_dof[name] < float("inf"):
            raise InputError(
                f"--edge_dof must not be negative, it is {options.edge_dof[name]:g} for {name}"
            )
    require_spatial_dims(options)
    require_numbers(options, {"samples": 4, "rounds": 1}, ("rtol", "f_scale"))
