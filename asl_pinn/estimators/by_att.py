"""Fits of CBF alone at a given transit time, many voxels at once.

The signal is taken as linear in CBF, which it nearly is. Delays are kept apart, each with an
array of its own over the voxels: sums over them then compile to one loop over the voxels.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.least_squares import soft_l1
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, predict_by_att

TYPICAL_CBF = 40.0
"""CBF at which the curve is taken as linear in CBF [mL/100g/min]."""


class Profile(NamedTuple):
    """How well each of G transit times fits V voxels; all of shape (G, V).

    Attributes
    ----------
    cost : Array
        With the best CBF, without bounds.
    share : Array
        That CBF over `TYPICAL_CBF`.
    information : Array
        Inverse variance of `share`, from the noise.
    """

    cost: Array
    share: Array
    information: Array


def profile(
    voxels: Voxels,
    att: Array,
    noise_sd: ArrayLike,
    protocol: Protocol,
    n_averages: Array,
    loss_scale: ArrayLike,
) -> Profile:
    """Best CBF at each of some transit times, by weighted least squares, and its soft-L1 cost.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    att : Array, shape (G,)
        Arterial transit times [s].
    noise_sd : array_like, shape ()
        Standard deviation of one difference image [unit of delta_m].
    protocol : Protocol
        Timing and constants.
    n_averages : Array, shape (D,)
        Images behind each delay.
    loss_scale : array_like, shape ()
        Misfit, in noise SDs, where the loss turns linear.

    Returns
    -------
    Profile
    """
    roots = jnp.sqrt(n_averages) / noise_sd
    measured = tuple(map(jnp.multiply, roots, voxels.delta_m.T))
    curves = predict_by_att(TYPICAL_CBF, voxels, protocol, roots)
    signal = jnp.mean(n_averages * jnp.mean(voxels.delta_m**2, axis=0)) / noise_sd**2
    real = jnp.finfo(signal.dtype)
    least = real.eps * signal + real.tiny  # where no label has arrived

    def at(att: Array) -> Profile:
        unit = tuple(curve(att) for curve in curves)
        information = _total(row**2 for row in unit) + least
        share = _total(map(jnp.multiply, unit, measured)) / information
        gaps = (share * row - value for row, value in zip(unit, measured, strict=True))
        return Profile(_total(soft_l1(gap, loss_scale) for gap in gaps), share, information)

    return jax.lax.map(at, att)


def _total(rows: Iterable[Array]) -> Array:
    """Sum of arrays of one shape, element by element."""
    return functools.reduce(jnp.add, rows)
