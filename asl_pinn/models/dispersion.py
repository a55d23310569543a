"""Dispersion: vessels let some label arrive later than other, so that the bolus loses its edges."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.models.base import Blood, KineticModel, Parameter, Prior, Timing, Tissue, Values
from asl_pinn.models.kernels import GammaKernel, GaussianKernel

# The means are the defaults of BASIL, log s = 2 and log(s p) = -0.3, for the kernel that fitted
# label in arteries best (Chappell et al., Magn Reson Med 69:563-570, 2013). The SDs are half of
# them, for what people differ by. One brain holds both parameters in common, as one voxel tells
# hardly anything of either.
DISPERSION_RATE = Parameter(
    name="dispersion_rate",
    label="sharpness of the gamma dispersion kernel",
    symbol="dispersion rate",
    unit="1/s",
    typical=7.4,
    lower=2.0,
    upper=30.0,
    scale=4.0,
    prior=Prior(7.4, 3.7),
    suffix="dispersionRate",
    shared=True,
)

DISPERSION_TIME_TO_PEAK = Parameter(
    name="dispersion_time_to_peak",
    label="time to peak of the gamma dispersion kernel",
    symbol="dispersion time to peak",
    unit="s",
    typical=0.1,
    lower=0.001,
    upper=0.5,
    scale=0.1,
    prior=Prior(0.1, 0.05),
    suffix="dispersionTimeToPeak",
    shared=True,
)

# Mean: the SD of the gamma kernel at its prior means, sqrt(1 + s p) / s.
DISPERSION_SD = Parameter(
    name="dispersion_sd",
    label="standard deviation of the Gaussian dispersion kernel",
    symbol="dispersion SD",
    unit="s",
    typical=0.18,
    lower=0.005,
    upper=0.5,
    scale=0.1,
    prior=Prior(0.18, 0.09),
    suffix="dispersionSd",
    shared=True,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GammaDispersion(KineticModel):
    """No signal of its own: the bolus of the models beside it is delayed by a gamma distribution.

    With s the rate and p the time to peak, label is late by u with the density

        k(u) = s^(1 + s p) u^(s p) exp(-s u) / Gamma(1 + s p)

    after the arrival times of the models, which are those of the first label. On average it is late
    by p + 1/s.

    The kernel is that of the label that arrives, and has an area of 1, as in the literature and in
    BASIL. Label of continuous labelling that is late by u has decayed by exp(-u/T1b) besides, which
    makes another gamma kernel of it, of the rate s + 1/T1b and the area
    (s / (s + 1/T1b))^(1 + s p). Where s and p are those of the blood, amplitudes are too low by
    that factor, 0.87 at the prior means.

    References
    ----------
    Chappell et al., Magn Reson Med 69:563-570 (2013).
    """

    parameters: tuple[Parameter, ...] = (DISPERSION_RATE, DISPERSION_TIME_TO_PEAK)
    name = "dispersion"
    description = "the bolus dispersed by a gamma kernel that the whole brain shares"
    references = (
        "Chappell MA, Woolrich MW, Kazan S, Jezzard P, Payne SJ, MacIntosh BJ. Modeling dispersion "
        "in arterial spin labeling: validation using dynamic angiographic measurements. Magn Reson "
        "Med 2013;69:563-570.",
    )
    has_signal = False

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """The constants with the kernel in them."""
        rate, time_to_peak = values
        return tissue, blood._replace(kernel=GammaKernel(rate, time_to_peak))

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Zero."""
        return jnp.zeros(())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianDispersion(KineticModel):
    """No signal of its own: arrival times of the models beside it are normally distributed.

    The arrival times of the models are their means. As in `GammaDispersion`, the kernel is that of
    the label that arrives.

    References
    ----------
    Hrabe and Lewis, J Magn Reson 167:49-55 (2004).
    """

    parameters: tuple[Parameter, ...] = (DISPERSION_SD,)
    name = "dispersion-gaussian"
    description = "the bolus dispersed by a Gaussian kernel that the whole brain shares"
    references = (
        "Hrabe J, Lewis DP. Two analytical solutions for a model of pulsed arterial spin labeling "
        "with randomized blood arrival times. J Magn Reson 2004;167:49-55.",
    )
    has_signal = False

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """The constants with the kernel in them."""
        return tissue, blood._replace(kernel=GaussianKernel(values[0]))

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Zero."""
        return jnp.zeros(())
