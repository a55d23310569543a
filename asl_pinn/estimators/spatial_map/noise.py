"""The noise of each delay, and the voxels that are not to be relied on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.estimators.voxelwise import LEAST_NOISE

_FIRST_SHARE = 0.01
_LEAST_SHARE = 1e-6
_MOST_SHARE = 0.3
_FIRST_RATIO = 5.0
_LEAST_RATIO = 3.0  # below, an outlier is a voxel like others
_LEAST_OF_MEDIAN = 0.7  # a delay that the fields can follow by itself would end without noise


class Noise(NamedTuple):
    """Normal noise that differs between delays, and is larger in a few outlying voxels.

    Attributes
    ----------
    sd : Array, shape (D,)
        Of one difference image at each delay [unit of delta_m].
    share : Array, shape ()
        Of the voxels that are outliers.
    ratio : Array, shape ()
        Noise of an outlier over that of other voxels.
    reliance : Array, shape (V,)
        Factor of each voxel's precision: 1 for sure no outlier, 1 / ratio² for surely one.
    """

    sd: Array
    share: Array
    ratio: Array
    reliance: Array


def first_noise(sd: float, delta_m: Array) -> Noise:
    """Noise that is the same everywhere, to begin with.

    Parameters
    ----------
    sd : float
        Of one difference image [unit of delta_m].
    delta_m : Array, shape (V, D)
        Data [a.u.].

    Returns
    -------
    Noise
    """
    n_voxels, n_delays = delta_m.shape
    dtype = delta_m.dtype
    return Noise(
        sd=jnp.full(n_delays, sd, dtype),
        share=jnp.asarray(_FIRST_SHARE, dtype),
        ratio=jnp.asarray(_FIRST_RATIO, dtype),
        reliance=jnp.ones(n_voxels, dtype),
    )


def precision_root(noise: Noise, n_averages: Array) -> Array:
    """What turns misfits into noise SDs.

    Parameters
    ----------
    noise : Noise
    n_averages : Array, shape (D,)
        Images behind each delay.

    Returns
    -------
    Array, shape (V, D)
        [1 / unit of delta_m]
    """
    return jnp.sqrt(noise.reliance[:, None] * n_averages) / noise.sd


def robust_weight(residual: Array, loss_scale: float) -> Array:
    """Weights that make squares of soft-L1.

    Parameters
    ----------
    residual : Array, shape S
        Misfits in noise SDs.
    loss_scale : float
        Misfit where the loss turns linear.

    Returns
    -------
    Array, shape S
        In (0, 1].
    """
    return 1.0 / jnp.sqrt(1.0 + (residual / loss_scale) ** 2)


def update_noise(
    noise: Noise,
    delta_m: Array,
    curves: Array,
    n_averages: Array,
    absorbed: Array,
    loss_scale: float,
) -> Noise:
    """Expectation and maximisation of the mixture of ordinary and outlying voxels.

    Parameters
    ----------
    noise : Noise
        Now.
    delta_m, curves : Array, shape (V, D)
        Data and what the fields predict [unit of delta_m].
    n_averages : Array, shape (D,)
        Images behind each delay.
    absorbed : Array, shape (D,)
        Parameters that each delay determined, which took some of its noise up.
    loss_scale : float
        Misfit, in noise SDs, where soft-L1 turns linear.

    Returns
    -------
    Noise
    """
    n_voxels, n_delays = delta_m.shape
    residual = (delta_m - curves) * jnp.sqrt(n_averages) / noise.sd
    squares = robust_weight(residual, loss_scale) * residual**2 / _normal_square(loss_scale)
    total = jnp.sum(squares, axis=1)
    log_odds = jnp.log(noise.share) - jnp.log1p(-noise.share) - n_delays * jnp.log(noise.ratio)
    outlier = jax.nn.sigmoid(log_odds + 0.5 * total * (1.0 - noise.ratio**-2))
    ratio = jnp.sqrt(outlier @ total / (n_delays * jnp.sum(outlier)))
    ratio = jnp.where(jnp.isfinite(ratio), jnp.maximum(ratio, _LEAST_RATIO), noise.ratio)
    reliance = 1.0 - outlier + outlier / ratio**2
    variance = reliance @ squares / jnp.maximum(n_voxels - absorbed, 0.1 * n_voxels)
    variance = variance * noise.sd**2
    variance = jnp.maximum(variance, _LEAST_OF_MEDIAN**2 * jnp.median(variance))
    signal = jnp.sqrt(jnp.mean(delta_m**2))
    return Noise(
        sd=jnp.maximum(jnp.sqrt(variance), LEAST_NOISE * signal),
        share=jnp.clip(jnp.mean(outlier), _LEAST_SHARE, _MOST_SHARE),
        ratio=ratio,
        reliance=reliance,
    )


def _normal_square(loss_scale: float) -> float:
    """Mean square of standard normal numbers under the robust weights."""
    x = np.linspace(-8.0, 8.0, 801)
    weighted = x**2 / np.sqrt(1.0 + (x / loss_scale) ** 2) * np.exp(-0.5 * x**2)
    return float(np.trapezoid(weighted, x) / np.sqrt(2.0 * np.pi))
