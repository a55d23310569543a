"""Buxton's model of tissue in pulsed ASL."""

import dataclasses
from collections.abc import Callable

import jax
from jax import Array

from asl_pinn.models.base import Blood, Timing, Tissue, Values
from asl_pinn.models.buxton import Buxton


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pulsed(Buxton):
    """Buxton's curve where all of the bolus is labelled at once (PASL).

    What arrives later has decayed for longer. With 1/T1' = 1/T1 + f/lambda, k = 1/T1b - 1/T1', the
    inversion time t and x = t - ATT,

        dM = 0                                                               x < 0
        dM = 2 alpha M0a f exp(-t/T1b) (exp(k x) - 1) / k                    0 <= x < tau
        dM = the same at x = tau, times exp(-(x - tau)/T1')                  x >= tau

    `label_duration`, tau, is from the pulse to the saturation that cuts the bolus off: TI1 of
    QUIPSS II and Q2TIPS. Arterial blood beside it in a sum decays alike.

    References
    ----------
    Buxton et al., Magn Reson Med 40:383-396 (1998), equation 3. QUIPSS II: Wong et al., Magn Reson
    Med 39:702-708 (1998); Q2TIPS: Luh et al., Magn Reson Med 41:1246-1254 (1999).
    """

    name = "pulsed"
    description = "Buxton's single-compartment kinetic model of pulsed labelling"

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """The constants with a bolus that decays, as it arrives, with the T1 of blood."""
        return tissue, blood._replace(bolus_decay=1.0 / blood.t1_blood)

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Difference signal; continuous, and with finite gradients also at its kinks."""
        return super().signal(values, timing, *self.constants(values, tissue, blood))

    def basis(
        self, held: Values, timing: Timing, tissue: Tissue, blood: Blood
    ) -> Callable[..., tuple[Array, ...]]:
        """The curve at typical CBF as a function of ATT."""
        return super().basis(held, timing, *self.constants((), tissue, blood))
