"""Buxton's model with dispersion: label reaches a voxel by many paths, some longer than others."""

import dataclasses

import jax
import jax.numpy as jnp
from numpy.polynomial.hermite_e import hermegauss

from asl_pinn.models import Blood, Buxton, KineticModel, Parameter, Prior, Timing, Tissue, Values

DISPERSION = Parameter(
    name="dispersion",
    label="relative width of the distribution of transit times",
    symbol="dispersion",
    unit="1",
    typical=0.2,
    lower=0.01,
    upper=0.8,
    scale=0.2,
    prior=Prior(0.2, 0.1),
)
NODES, WEIGHTS = (values.tolist() for values in hermegauss(5))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dispersed(KineticModel):
    """The mean of Buxton's signal over log-normal transit times whose median is ATT."""

    parameters: tuple[Parameter, ...] = (*Buxton().parameters, DISPERSION)
    name = "dispersed"
    description = "Buxton's model with log-normally dispersed transit times"

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> jax.Array:
        """Difference signal, by Gauss-Hermite quadrature over the logarithm of the times."""
        cbf, att, width = values
        paths = [att * jnp.exp(width * node) for node in NODES]
        signals = [Buxton().signal((cbf, path), timing, tissue, blood) for path in paths]
        return sum(w * s for w, s in zip(WEIGHTS, signals, strict=True)) / sum(WEIGHTS)
