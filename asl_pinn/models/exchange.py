"""Two compartments: label stays in capillaries for a while before it exchanges with tissue."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.models.base import Blood, KineticModel, Parameter, Prior, Timing, Tissue, Values
from asl_pinn.models.buxton import ATT, CBF, delivery
from asl_pinn.models.kernels import delivered, slope_between

EXCHANGE_RATE = Parameter(
    name="exchange_rate",
    label="rate at which water leaves capillaries for tissue",
    symbol="kw",
    unit="1/s",
    typical=1.7,
    lower=0.05,
    upper=20.0,
    scale=1.0,
    # 119/min in grey matter of four people (St. Lawrence et al., Proc ISMRM 18:1767, 2010), 82 ± 16
    # in that of thirty (Ford et al., Front Aging Neurosci 14:867452, 2022): their mean, as wide as
    # both. Not weak: it shows by the difference of T1 of blood and tissue alone.
    prior=Prior(1.7, 0.5),
    suffix="kw",
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Exchange(KineticModel):
    """Label in capillary blood, which decays with the T1 of blood, and passes to tissue at kw.

    The slow solution of Parkes and Tofts: what has passed does not return, and no label leaves by
    venous flow, which is slow against relaxation. With M0a = M0/lambda, x the time since arrival
    and the residues of capillary and tissue

        blood(u) = exp(-(kw + 1/T1b) u)
        tissue(u) = kw (exp(-u/T1) - exp(-(kw + 1/T1b) u)) / (kw + 1/T1b - 1/T1)

    the signal is that of both,

        dM = 2 alpha M0a f exp(-ATT/T1b) (bolus * (blood + tissue))(x)

    Where kw is infinite it is the curve of one compartment whose label leaves at 1/T1.

    References
    ----------
    Parkes and Tofts, Magn Reson Med 48:27-41 (2002).
    """

    parameters: tuple[Parameter, ...] = (CBF, ATT, EXCHANGE_RATE)
    name = "exchange"
    description = "two compartments, capillary blood and the tissue that its water passes to"
    references = (
        "Parkes LM, Tofts PS. Improved accuracy of human cerebral blood perfusion measurements "
        "using arterial spin labeling: accounting for capillary water permeability. Magn Reson Med "
        "2002;48:27-41.",
    )

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Difference signal of both compartments."""
        cbf, att, exchange_rate = values
        since_arrival = jnp.asarray(timing.t + timing.readout_delay) - att
        leaving = jnp.asarray(exchange_rate) + 1.0 / jnp.asarray(blood.t1_blood)

        def left(rate: ArrayLike) -> Array:
            return delivered(blood, since_arrival, timing.label_duration, rate)

        passed = exchange_rate * slope_between(left, 1.0 / jnp.asarray(tissue.t1_tissue), leaving)
        decay = jnp.exp(-jnp.asarray(att) / blood.t1_blood)
        return delivery(cbf, tissue, blood) * decay * (left(leaving) + passed)
