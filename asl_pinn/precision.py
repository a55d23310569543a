"""The least standard deviations that any unbiased voxel-wise estimator can have."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, predict


@jax.jit
def cramer_rao_sd(
    cbf: Array,
    att: Array,
    voxels: Voxels,
    protocol: Protocol,
    n_averages: ArrayLike,
    noise_sd: ArrayLike,
) -> tuple[Array, Array]:
    """Cramér-Rao bound of CBF and ATT in each voxel, for Gaussian noise.

    Parameters
    ----------
    cbf, att : Array, shape (V,)
        True CBF [mL/100g/min] and ATT [s].
    voxels : Voxels
        Their constants.
    protocol : Protocol
        Timing and constants.
    n_averages : array_like, shape (D,)
        Images behind each delay.
    noise_sd : array_like, shape ()
        Standard deviation of one difference image [unit of delta_m].

    Returns
    -------
    cbf_sd, att_sd : Array, shape (V,)
        In the same units; infinite where the data do not tell the two apart.

    References
    ----------
    Kay, Fundamentals of Statistical Signal Processing: Estimation Theory (1993), chapter 3.
    """
    precision = jnp.asarray(n_averages) / jnp.asarray(noise_sd) ** 2

    def one(cbf: Array, att: Array, voxel: Voxels) -> tuple[Array, Array]:
        by_cbf, by_att = jax.jacfwd(predict, argnums=(0, 1))(cbf, att, voxel, protocol)
        cc, ca, aa = (
            jnp.sum(precision * a * b)
            for a, b in ((by_cbf, by_cbf), (by_cbf, by_att), (by_att, by_att))
        )
        determinant = cc * aa - ca**2
        return jnp.sqrt(aa / determinant), jnp.sqrt(cc / determinant)

    return jax.vmap(one)(cbf, att, voxels)
