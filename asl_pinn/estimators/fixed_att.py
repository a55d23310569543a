"""CBF alone, the arterial transit time held: what data of a single delay can tell."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.chunked import chunk_for, map_chunked
from asl_pinn.data import AslData, PerfusionMaps, Status, status_volume, to_volume
from asl_pinn.errors import InputError
from asl_pinn.execution import Execution
from asl_pinn.options import option
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, gather, predict

_CHUNK = 4096
_STEPS = 12
_TOLERANCE = 1e-3
_START = 40.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FixedAttOptions:
    """Options of `fixed-att`."""

    att: float = option(1.2, "Arterial transit time that every voxel is taken to have [s].")
    cbf_max: float = option(200.0, "Upper bound of CBF [mL/100g/min].")


def fit(data: AslData, options: FixedAttOptions, execution: Execution) -> PerfusionMaps:
    """Fit CBF in every voxel by least squares, with ATT held at a stated value.

    With one delay this inverts Buxton's model. CBF is as good as the transit time that was
    stated: no standard deviation is given, since one delay tells neither ATT nor the noise.

    Parameters
    ----------
    data : AslData
        Any number of delays.
    options : FixedAttOptions
        Transit time and upper bound.
    execution : Execution
        Floating-point type; the fit is deterministic and needs no seed.

    Returns
    -------
    PerfusionMaps
        ATT is `options.att` in every fitted voxel.

    Raises
    ------
    InputError
        If an option is out of range, no label would have arrived, or no voxel is valid.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998).
    """
    for name in ("att", "cbf_max"):
        if not 0.0 < getattr(options, name) < np.inf:
            raise InputError(f"--{name} must be positive, it is {getattr(options, name)}")
    voxels = gather(data, execution.dtype)
    last = float(np.max(data.protocol.t) + np.min(voxels.readout_delay))
    if options.att >= last:
        raise InputError(
            f"--att={options.att:g} s: at readout, {last:.4g} s after labelling began, nothing "
            "would have arrived; give a shorter transit time"
        )
    weights = np.asarray(data.n_averages, execution.dtype)
    cbf, converged = map_chunked(
        _solve_chunk,
        (voxels,),
        chunk_for(len(voxels.m0), _CHUNK),
        (data.protocol, weights, options),
    )
    on_bound = (cbf <= 0.0) | (cbf >= options.cbf_max)
    state = np.where(on_bound, Status.ON_BOUND, Status.FITTED)
    state = np.where(converged, state, Status.NOT_CONVERGED)
    return PerfusionMaps(
        cbf=to_volume(cbf, data.valid),
        att=to_volume(np.full_like(cbf, options.att), data.valid),
        status=status_volume(state, data),
    )


def _solve_chunk(
    voxels: Voxels, protocol: Protocol, weights: Array, options: FixedAttOptions
) -> tuple[Array, Array]:
    """CBF of each voxel, shape (V,), and whether the last step was a small one."""

    def solve(voxel: Voxels) -> tuple[Array, Array]:
        def curve(cbf: Array) -> Array:
            return predict(cbf, options.att, voxel, protocol)

        def step(cbf: Array, _: None) -> tuple[Array, Array]:
            signal, slope = jax.jvp(curve, (cbf,), (jnp.ones_like(cbf),))
            gain = jnp.sum(weights * slope * (voxel.delta_m - signal)) / jnp.sum(weights * slope**2)
            new = jnp.clip(cbf + gain, 0.0, options.cbf_max)
            return new, jnp.abs(new - cbf)

        cbf, changes = jax.lax.scan(step, jnp.asarray(_START, voxel.m0.dtype), None, length=_STEPS)
        return cbf, changes[-1] < _TOLERANCE * jnp.maximum(cbf, 1.0)

    return jax.vmap(solve)(voxels)
