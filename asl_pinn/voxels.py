"""The voxels to be fitted as flat arrays, and the model's prediction for one of them."""

import dataclasses
from collections.abc import Callable, Iterable
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
    index = np.flatnonzero(valid)
    volumes = (data.delta_m, data.m0, data.t1_tissue, data.readout_delay)
    columns: list[Any] = [
        np.asarray(np.take(volume.reshape(-1, *volume.shape[3:]), index, axis=0), dtype=dtype)
        for volume in volumes
    ]
    return Voxels(*columns)


def delays_first(voxels: Voxels) -> Voxels:
    """The same with `delta_m` of shape (D, V): on a CPU, long last axes run faster."""
    return dataclasses.replace(voxels, delta_m=voxels.delta_m.T)


def predict(cbf: ArrayLike, att: ArrayLike, voxel: Voxels, protocol: Protocol) -> Array:
    """Difference signal that Buxton's model predicts for one voxel, or for many.

    Parameters
    ----------
    cbf, att : array_like, shape S
        Cerebral blood flow [mL/100g/min] and arterial transit time [s]; S is () for one voxel.
    voxel : Voxels
        Only the constants are read, of a shape that broadcasts with S.
    protocol : Protocol
        Timing and constants.

    Returns
    -------
    Array, shape (D, *S)
        In the unit of the voxels' M0.
    """
    delays_first = (-1,) + (1,) * jnp.ndim(voxel.m0)
    t, label_duration = (times.reshape(delays_first) for times in _times(protocol, voxel.m0))
    return kinetics.delta_m(
        cbf, att, t + voxel.readout_delay, label_duration, **_constants(voxel, protocol)
    )


def predict_by_att(
    cbf: ArrayLike, voxels: Voxels, protocol: Protocol, weights: Iterable[ArrayLike] | None = None
) -> tuple[Callable[[ArrayLike], Array], ...]:
    """`predict` at fixed CBF as a function of the transit time, quicker and rounded less well.

    Parameters
    ----------
    cbf : array_like, shape ()
        Cerebral blood flow [mL/100g/min].
    voxels : Voxels
        Only the constants are read, of shape S.
    protocol : Protocol
        As in `predict`.
    weights : iterable of D numbers, optional
        Factors of the signals.

    Returns
    -------
    tuple of D callables
        For each delay, from the arterial transit time [s], of a shape that broadcasts with S, to
        the signal of shape S. They are apart, as sums over them then compile to one loop over S.
    """
    t, label_duration = _times(protocol, voxels.m0)
    constants = _constants(voxels, protocol)
    return tuple(
        kinetics.delta_m_by_att(
            cbf, when, bolus, voxels.readout_delay, **{**constants, "m0": weight * voxels.m0}
        )
        for when, bolus, weight in zip(
            t, label_duration, jnp.ones_like(t) if weights is None else weights, strict=True
        )
    )


def _times(protocol: Protocol, like: ArrayLike) -> tuple[Array, Array]:
    """Delays since labelling began and label durations, shape (D,), in the type of `like`."""
    dtype = jnp.result_type(like)
    return jnp.asarray(protocol.t, dtype), jnp.asarray(protocol.label_duration, dtype)


def _constants(voxel: Voxels, protocol: Protocol) -> dict[str, ArrayLike]:
    return {
        "m0": voxel.m0,
        "t1_tissue": voxel.t1_tissue,
        "t1_blood": protocol.t1_blood,
        "labeling_efficiency": protocol.labeling_efficiency,
        "partition_coefficient": protocol.partition_coefficient,
    }
