"""Buxton's single-compartment model of tissue in (pseudo-)continuous ASL."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.models.base import (
    Blood,
    KineticModel,
    Parameter,
    Prior,
    Timing,
    Tissue,
    Values,
)
from asl_pinn.models.kernels import delivered

CBF_PER_FLOW = 6000.0
"""mL/100g/min in one mL/g/s."""

CBF = Parameter(
    name="cbf",
    label="cerebral blood flow",
    symbol="CBF",
    unit="mL/100g/min",
    typical=40.0,
    lower=0.0,
    upper=200.0,
    scale=50.0,
    linear=True,  # but for T1', which 60 mL/100g/min shorten by 1.5 %
    link="softplus",
    follows_tissue=True,
    colours="inferno",
    shown=(0.0, 100.0),
    digits=1,
)

ATT = Parameter(
    name="att",
    label="arterial transit time",
    symbol="ATT",
    unit="s",
    typical=1.2,
    lower=0.05,
    upper=4.0,
    scale=1.0,
    # Where a voxel has hardly any signal, its cost does not depend on ATT: the prior keeps it from
    # running into a bound there, and is too wide to be felt elsewhere.
    prior=Prior(1.2, 1.0, weak=True),
    kinked=True,
    colours="viridis",
    shown=(0.0, 2.5),
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Buxton(KineticModel):
    """Label that arrives at once, exchanges at once and leaves by venous flow and T1.

    With 1/T1' = 1/T1 + f/lambda, M0a = M0/lambda and x the time since arrival,

        dM = 0                                                            x < 0
        dM = 2 alpha M0a f T1' exp(-ATT/T1b) (1 - exp(-x/T1'))            0 <= x < tau
        dM = the same at x = tau, times exp(-(x - tau)/T1')               x >= tau

    Where the constants of blood state a dispersion, or a bolus that decays as it arrives, it is

        dM = 2 alpha M0a f exp(-ATT/T1b) (bolus * exp(-u/T1'))(x)

    with the bolus exp(-rho x) (K(x) - K(x - tau)), K being the fraction of a sharp edge that the
    dispersion kernel has let arrive.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998), equations 3 and 5.
    """

    parameters: tuple[Parameter, ...] = (CBF, ATT)
    name = "buxton"
    description = "Buxton's single-compartment kinetic model"
    references = (
        "Buxton RB, Frank LR, Wong EC, Siewert B, Warach S, Edelman RR. A general kinetic model "
        "for quantitative perfusion imaging with arterial spin labeling. Magn Reson Med "
        "1998;40:383-396.",
    )

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Difference signal; continuous, and with finite gradients also at its kinks."""
        cbf, att = values
        t1_app = apparent_t1(cbf, tissue)
        since_arrival = jnp.asarray(timing.t + timing.readout_delay) - att
        if not _is_plain(blood):
            left = delivered(blood, since_arrival, timing.label_duration, 1.0 / t1_app)
            return _arriving(cbf, att, tissue, blood) * left
        # max and min instead of branches: JAX then differentiates to the mean of both sides
        # at the kinks, and no exponent grows without bound where a branch is not taken.
        inflow = jnp.maximum(jnp.minimum(since_arrival, timing.label_duration), 0.0)
        washout = jnp.maximum(since_arrival - timing.label_duration, 0.0)
        arriving = _arriving(cbf, att, tissue, blood)
        return arriving * t1_app * -jnp.expm1(-inflow / t1_app) * jnp.exp(-washout / t1_app)

    def basis(
        self, held: Values, timing: Timing, tissue: Tissue, blood: Blood
    ) -> Callable[..., tuple[Array, ...]]:
        """The curve at typical CBF as a function of ATT, with few exponentials.

        The decay from arrival to readout is the product of a factor of ATT and one of the delay,
        which is prepared once. Rounding is worse than that of `signal`, of the order of
        the type's precision times the peak of the curve.
        """
        if not _is_plain(blood):
            return super().basis(held, timing, tissue, blood)
        t, label_duration, readout_delay = timing
        typical = self.parameters[0].typical
        t1_app = apparent_t1(typical, tissue)
        plateau, rate = t1_app * delivery(typical, tissue, blood), 1.0 / t1_app
        rising = plateau * jnp.exp(-(t + jnp.asarray(readout_delay)) * rate)
        falling = rising * jnp.expm1(label_duration * rate)

        def curve(att: ArrayLike) -> tuple[Array, ...]:
            since_arrival = t - jnp.asarray(att) + readout_delay
            undone = jnp.exp(jnp.asarray(att) * rate)
            arrived = jnp.where(
                since_arrival < label_duration, plateau - undone * rising, undone * falling
            )
            decayed = jnp.exp(-jnp.asarray(att) / blood.t1_blood) * arrived
            return (jnp.where(since_arrival < 0.0, 0.0, decayed),)

        return curve


def apparent_t1(cbf: ArrayLike, tissue: Tissue) -> Array:
    """Relaxation time of labelled water in perfused tissue, 1/T1' = 1/T1 + f/lambda.

    Parameters
    ----------
    cbf : array_like
        Cerebral blood flow [mL/100g/min].
    tissue : Tissue
        T1 [s] and partition coefficient [mL/g].

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

    >>> round(float(apparent_t1(60.0, Tissue(m0=1.0, t1_tissue=1.33))), 3)
    1.311
    """
    flow = jnp.asarray(cbf) / CBF_PER_FLOW
    return 1.0 / (1.0 / jnp.asarray(tissue.t1_tissue) + flow / tissue.partition_coefficient)


def delivery(cbf: ArrayLike, tissue: Tissue, blood: Blood) -> Array:
    """Magnetisation difference that arterial blood delivers per second, before its decay.

    Parameters
    ----------
    cbf : array_like
        Cerebral blood flow [mL/100g/min].
    tissue : Tissue
        M0 and partition coefficient [mL/g].
    blood : Blood
        Labelling efficiency.

    Returns
    -------
    Array
        In the unit of M0 per second, of the broadcast shape.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998), equation 2.
    """
    flow = jnp.asarray(cbf) / CBF_PER_FLOW
    arterial_m0 = tissue.m0 / jnp.asarray(tissue.partition_coefficient)
    return 2.0 * jnp.asarray(blood.labeling_efficiency) * arterial_m0 * flow


def _arriving(cbf: ArrayLike, att: ArrayLike, tissue: Tissue, blood: Blood) -> Array:
    """What is left of that as the bolus arrives."""
    return delivery(cbf, tissue, blood) * jnp.exp(-jnp.asarray(att) / blood.t1_blood)


def _is_plain(blood: Blood) -> bool:
    """Whether the bolus is a box; known when a program is traced, so that it costs nothing."""
    return blood.kernel is None and blood.bolus_decay is None
