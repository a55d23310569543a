"""How a bolus that arrives builds up in tissue: dispersion kernels, and the integrals of both."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln, log_ndtr, ndtr
from jax.typing import ArrayLike

from asl_pinn.arrays import FloatArray
from asl_pinn.models.base import Blood, Kernel

_SHARPEST = 1e-3
"""Least SD of a Gaussian [s]; 0 would divide 0 by 0."""


def _nodes() -> FloatArray:
    """Where integrals over (0, 1) are evaluated, and logarithms of that and of the weights.

    Gauss-Legendre quadrature in the third root, as what is integrated begins with any power.
    """
    roots, weights = np.polynomial.legendre.leggauss(32)
    root = 0.5 * (roots + 1.0)
    return np.stack([root**3, 3.0 * np.log(root), np.log(1.5 * root**2 * weights)], axis=-1)


_NODES = _nodes()


class GaussianKernel(NamedTuple):
    """Arrival times that are normally distributed about those of a sharp bolus.

    Attributes
    ----------
    sd : array_like
        Standard deviation [s].
    """

    sd: ArrayLike

    def arrived(self, x: ArrayLike) -> Array:
        """Fraction of a sharp edge that has arrived a time x [s] after it would have.

        Parameters
        ----------
        x : array_like
            Time since a sharp edge would have arrived [s].

        Returns
        -------
        Array
            Of the broadcast shape, 0 to 1.
        """
        return ndtr(x / jnp.maximum(self.sd, _SHARPEST))

    def remaining(self, x: ArrayLike, rate: ArrayLike) -> Array:
        """The same of label that leaves at a rate [1/s] once it has arrived.

        Parameters
        ----------
        x : array_like
            Time since a sharp edge would have arrived [s].
        rate : array_like
            [1/s].

        Returns
        -------
        Array
            Of the broadcast shape.
        """
        sd = jnp.maximum(self.sd, _SHARPEST)
        # exp(-r x + r² s²/2) Phi(x/s - r s); far before arrival the first factor overflows where
        # the second is 0, so that they are multiplied as logarithms.
        logarithm = log_ndtr(x / sd - rate * sd)
        return jnp.exp(rate * (0.5 * rate * sd**2 - x) + logarithm)


class GammaKernel(NamedTuple):
    """Delays that follow a gamma distribution, s^(1 + s p) u^(s p) exp(-s u) / Gamma(1 + s p).

    Attributes
    ----------
    rate : array_like
        Sharpness s [1/s].
    time_to_peak : array_like
        Most frequent delay p [s].

    References
    ----------
    Kazan et al., Magn Reson Med 62:1119-1128 (2009); Chappell et al., Magn Reson Med 69:563-570
    (2013).
    """

    rate: ArrayLike
    time_to_peak: ArrayLike

    def arrived(self, x: ArrayLike) -> Array:
        """Fraction of a sharp edge that has arrived a time x [s] after it would have.

        Parameters
        ----------
        x : array_like
            Time since a sharp edge would have arrived [s].

        Returns
        -------
        Array
            Of the broadcast shape, 0 to 1.
        """
        return self.remaining(x, 0.0)

    def remaining(self, x: ArrayLike, rate: ArrayLike) -> Array:
        """The same of label that leaves at a rate [1/s] once it has arrived, whatever the rate.

        By quadrature, within 1e-6 for shapes 1 + s p up to 16 and 1e-5 up to 50. The closed form,
        an incomplete gamma function, loses digits where the two rates are near, and has no meaning
        where this one is above the kernel's.

        Parameters
        ----------
        x : array_like
            Time since a sharp edge would have arrived [s].
        rate : array_like
            [1/s].

        Returns
        -------
        Array
            Of the broadcast shape.
        """
        sharpness = jnp.asarray(self.rate)
        shape, leaving = 1.0 + sharpness * self.time_to_peak, jnp.asarray(rate)
        positive = jnp.asarray(x) > 0.0
        since = jnp.where(positive, x, 1.0)
        # Beyond the top less than 1e-9 of the label arrives.
        top = jnp.minimum(since, (shape + 8.0 * jnp.sqrt(shape) + 16.0) / sharpness)
        scale = shape * jnp.log(sharpness * top) - gammaln(shape)
        steepness = sharpness * top

        def add(left: Array, row: Array) -> tuple[Array, None]:
            node, logarithm, log_weight = row
            power = log_weight + (shape - 1.0) * logarithm
            density = jnp.exp(scale + power - steepness * node)
            return left + density * jnp.exp(-leaving * (since - top * node)), None

        # A loop over the nodes, each a vector operation over the voxels: XLA reduces an array of
        # both many times more slowly, and a sum that is written out takes long to compile.
        nothing = jnp.zeros_like(top * shape * leaving)
        left, _ = jax.lax.scan(add, nothing, jnp.asarray(_NODES, nothing.dtype), unroll=4)
        return jnp.where(positive, left, 0.0)


def delivered(blood: Blood, x: ArrayLike, label_duration: ArrayLike, rate: ArrayLike) -> Array:
    """Label of a bolus that is left in a tissue, per label that arrives in a second [s].

    The convolution of the bolus, as long, decaying and dispersed as it is, with exp(-rate u).

    Parameters
    ----------
    blood : Blood
        Decay and dispersion of the bolus.
    x : array_like
        Time since the leading edge would have arrived, were it sharp [s].
    label_duration : array_like
        Duration of the bolus [s].
    rate : array_like
        At which label leaves the tissue, relaxation included [1/s]; any, also 0.

    Returns
    -------
    Array
        Of the broadcast shape [s].

    Examples
    --------
    Without loss, what is left is what has arrived.

    >>> round(float(delivered(Blood(), 5.0, 1.8, 0.0)), 3)
    1.8
    """
    x, excess = jnp.asarray(x), jnp.asarray(rate)
    decay = None if blood.bolus_decay is None else jnp.asarray(blood.bolus_decay)
    if decay is not None:
        # A bolus exp(-d u) b(u) convolved with exp(-r u) is exp(-d x) times b convolved with
        # exp(-(r - d) u).
        excess = excess - decay
    if blood.kernel is None:
        present = jnp.maximum(jnp.minimum(x, label_duration), 0.0)
        gone = jnp.maximum(x - label_duration, 0.0)
        left = present * _growth(-excess * present) * jnp.exp(-excess * gone)
    else:
        left = inflow(blood.kernel, x, excess) - inflow(blood.kernel, x - label_duration, excess)
    return left if decay is None else left * jnp.exp(-decay * x)


def inflow(kernel: Kernel, x: ArrayLike, rate: ArrayLike) -> Array:
    """Label of an endless dispersed bolus of unit strength that is left in a tissue [s].

    The convolution of the arrived fraction with exp(-rate u): (arrived - remaining) / rate.

    Parameters
    ----------
    kernel : Kernel
        Dispersion.
    x : array_like
        Time since a sharp bolus would have arrived [s].
    rate : array_like
        At which label leaves the tissue [1/s]; any, also 0.

    Returns
    -------
    Array
        Of the broadcast shape [s].
    """
    # What has arrived is what remains at rate 0.
    return slope_between(lambda at: kernel.remaining(x, at), 0.0, rate)


def slope_between(function: Callable[[Array], Array], first: ArrayLike, second: ArrayLike) -> Array:
    """Minus the mean slope of a function between two arguments, also where they coincide.

    Arguments that are closer than rounding allows are moved apart about their mean, which changes
    the slope in second order only.

    Parameters
    ----------
    function : callable
        Of an array.
    first, second : array_like
        Arguments.

    Returns
    -------
    Array
        (function(first) - function(second)) / (second - first), of the shape of the function's.
    """
    middle = 0.5 * (jnp.asarray(first) + second)
    least = float(jnp.finfo(jnp.result_type(float, middle)).eps) ** (1.0 / 3.0)
    half = 0.5 * jnp.maximum(jnp.abs(second - jnp.asarray(first)), least)
    return (function(middle - half) - function(middle + half)) / (2.0 * half)


def _growth(z: Array) -> Array:
    """(exp(z) - 1) / z, and 1 at z = 0."""
    near = jnp.abs(z) < 0.1
    series = jnp.ones_like(z)
    for n in range(9, 1, -1):
        series = 1.0 + jnp.where(near, z, 0.0) / n * series
    apart = jnp.where(near, 1.0, z)
    return jnp.where(near, series, jnp.expm1(apart) / apart)
