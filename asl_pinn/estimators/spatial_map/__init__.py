"""All voxels at once: random fields of CBF and ATT, how smooth told by the data."""

from asl_pinn.estimators.spatial_map.fit import fit
from asl_pinn.estimators.spatial_map.options import SpatialOptions

__all__ = ["SpatialOptions", "fit"]
