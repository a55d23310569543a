"""The noise of each measurement, and the voxels that are outliers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.estimators.voxelwise.objective import LEAST_NOISE
from asl_pinn.problem import Problem

_FIRST_FRACTION = 0.01
_LEAST_FRACTION = 1e-6
_MOST_FRACTION = 0.3
_FIRST_RATIO = 5.0
_LEAST_RATIO = 3.0  # below, an outlier is a voxel like others
# A measurement that the fields can follow by itself would end without noise.
_LEAST_OF_MEDIAN = 0.7


class Noise(NamedTuple):
    """Normal noise that differs between measurements, and is larger in a few outlying voxels.

    A mixture of two normal distributions of the misfits of one voxel, the same at all D
    measurements: with the probability `outlier_fraction` their SDs are `outlier_ratio` times
    `sd`, otherwise `sd` (the contaminated normal distribution: Tukey, Contributions to
    Probability and Statistics, 448-485, 1960).

    Attributes
    ----------
    sd : Array, shape (D,)
        Of one difference image [unit of the measurements].
    outlier_fraction : Array, shape ()
        Of the voxels that are outliers.
    outlier_ratio : Array, shape ()
        Noise of an outlier over that of other voxels.
    outlier_weight : Array, shape (V,)
        Factor of each voxel's precision: 1 for surely no outlier, 1 / ratio² for surely one.
    """

    sd: Array
    outlier_fraction: Array
    outlier_ratio: Array
    outlier_weight: Array


def first_noise(sd: float, measured: Array) -> Noise:
    """Noise that is the same everywhere, to begin with.

    Parameters
    ----------
    sd : float
        Of one difference image [unit of `measured`].
    measured : Array, shape (D, V)
        Data [a.u.].

    Returns
    -------
    Noise
    """
    n_measurements, n_voxels = measured.shape
    dtype = measured.dtype
    return Noise(
        sd=jnp.full(n_measurements, sd, dtype),
        outlier_fraction=jnp.asarray(_FIRST_FRACTION, dtype),
        outlier_ratio=jnp.asarray(_FIRST_RATIO, dtype),
        outlier_weight=jnp.ones(n_voxels, dtype),
    )


def precision_root(noise: Noise, weights: Array) -> Array:
    """What turns misfits into noise SDs.

    Parameters
    ----------
    noise : Noise
        Of V voxels and D measurements.
    weights : Array, shape (D,)
        Images behind each measurement.

    Returns
    -------
    Array, shape (D, V)
        [1 / unit of the measurements]
    """
    return jnp.sqrt(noise.outlier_weight * weights[:, None]) / noise.sd[:, None]


def robust_weight(residual: Array, f_scale: float) -> Array:
    """Weights that make squares of soft-L1.

    With the loss rho(r) = c² (sqrt(1 + (r/c)²) - 1), the weight rho'(r) / r = 1 / sqrt(1 + (r/c)²)
    gives squares whose gradient is that of the loss, as in iteratively reweighted least squares
    (Holland and Welsch, Commun Stat A 6:813-827 (1977)). It acts on single measurements, the
    outlier weights on whole voxels.

    Parameters
    ----------
    residual : Array, shape S
        Misfits in noise SDs.
    f_scale : float
        Misfit c where the loss turns linear.

    Returns
    -------
    Array, shape S
        In (0, 1].
    """
    return 1.0 / jnp.sqrt(1.0 + (residual / f_scale) ** 2)


class OwnFit(NamedTuple):
    """What the best parameters of each voxel by itself leave of its data.

    Attributes
    ----------
    misfit : Array, shape (D, V)
        Data less curve [unit of the measurements].
    freedom : Array, shape (D,)
        Part of the noise variance of each measurement that is expected to be left.
    n_fitted : Array, shape ()
        Parameters that a voxel's data determine.
    ordinary : Array, shape (V,)
        Factor of a voxel in sums over them: 0 where it has what is sparse, whose fit leaves less.
    """

    misfit: Array
    freedom: Array
    n_fitted: Array
    ordinary: Array


def update_noise(noise: Noise, problem: Problem, own: OwnFit, f_scale: float) -> Noise:
    """One step of expectation and maximisation for the mixture of ordinary and outlying voxels.

    With S the sum of the squared misfits of a voxel in noise SDs, n = D - P the degrees of freedom
    that its P parameters leave, pi the fraction and k the ratio of outliers, the probability that
    it is one has the log odds

        log(pi / (1 - pi)) - n log k + S (1 - 1/k²) / 2,

    and the expected factor of its precision is 1 - P + P / k². The noise of a measurement is then
    the weighted sum of its squares over what is expected of unit noise.

    Both are told from each voxel's own best fit, not from the fields: a voxel that differs from its
    neighbours is neither noise nor an outlier as long as some parameters describe it. Told from
    the fields, what they smooth away would count as noise, and that would smooth them more.

    Parameters
    ----------
    noise : Noise
        Now.
    problem : Problem
        Data.
    own : OwnFit
        Of each voxel by itself.
    f_scale : float
        Misfit, in noise SDs, where soft-L1 turns linear.

    Returns
    -------
    Noise

    References
    ----------
    Dempster, Laird and Rubin, J R Stat Soc B 39:1-38 (1977).
    """
    fraction, ratio = noise.outlier_fraction, noise.outlier_ratio
    root = jnp.sqrt(problem.weights) / noise.sd
    residual = own.misfit * root[:, None]
    # Soft-L1 shrinks the squares of normal misfits too, by a factor that is known.
    squares = robust_weight(residual, f_scale) * residual**2 / _normal_square(f_scale)
    total = jnp.sum(squares, axis=0)
    n_free = jnp.maximum(problem.n_measurements - own.n_fitted, 1.0)
    log_odds = jnp.log(fraction) - jnp.log1p(-fraction) - n_free * jnp.log(ratio)
    outlier = jax.nn.sigmoid(log_odds + 0.5 * total * (1.0 - ratio**-2))
    new_ratio = jnp.sqrt(outlier @ total / (n_free * jnp.sum(outlier)))
    new_ratio = jnp.where(jnp.isfinite(new_ratio), jnp.maximum(new_ratio, _LEAST_RATIO), ratio)
    outlier_weight = 1.0 - outlier + outlier / new_ratio**2
    ordinary = jnp.sum(own.ordinary)
    variance = squares @ (own.ordinary * outlier_weight) / (own.freedom * ordinary)
    variance = variance * noise.sd**2
    variance = jnp.maximum(variance, _LEAST_OF_MEDIAN**2 * jnp.median(variance))
    signal = jnp.sqrt(jnp.mean(problem.measured**2))
    return Noise(
        sd=jnp.maximum(jnp.sqrt(variance), LEAST_NOISE * signal),
        outlier_fraction=jnp.clip(jnp.mean(outlier), _LEAST_FRACTION, _MOST_FRACTION),
        outlier_ratio=new_ratio,
        outlier_weight=outlier_weight,
    )


def _normal_square(f_scale: float) -> float:
    """Mean square of standard normal numbers under the robust weights."""
    x = np.linspace(-8.0, 8.0, 801)
    weighted = x**2 / np.sqrt(1.0 + (x / f_scale) ** 2) * np.exp(-0.5 * x**2)
    return float(np.trapezoid(weighted, x) / np.sqrt(2.0 * np.pi))
