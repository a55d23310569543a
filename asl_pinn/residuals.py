"""What a result predicts for the images that it was fitted to."""

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, gather, predict

_CHUNK = 4096


def predicted(data: AslData, maps: PerfusionMaps) -> NDArray[np.float32]:
    """Difference images that Buxton's model predicts from the maps.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : PerfusionMaps
        Result of an estimator on it.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, D)
        In the unit of `data.delta_m`; NaN outside the valid voxels.
    """
    valid = data.valid
    images = np.full(data.delta_m.shape, np.nan, np.float32)
    if valid.any():
        columns = (maps.cbf[valid].astype(np.float32), maps.att[valid].astype(np.float32))
        images[valid] = map_chunked(
            _predict_chunk,
            (*columns, gather(data, np.float32)),
            chunk_for(int(np.count_nonzero(valid)), _CHUNK),
            (data.protocol,),
        )
    return images


def _predict_chunk(cbf: Array, att: Array, voxels: Voxels, protocol: Protocol) -> Array:
    return jax.vmap(predict, in_axes=(0, 0, 0, None))(cbf, att, voxels, protocol)
