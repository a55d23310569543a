"""All that is wrong with the description of a series, in one go."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from asl_pinn.errors import InputError
from asl_pinn.io.bids.derived import check_image_type
from asl_pinn.io.bids.labeling import labeling_efficiency, vascular_crushing
from asl_pinn.io.bids.readout import check_readout
from asl_pinn.io.bids.series import is_time_encoded, time_encoding
from asl_pinn.io.bids.sidecar import Sidecar, require
from asl_pinn.io.bids.timing import bolus_duration, labeling_type, readout_delay, volume_times
from asl_pinn.io.bids.vendor import contradiction

Value = TypeVar("Value")


def find_faults(sidecar: Sidecar, types: Sequence[str], shape: tuple[int, ...]) -> list[str]:
    """What stands in the way of quantifying a series, as far as its description tells.

    Parameters
    ----------
    sidecar : Sidecar
        Of the series.
    types : sequence of str
        Volume types.
    shape : tuple of int
        (X, Y, Z).

    Returns
    -------
    list of str
        A line each, in the order in which reading would meet them; empty where there is none.
    """
    found: list[str] = []

    def attempt(check: Callable[[], Value]) -> Value | None:
        try:
            return check()
        except InputError as error:
            found.append(str(error))
            return None

    attempt(lambda: check_image_type(sidecar, types, []))
    attempt(lambda: check_readout(sidecar, types))
    kind = attempt(lambda: labeling_type(sidecar))
    attempt(lambda: vascular_crushing(sidecar, types))
    attempt(lambda: labeling_efficiency(sidecar, []))
    attempt(lambda: _check_durations(sidecar))
    if kind == "PASL":
        attempt(lambda: bolus_duration(sidecar))
    else:
        attempt(lambda: volume_times(sidecar, "LabelingDuration", types))
    attempt(lambda: volume_times(sidecar, "PostLabelingDelay", types, zero=True))
    if is_time_encoded(sidecar, types):
        attempt(lambda: time_encoding(sidecar))
    attempt(lambda: require(sidecar, "M0Type"))
    attempt(lambda: readout_delay(sidecar, shape, []))
    return list(dict.fromkeys(found))


def refuse(faults: Sequence[str], sidecar: Sidecar) -> None:
    """Refuse a series for all its faults at once.

    Parameters
    ----------
    faults : sequence of str
        From `find_faults`.
    sidecar : Sidecar
        Of the series.

    Raises
    ------
    InputError
        If there is any: the fault itself, or all of them numbered.
    """
    if len(faults) == 1:
        raise InputError(faults[0])
    if faults:
        own = [fault.removeprefix(f"{sidecar.path}: ") for fault in faults]
        listed = " ".join(f"({number}) {fault};" for number, fault in enumerate(own, 1))
        raise InputError(f"{sidecar.path}: {len(faults)} faults: {listed.removesuffix(';')}")


def _check_durations(sidecar: Sidecar) -> None:
    said = contradiction(sidecar.metadata)
    if said:
        raise InputError(
            f"{sidecar.path}: {said}; correct LabelingDuration, or remove the key that is wrong"
        )
