"""Fits of CBF alone at a given transit time, many voxels at once.

The signal is taken as linear in CBF, which it nearly is. Delays are kept apart, each with an
array of its own over the voxels: sums over them then compile to one loop over the voxels.
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, predict_by_att

TYPICAL_CBF = 40.0
"""CBF at which the curve is taken as linear in CBF [mL/100g/min]."""

Rows = tuple[Array, ...]
"""An array over the voxels for each delay."""


class Match(NamedTuple):
    """Best CBF at a transit time, without bounds.

    Attributes
    ----------
    unit : tuple of D arrays, shape (V,)
        Signals of `TYPICAL_CBF`, in noise SDs.
    share : Array, shape (V,)
        CBF over `TYPICAL_CBF`.
    information : Array, shape (V,)
        Inverse variance of `share`.
    """

    unit: Rows
    share: Array
    information: Array


def matcher(
    voxels: Voxels, noise_sd: ArrayLike, protocol: Protocol, n_averages: Array, least: ArrayLike
) -> tuple[Rows, Callable[[Array], Match]]:
    """Measured signals, and the best CBF by transit time.

    Parameters
    ----------
    voxels : Voxels
        V voxels.
    noise_sd : array_like, shape ()
        Standard deviation of one difference image [unit of delta_m].
    protocol : Protocol
        Timing and constants.
    n_averages : Array, shape (D,)
        Images behind each delay.
    least : array_like, shape ()
        Least information, where no label has arrived.

    Returns
    -------
    measured : tuple of D arrays, shape (V,)
        In noise SDs.
    match : callable
        Arterial transit time (), in seconds, to `Match`.
    """
    roots = jnp.sqrt(n_averages) / noise_sd
    measured = tuple(map(jnp.multiply, roots, voxels.delta_m.T))
    curves = predict_by_att(TYPICAL_CBF, voxels, protocol, roots)

    def match(att: Array) -> Match:
        unit = tuple(curve(att) for curve in curves)
        information = total(row**2 for row in unit) + least
        return Match(unit, total(map(jnp.multiply, unit, measured)) / information, information)

    return measured, match


def total(rows: Iterable[Array]) -> Array:
    """Sum of arrays of one shape, element by element."""
    return functools.reduce(jnp.add, rows)


def misfits(unit: Rows, share: Array, measured: Rows) -> Rows:
    """Predicted - measured signals in noise SDs, where CBF is a share of `TYPICAL_CBF`.

    Parameters
    ----------
    unit : tuple of D arrays, shape (V,)
        Signals of `TYPICAL_CBF`.
    share : Array, shape (V,)
        CBF over `TYPICAL_CBF`.
    measured : tuple of D arrays, shape (V,)
        Measured signals.

    Returns
    -------
    tuple of D arrays, shape (V,)
    """
    return tuple(share * row - value for row, value in zip(unit, measured, strict=True))
