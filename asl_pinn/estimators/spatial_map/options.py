"""Options of the random fields."""

import dataclasses
from typing import Literal

from asl_pinn.errors import InputError
from asl_pinn.estimators import voxelwise
from asl_pinn.options import option


@dataclasses.dataclass(frozen=True)
class SpatialOptions:
    """Options of `spatial-map`."""

    cbf_scale: Literal["linear", "log"] = option(
        "linear",
        "On which scale CBF is smooth: its logarithm, or itself (positive all the same).",
    )
    cbf_order: int = option(1, "Smooth CBF: 1 for small differences, 2 for a small Laplacian.")
    att_order: int = option(2, "Smooth ATT: 1 for small differences, 2 for a small Laplacian.")
    cbf_edge_dof: float = option(
        1.0,
        "Degrees of freedom of the Student t law of CBF's roughness: few let edges stand; 0 for "
        "a Gaussian law.",
    )
    att_edge_dof: float = option(3.0, "The same for ATT.")
    guide: Literal["tissue", "none"] = option(
        "tissue", "Let CBF follow M0 and T1, as far as the data say so, or not at all."
    )
    spatial_dims: int = option(3, "2 for neighbours within slices alone, 3 for all neighbours.")
    samples: int = option(16, "Draws from the posterior, for the strengths and the SDs.")
    rounds: int = option(60, "Most rounds of Gauss-Newton steps and new strengths.")
    rtol: float = option(3e-3, "Relative change of the strengths that ends the rounds.")
    loss_scale: float = option(3.0, "Misfit, in noise SDs, where soft-L1 turns linear.")
    att_min: float = option(0.05, "Lower bound of ATT [s].")
    att_max: float = option(4.0, "Upper bound of ATT [s].")


def check(options: SpatialOptions) -> None:
    """Refuse options that no fit can work with.

    Parameters
    ----------
    options : SpatialOptions

    Raises
    ------
    InputError
        If a number is out of range.
    """
    for name in ("cbf_order", "att_order"):
        if getattr(options, name) not in (1, 2):
            raise InputError(f"--{name} must be 1 or 2, it is {getattr(options, name)}")
    if options.spatial_dims not in (2, 3):
        raise InputError(f"--spatial_dims must be 2 or 3, it is {options.spatial_dims}")
    if options.samples < 4:
        raise InputError(f"--samples must be at least 4, it is {options.samples}")
    if options.rounds < 1:
        raise InputError(f"--rounds must be at least 1, it is {options.rounds}")
    for name in ("cbf_edge_dof", "att_edge_dof"):
        if not getattr(options, name) >= 0.0:
            raise InputError(f"--{name} must not be negative, it is {getattr(options, name)}")
    for name in ("rtol", "loss_scale"):
        if not getattr(options, name) > 0.0:
            raise InputError(f"--{name} must be positive, it is {getattr(options, name)}")
    voxelwise.check_att_bounds(options.att_min, options.att_max)
