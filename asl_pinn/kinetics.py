"""Buxton's kinetic model of (pseudo-)continuous ASL and its time derivative."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

T1_BLOOD = 1.65
T1_TISSUE = 1.33
LABELING_EFFICIENCY = 0.85
PARTITION_COEFFICIENT = 0.9

_CBF_PER_FLOW = 6000.0  # mL/100g/min in one mL/g/s


def apparent_t1(
    cbf: ArrayLike,
    t1_tissue: ArrayLike = T1_TISSUE,
    partition_coefficient: ArrayLike = PARTITION_COEFFICIENT,
) -> Array:
    """Relaxation time of labelled water in perfused tissue, 1/T1' = 1/T1 + f/lambda.

    Parameters
    ----------
    cbf : array_like
        Cerebral blood flow [mL/100g/min].
    t1_tissue : array_like
        Longitudinal relaxation time of tissue [s].
    partition_coefficient : array_like
        Blood-tissue partition coefficient of water [mL/g].

    Returns
    -------
    Array
        T1' [s], of the broadcast shape.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998).

    Examples
    --------
    Perfusion shortens the T1 of grey matter a little.

    >>> round(float(apparent_t1(60.0)), 3)
    1.311
    """
    flow = jnp.asarray(cbf) / _CBF_PER_FLOW
    return 1.0 / (1.0 / jnp.asarray(t1_tissue) + flow / partition_coefficient)


def delta_m(
    cbf: ArrayLike,
    att: ArrayLike,
    t: ArrayLike,
    label_duration: ArrayLike,
    *,
    m0: ArrayLike = 1.0,
    t1_tissue: ArrayLike = T1_TISSUE,
    t1_blood: ArrayLike = T1_BLOOD,
    labeling_efficiency: ArrayLike = LABELING_EFFICIENCY,
    partition_coefficient: ArrayLike = PARTITION_COEFFICIENT,
) -> Array:
    """Control-label difference of (p)CASL after Buxton's single-compartment model.

    All arguments broadcast against one another. The value is continuous everywhere and
    its gradients are finite everywhere, at the arrival and at the end of the bolus too.

    Parameters
    ----------
    cbf : array_like
        Cerebral blood flow [mL/100g/min].
    att : array_like
        Arterial transit time [s].
    t : array_like
        Time since the start of the bolus, label duration plus post-labelling delay [s].
    label_duration : array_like
        Duration of the bolus [s].
    m0 : array_like
        Equilibrium magnetisation of tissue [a.u.].
    t1_tissue : array_like
        Longitudinal relaxation time of tissue [s].
    t1_blood : array_like
        Longitudinal relaxation time of arterial blood [s].
    labeling_efficiency : array_like
        Fraction of the arterial magnetisation that is inverted, background-suppression
        losses included.
    partition_coefficient : array_like
        Blood-tissue partition coefficient of water [mL/g].

    Returns
    -------
    Array
        Difference signal in the unit of `m0`, of the broadcast shape.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998), equations 3 and 5.

    Examples
    --------
    Per cent of M0 before the arrival, during inflow and after the end of a bolus of 1.8 s.

    >>> import numpy as np
    >>> signal = delta_m(60.0, 1.2, np.array([1.0, 2.0, 3.6]), 1.8)
    >>> (100.0 * np.asarray(signal)).round(3)
    array([0.   , 0.547, 0.565], dtype=float32)
    """
    t1_app = apparent_t1(cbf, t1_tissue, partition_coefficient)
    _, inflow, washout = _phases(att, t, label_duration)
    delivery = _delivery(cbf, att, m0, t1_blood, labeling_efficiency, partition_coefficient)
    return delivery * t1_app * -jnp.expm1(-inflow / t1_app) * jnp.exp(-washout / t1_app)


def delta_m_by_att(
    cbf: ArrayLike,
    t: ArrayLike,
    label_duration: ArrayLike,
    readout_delay: ArrayLike = 0.0,
    *,
    m0: ArrayLike = 1.0,
    t1_tissue: ArrayLike = T1_TISSUE,
    t1_blood: ArrayLike = T1_BLOOD,
    labeling_efficiency: ArrayLike = LABELING_EFFICIENCY,
    partition_coefficient: ArrayLike = PARTITION_COEFFICIENT,
) -> Callable[[ArrayLike], Array]:
    """`delta_m` as a function of the transit time alone, with few exponentials.

    The decay from arrival to readout is the product of a factor of the transit time and one
    of the delay, which is prepared once. Rounding is worse than that of `delta_m`, of the order of
    the type's precision times the peak of the curve.

    Parameters
    ----------
    cbf, t, label_duration : array_like
        As in `delta_m`.
    readout_delay : array_like
        What is to be added to `t` [s]; apart, as few delays then serve many voxels.
    m0 : array_like
        As in `delta_m`.
    t1_tissue : array_like
        As in `delta_m`; 0.1 s or more.
    t1_blood, labeling_efficiency, partition_coefficient : array_like
        As in `delta_m`.

    Returns
    -------
    callable
        Arterial transit time [s] to the signal, of the broadcast shape.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998).

    Examples
    --------
    Per cent of M0 at two delays, for two transit times.

    >>> import numpy as np
    >>> t, label_duration = np.array([[2.0], [3.6]]), np.array([[1.8], [1.8]])
    >>> curve = delta_m_by_att(60.0, t, label_duration)
    >>> (100.0 * np.asarray(curve(np.array([0.8, 1.2])))).round(3)
    array([[0.914, 0.547],
           [0.531, 0.565]], dtype=float32)
    """
    t1_app = apparent_t1(cbf, t1_tissue, partition_coefficient)
    delivery = _delivery(cbf, 0.0, m0, t1_blood, labeling_efficiency, partition_coefficient)
    plateau, rate = t1_app * delivery, 1.0 / t1_app
    rising = plateau * jnp.exp(-(t + jnp.asarray(readout_delay)) * rate)
    falling = rising * jnp.expm1(label_duration * rate)

    def curve(att: ArrayLike) -> Array:
        since_arrival, att = t - jnp.asarray(att) + readout_delay, jnp.asarray(att)
        undone = jnp.exp(att * rate)
        arrived = jnp.where(
            since_arrival < label_duration, plateau - undone * rising, undone * falling
        )
        return jnp.where(since_arrival < 0.0, 0.0, jnp.exp(-att / t1_blood) * arrived)

    return curve


def delta_m_time_derivative(
    cbf: ArrayLike,
    att: ArrayLike,
    t: ArrayLike,
    label_duration: ArrayLike,
    label_duration_slope: ArrayLike = 0.0,
    *,
    m0: ArrayLike = 1.0,
    t1_tissue: ArrayLike = T1_TISSUE,
    t1_blood: ArrayLike = T1_BLOOD,
    labeling_efficiency: ArrayLike = LABELING_EFFICIENCY,
    partition_coefficient: ArrayLike = PARTITION_COEFFICIENT,
) -> Array:
    """Total time derivative of Buxton's curve, dM/dt + dM/dtau * tau'(t).

    Parameters
    ----------
    cbf, att, t, label_duration
        As in `delta_m`.
    label_duration_slope : array_like
        tau'(t), the change of the bolus duration with time [s/s]; 0 for the partial
        derivative at a fixed bolus.
    m0, t1_tissue, t1_blood, labeling_efficiency, partition_coefficient
        As in `delta_m`.

    Returns
    -------
    Array
        Derivative in the unit of `m0` per second, of the broadcast shape. It jumps where
        the bolus arrives and where it ends; there it takes the value from the right.

    References
    ----------
    Derived from Buxton et al., Magn Reson Med 40:383-396 (1998), equation 3.

    Examples
    --------
    Per cent of M0 per second before the arrival, during inflow and during wash-out.

    >>> import numpy as np
    >>> slope = delta_m_time_derivative(60.0, 1.2, np.array([1.0, 2.0, 3.6]), 1.8)
    >>> (100.0 * np.asarray(slope)).round(3)
    array([ 0.   ,  0.496, -0.431], dtype=float32)
    """
    t1_app = apparent_t1(cbf, t1_tissue, partition_coefficient)
    since_arrival, inflow, washout = _phases(att, t, label_duration)
    delivery = _delivery(cbf, att, m0, t1_blood, labeling_efficiency, partition_coefficient)
    rising = jnp.exp(-inflow / t1_app)
    falling = jnp.exp(-washout / t1_app) * (
        jnp.expm1(-jnp.asarray(label_duration) / t1_app) + label_duration_slope
    )
    arrived = jnp.where(since_arrival < label_duration, rising, falling)
    return delivery * jnp.where(since_arrival < 0.0, 0.0, arrived)


def _phases(att: ArrayLike, t: ArrayLike, label_duration: ArrayLike) -> tuple[Array, Array, Array]:
    """Time since arrival, which may be negative, and the time in inflow and in wash-out [s]."""
    since_arrival = jnp.asarray(t) - att
    inflow = jnp.maximum(jnp.minimum(since_arrival, label_duration), 0.0)
    return since_arrival, inflow, jnp.maximum(since_arrival - label_duration, 0.0)


def _delivery(
    cbf: ArrayLike,
    att: ArrayLike,
    m0: ArrayLike,
    t1_blood: ArrayLike,
    labeling_efficiency: ArrayLike,
    partition_coefficient: ArrayLike,
) -> Array:
    """Magnetisation difference that arterial blood delivers per second at arrival."""
    flow = jnp.asarray(cbf) / _CBF_PER_FLOW
    arterial_m0 = m0 / jnp.asarray(partition_coefficient)
    inverted = 2.0 * jnp.asarray(labeling_efficiency) * arterial_m0
    return inverted * flow * jnp.exp(-jnp.asarray(att) / t1_blood)
