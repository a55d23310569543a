"""The voxels to be fitted as flat arrays, and the model's prediction for one of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from asl_pinn import kinetics
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.protocol import Protocol


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Voxels:
    """Data of V voxels; under `vmap`, of one.

    Attributes
    ----------
    delta_m : Array, shape (V, D)
        Control - label differences [a.u.].
    m0 : Array, shape (V,)
        Equilibrium magnetisation of tissue [a.u.].
    t1_tissue : Array, shape (V,)
        Longitudinal relaxation time of tissue [s].
    readout_delay : Array, shape (V,)
        What the slice's readout adds to every delay [s].
    """

    delta_m: Array
    m0: Array
    t1_tissue: Array
    readout_delay: Array


def gather(data: AslData, dtype: DTypeLike) -> Voxels:
    """Take the valid voxels out of the volumes.

    Parameters
    ----------
    data : AslData
        Volumes; `data.valid` selects.
    dtype : dtype
        Floating-point type of the result.

    Returns
    -------
    Voxels
        Host arrays, in the order of `volume[data.valid]`.

    Raises
    ------
    InputError
        If there is no valid voxel.
    """
    valid = data.valid
    if not valid.any():
        raise InputError(
            "no voxel can be fitted: the mask is empty, or the data inside it are not finite"
        )
    volumes = (data.delta_m, data.m0, data.t1_tissue, data.readout_delay)
    columns: list[Any] = [np.asarray(volume[valid], dtype=dtype) for volume in volumes]
    return Voxels(*columns)


def predict(cbf: ArrayLike, att: ArrayLike, voxel: Voxels, protocol: Protocol) -> Array:
    """Difference signal that Buxton's model predicts for one voxel.

    Parameters
    ----------
    cbf, att : array_like, shape ()
        Cerebral blood flow [mL/100g/min] and arterial transit time [s].
    voxel : Voxels
        One voxel; only its constants are read.
    protocol : Protocol
        Timing and constants.

    Returns
    -------
    Array, shape (D,)
        In the unit of the voxel's M0.
    """
    return kinetics.delta_m(cbf, att, **_constants(voxel, protocol))


def predict_over_att(cbf: ArrayLike, att: ArrayLike, voxel: Voxels, protocol: Protocol) -> Array:
    """`predict` for many transit times at once, quicker and rounded less well.

    Parameters
    ----------
    cbf : array_like, shape ()
        Cerebral blood flow [mL/100g/min].
    att : array_like, shape (G,)
        Arterial transit times [s].
    voxel, protocol
        As in `predict`.

    Returns
    -------
    Array, shape (D, G)
    """
    return kinetics.delta_m_over_att(cbf, att, **_constants(voxel, protocol))


def _constants(voxel: Voxels, protocol: Protocol) -> dict[str, ArrayLike]:
    dtype = jnp.result_type(voxel.m0)
    return {
        "t": jnp.asarray(protocol.t, dtype) + voxel.readout_delay,
        "label_duration": jnp.asarray(protocol.label_duration, dtype),
        "m0": voxel.m0,
        "t1_tissue": voxel.t1_tissue,
        "t1_blood": protocol.t1_blood,
        "labeling_efficiency": protocol.labeling_efficiency,
        "partition_coefficient": protocol.partition_coefficient,
    }
