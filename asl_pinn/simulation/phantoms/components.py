"""What a model needs of a phantom beyond perfusion: dispersion, constants, arteries."""

import dataclasses

import numpy as np

from asl_pinn.data import Phantom
from asl_pinn.errors import InputError
from asl_pinn.models.base import KineticModel
from asl_pinn.simulation.phantoms.arteries import with_arteries

_SD_PER_ATT = 0.15
_UNIFORM = ("t1_blood", "exchange_rate")  # at a typical value in all of the brain


def with_dispersion(phantom: Phantom, sd_per_att: float = _SD_PER_ATT) -> Phantom:
    """Give a phantom dispersion that grows with ATT, as that of blood does on its way.

    Parameters
    ----------
    phantom : Phantom
        With a map of ATT.
    sd_per_att : float
        Standard deviation of the delays, over ATT.

    Returns
    -------
    Phantom
        With values 'dispersion_sd' [s] of a Gaussian kernel, and 'dispersion_rate' [1/s] and
        'dispersion_time_to_peak' [s] of a gamma kernel of the same standard deviation, with a
        shape of 2.

    Raises
    ------
    InputError
        If the phantom has no map of ATT, or `sd_per_att` is not positive.

    Examples
    --------
    >>> from asl_pinn.simulation.phantoms import mni_phantom
    >>> brain = with_dispersion(mni_phantom(resolution=4))
    >>> bool((brain.dispersion_sd == 0.15 * brain.att).all())
    True
    """
    if "att" not in phantom.values:
        raise InputError("dispersion grows with ATT, of which the phantom has no map")
    if not sd_per_att > 0.0:
        raise InputError(f"the dispersion over ATT must be positive, it is {sd_per_att}")
    sd = sd_per_att * phantom["att"]
    # Of shape 1 + s p = 2 the SD is sqrt(2)/s and the time to peak 1/s.
    time_to_peak = sd / np.sqrt(2.0)
    rate = np.divide(1.0, time_to_peak, out=np.zeros_like(sd), where=time_to_peak > 0.0)
    dispersed = {
        "dispersion_sd": sd,
        "dispersion_rate": rate,
        "dispersion_time_to_peak": time_to_peak,
    }
    return dataclasses.replace(phantom, values={**phantom.values, **dispersed})


def complete(phantom: Phantom, model: KineticModel, *, seed: int = 0) -> Phantom:
    """Give a whole brain in MNI space the maps that a model needs and the phantom lacks.

    Arteries and dispersion are those of `with_arteries` and `with_dispersion`; the T1 of blood and
    the exchange rate are typical values, the same everywhere.

    Parameters
    ----------
    phantom : Phantom
        With maps of perfusion.
    model : KineticModel
        Whose parameters are needed.
    seed : int
        Of the arteries.

    Returns
    -------
    Phantom
        `phantom` itself where it lacks nothing that is known here.

    Raises
    ------
    InputError
        As `with_arteries`.

    Examples
    --------
    >>> from asl_pinn import models
    >>> from asl_pinn.simulation.phantoms import mni_phantom
    >>> brain = mni_phantom(resolution=4)
    >>> complete(brain, models.get("buxton")) is brain
    True
    >>> "exchange_rate" in complete(brain, models.get("exchange")).values
    True
    """
    lacking = {p.name: p for p in model.parameters if p.name not in phantom.values}
    if lacking.keys() & {"abv", "abat"}:
        phantom = with_arteries(phantom, seed=seed)
    if any(name.startswith("dispersion_") for name in lacking):
        phantom = with_dispersion(phantom)
    uniform = {
        name: np.where(phantom.mask, lacking[name].typical, 0.0)
        for name in _UNIFORM
        if name in lacking
    }
    if not uniform:
        return phantom
    return dataclasses.replace(phantom, values={**phantom.values, **uniform})
