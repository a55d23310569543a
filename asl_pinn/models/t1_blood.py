"""T1 of arterial blood inferred for a brain, under a prior about the value stated for it."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.models.base import Blood, KineticModel, Parameter, Prior, Timing, Tissue, Values

T1_BLOOD = Parameter(
    name="t1_blood",
    label="longitudinal relaxation time of arterial blood",
    symbol="T1b",
    unit="s",
    typical=1.65,
    lower=0.8,
    upper=3.5,
    scale=1.0,
    # Haematocrit, sex and oxygenation move it by a tenth of a second (Lu et al., Magn Reson Med
    # 52:679-682, 2004; Zhang et al., Magn Reson Med 70:1082-1086, 2013). Not weak: it scales with
    # CBF but for the transit times.
    prior=Prior(None, 0.1),
    suffix="T1blood",
    colours="cividis",
    shared=True,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InferredT1Blood(KineticModel):
    """No signal of its own: the label of the models beside it decays with the inferred T1."""

    parameters: tuple[Parameter, ...] = (T1_BLOOD,)
    name = "t1_blood"
    description = "the T1 of arterial blood inferred, as one number for the brain"
    has_signal = False

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """The constants with the inferred T1 in place of the stated one."""
        (t1_blood,) = values
        # A pulsed bolus decays with it as well, whichever of the two models comes first in a sum.
        decay = None if blood.bolus_decay is None else 1.0 / jnp.asarray(t1_blood)
        return tissue, blood._replace(t1_blood=t1_blood, bolus_decay=decay)

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Zero."""
        return jnp.zeros(())
