"""Labelled blood that is still in arteries, or passes a voxel in them."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.models.base import (
    Blood,
    Kernel,
    KineticModel,
    Parameter,
    Prior,
    Timing,
    Tissue,
    Values,
)
from asl_pinn.models.kernels import GaussianKernel

EDGE_SD = 0.05
"""Standard deviation of the edges of the arterial bolus in fits without dispersion [s].

A box has no slope in its arrival time, so that no method that follows slopes could move it; and
flow is never plug flow across a voxel.
"""

ABV = Parameter(
    name="abv",
    label="arterial blood volume",
    symbol="aBV",
    unit="1",
    typical=0.01,
    lower=0.0,
    upper=1.0,
    scale=0.01,
    linear=True,
    link="softplus",
    colours="magma",
    shown=(0.0, 0.02),
    digits=4,
    sparse=True,
)

ABAT = Parameter(
    name="abat",
    label="arterial bolus arrival time",
    symbol="aBAT",
    unit="s",
    typical=0.8,
    lower=0.05,
    upper=4.0,
    scale=1.0,
    prior=Prior(0.8, 1.0, weak=True),
    kinked=True,
    colours="viridis",
    shown=(0.0, 2.5),
    follows="att",
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Arterial(KineticModel):
    """Blood in large arteries: the bolus itself, decayed until it arrives.

    With M0a = M0/lambda and x the time since arrival,

        dM = 2 alpha M0a aBV exp(-aBAT/T1b)      0 <= x < tau

    and 0 before and after; dispersed as the sum that it is part of says.

    Attributes
    ----------
    edge_sd : float
        Standard deviation of the edges of the bolus where nothing disperses it [s].

    References
    ----------
    Chappell et al., Magn Reson Med 63:1357-1365 (2010).
    """

    parameters: tuple[Parameter, ...] = (ABV, ABAT)
    edge_sd: float = 0.0
    name = "arterial"
    description = "arterial blood, absent from voxels where the data do not show it"
    references = (
        "Chappell MA, MacIntosh BJ, Donahue MJ, Günther M, Jezzard P, Woolrich MW. Separation of "
        "macrovascular signal in multi-inversion time arterial spin labelling MRI. Magn Reson Med "
        "2010;63:1357-1365.",
    )

    def softened(self) -> "Arterial":
        """The model with edges that have a slope."""
        return dataclasses.replace(self, edge_sd=EDGE_SD)

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Difference signal of the blood in a voxel's arteries."""
        abv, abat = values
        return jnp.asarray(abv) * self.basis((), timing, tissue, blood)(abat)[0] / ABV.typical

    def basis(
        self, held: Values, timing: Timing, tissue: Tissue, blood: Blood
    ) -> Callable[..., tuple[Array, ...]]:
        """The curve at typical aBV as a function of aBAT."""
        t, label_duration, readout_delay = timing
        kernel: Kernel = GaussianKernel(self.edge_sd) if blood.kernel is None else blood.kernel
        arterial_m0 = tissue.m0 / jnp.asarray(tissue.partition_coefficient)
        full = 2.0 * ABV.typical * jnp.asarray(blood.labeling_efficiency) * arterial_m0

        def curve(abat: ArrayLike) -> tuple[Array, ...]:
            since_arrival = t - jnp.asarray(abat) + readout_delay
            ended = since_arrival - label_duration
            present = kernel.arrived(since_arrival) - kernel.arrived(ended)
            decay = jnp.exp(-jnp.asarray(abat) / blood.t1_blood)
            if blood.bolus_decay is not None:
                decay *= jnp.exp(-jnp.asarray(blood.bolus_decay) * since_arrival)
            return (full * decay * present,)

        return curve
