"""Dictionary matching: the best of many transit times, each with the CBF that suits it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData, PerfusionMaps, Status, status_volume, to_volume
from asl_pinn.execution import Execution
from asl_pinn.options import option
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, gather, predict_by_att


@dataclasses.dataclass(frozen=True)
class DictionaryOptions:
    """Options of `dictionary`; each becomes a flag of `asl-pinn quantify`."""

    att_entries: int = option(300, "Transit times to try, from 0.1 to 3.5 s.")


def fit(data: AslData, options: DictionaryOptions, execution: Execution) -> PerfusionMaps:
    """Try every transit time in every voxel; the signal is nearly linear in CBF."""
    voxels = gather(data, execution.dtype)
    att = jnp.linspace(0.1, 3.5, options.att_entries, dtype=execution.dtype)
    constants = data.protocol, np.asarray(data.n_averages, att.dtype), att
    cbf, att = map_chunked(_match, (voxels,), chunk_for(len(voxels.m0), 4096), constants)
    maps = (to_volume(values, data.valid) for values in (cbf, att))
    return PerfusionMaps(*maps, status_volume(np.full(len(cbf), Status.FITTED), data))


def _match(
    voxels: Voxels, protocol: Protocol, weight: jax.Array, att: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def match(voxel: Voxels) -> tuple[jax.Array, jax.Array]:
        curves = jnp.stack([curve(att) for curve in predict_by_att(50.0, voxel, protocol)])
        power = jnp.maximum(weight @ curves**2, 1e-30)
        scale = jnp.maximum((weight * voxel.delta_m) @ curves / power, 0.0)
        best = jnp.argmax(scale**2 * power)
        return 50.0 * scale[best], att[best]

    return jax.vmap(match)(voxels)
