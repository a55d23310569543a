"""Physics-informed networks: CBF and ATT as smooth functions of the position."""

from asl_pinn.estimators.pinn.fit import fit
from asl_pinn.estimators.pinn.options import PinnOptions

__all__ = ["PinnOptions", "fit"]
