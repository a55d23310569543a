"""Whether M0 was acquired as the series was, so that one may be divided by the other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.inheritance import inherited_sidecar
from asl_pinn.io.bids.sidecar import Sidecar, flag, numbers
from asl_pinn.io.bids.volume_types import is_perfusion

_SAME_ECHO = 1e-3  # seconds, in which T2* of 40 ms takes 2.5 % of the signal
_SAME_ANGLE = 5.0  # degrees


def m0_remarks(run: AslRun, types: Sequence[str], source: Path) -> list[str]:
    """What makes M0 another than that of the series.

    Parameters
    ----------
    run : AslRun
    types : sequence of str
        Volume types of the series.
    source : Path
        Where M0 came from, from `read_m0`.

    Returns
    -------
    list of str
        Sentences about suppression, echo time, flip angle and scale of M0.
    """
    kind = run.sidecar.metadata.get("M0Type")
    if kind not in ("Separate", "Included"):
        return []
    separate = kind == "Separate"
    scan = inherited_sidecar(source, run.bids_dir) if separate else run.sidecar
    used = is_perfusion(types)
    taken = None if separate else np.array([kind == "m0scan" for kind in types])
    found = []
    if separate and flag(scan, "BackgroundSuppression", default=False):
        found.append(
            f"M0 ({source.name}) was acquired with background suppression: it is too small, and "
            "CBF too high"
        )
    for key, same, unit, effect in (
        ("EchoTime", _SAME_ECHO, "s", "T2* weights them differently"),
        ("FlipAngle", _SAME_ANGLE, "degrees", "they have other shares of the magnetisation"),
    ):
        own, others = _values(scan, key, taken), _values(run.sidecar, key, used)
        if own.size and others.size and abs(own.mean() - others.mean()) > same:
            found.append(
                f"{key} of M0 is {own.mean():g} {unit} and that of the series {others.mean():g} "
                f"{unit}: {effect}, and CBF is off by as much"
            )
    found += _scales(scan, run.sidecar) if separate else []
    return found


def _scales(scan: Sidecar, series: Sidecar) -> list[str]:
    """Scale factors of Philips that differ, unless the converter has applied them."""
    applied = "UsePhilipsFloatNotDisplayScaling"
    if scan.metadata.get(applied) == series.metadata.get(applied) == 1:
        return []
    for key in ("PhilipsScaleSlope", "PhilipsRescaleSlope"):
        own, others = _values(scan, key, None), _values(series, key, None)
        if own.size and others.size and not np.isclose(own[0], others[0], rtol=0.01):
            return [
                f"{key} of M0 is {own[0]:g} and that of the series {others[0]:g}: unless both were "
                "converted to one scale, CBF is off by their ratio"
            ]
    return []


def _values(sidecar: Sidecar, key: str, chosen: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Values of a key, those of chosen volumes where there is one for each."""
    if sidecar.metadata.get(key) is None:
        return np.empty(0)
    values = numbers(sidecar, key)
    if chosen is not None and len(values) == len(chosen) and chosen.any():
        return values[chosen]
    return values
