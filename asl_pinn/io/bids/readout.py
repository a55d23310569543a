"""Readouts that no kinetic model here describes: Look-Locker, small flip angles, several echoes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asl_pinn.errors import InputError
from asl_pinn.io.bids.sidecar import Sidecar, flag, numbers
from asl_pinn.io.bids.volume_types import is_perfusion

_LEAST_FLIP_ANGLE = 60.0
_SAME_ECHO = 1e-4  # seconds in which two echo times must agree to be one


def check_readout(sidecar: Sidecar, types: Sequence[str]) -> None:
    """Refuse series whose differences are not those of one excitation and one echo.

    An excitation by an angle a leaves cos(a) of the labelled magnetisation, so that after n of
    them cos(a)^n is left: trains of small angles, as Look-Locker (25 to 40 degrees) and FLASH
    readouts have, would show later delays too small, and so CBF and ATT too low. Readouts of
    one excitation, such as EPI and 3D GRASE, state 90 degrees, or the angle of their refocusing
    pulses, and balanced SSFP 70. Volumes of several echoes differ by T2* and are no repeats.

    Parameters
    ----------
    sidecar : Sidecar
        LookLocker, FlipAngle and EchoTime count: one number, or one per volume.
    types : sequence of str
        Volume types; those of M0 and without excitation may differ.

    Raises
    ------
    InputError
        If LookLocker is true, a flip angle is below 60 degrees, or echo times differ.

    References
    ----------
    Günther et al., Magn Reson Med 46:974-984 (2001).
    """
    if flag(sidecar, "LookLocker", default=False):
        raise InputError(
            f"{sidecar.path}: LookLocker is true, and each excitation uses up label that later "
            "readouts miss, which is not corrected for; Look-Locker series are not supported"
        )
    angles = _of_perfusion(sidecar, "FlipAngle", types)
    if not (angles >= _LEAST_FLIP_ANGLE).all():
        raise InputError(
            f"{sidecar.path}: FlipAngle is {angles.min():g} degrees, as in trains of excitations "
            "that use up the label, which is not corrected for; readouts of less than "
            f"{_LEAST_FLIP_ANGLE:g} degrees are not supported"
        )
    echoes = _of_perfusion(sidecar, "EchoTime", types)
    if echoes.size and not np.ptp(echoes) <= _SAME_ECHO:
        several = ", ".join(f"{echo:g}" for echo in np.unique(echoes))
        raise InputError(
            f"{sidecar.path}: EchoTime holds several values ({several} s), and volumes of "
            "several echoes are no repeats; keep the volumes of one echo in the series"
        )


def _of_perfusion(sidecar: Sidecar, key: str, types: Sequence[str]) -> NDArray[np.float64]:
    """Values of a key that are not of M0 alone; all where there is not one per volume."""
    if sidecar.metadata.get(key) is None:
        return np.empty(0)
    values = numbers(sidecar, key)
    return values[is_perfusion(types)] if len(values) == len(types) else values
