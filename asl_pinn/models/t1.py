"""T1 of tissue inferred, under a prior about the value that is stated for it."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.models.base import (
    Blood,
    KineticModel,
    Parameter,
    Prior,
    Timing,
    Tissue,
    Values,
)

T1_TISSUE = Parameter(
    name="t1_tissue",
    label="longitudinal relaxation time of tissue",
    symbol="T1",
    unit="s",
    typical=1.33,
    lower=0.3,
    upper=5.0,
    scale=1.0,
    # Not weak: a lower T1 looks like a lower CBF but for the latest delays, so that the data alone
    # determine neither, and every method has to keep the prior.
    prior=Prior(None, 0.1),
    suffix="T1map",
    colours="cividis",
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InferredT1(KineticModel):
    """No signal of its own: the models beside it in a sum decay with the T1 that is inferred."""

    parameters: tuple[Parameter, ...] = (T1_TISSUE,)
    name = "t1"
    description = "the T1 of tissue inferred in each voxel"
    has_signal = False

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """The constants with the inferred T1 in place of the stated one."""
        return tissue._replace(t1_tissue=values[0]), blood

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Zero."""
        return jnp.zeros(())
