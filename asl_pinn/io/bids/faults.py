"""All that is wrong with the description of a series, in one go."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from asl_pinn.errors import InputError
from asl_pinn.io.bids.dataset import AslRun
from asl_pinn.io.bids.derived import check_image_type
from asl_pinn.io.bids.encoded import encoding_of, is_time_encoded, sub_bolus_durations
from asl_pinn.io.bids.labeling import labeling_efficiency, vascular_crushing
from asl_pinn.io.bids.readout import check_readout
from asl_pinn.io.bids.sidecar import Sidecar
from asl_pinn.io.bids.timing import bolus_duration, labeling_type, readout_delay, volume_times
from asl_pinn.io.bids.vendor import contradiction
from asl_pinn.io.bids.volume_types import is_perfusion, read_volume_types

Value = TypeVar("Value")


def describe_volumes(
    run: AslRun, shape: tuple[int, ...], *, m0_given: bool = False
) -> tuple[list[str], list[str]]:
    """Volume types of a series, and all that stands in the way of quantifying it.

    Parameters
    ----------
    run : AslRun
    shape : tuple of int
        (X, Y, Z, V).
    m0_given : bool
        Whether M0 is not that of the dataset.

    Returns
    -------
    types : list of str
        As its aslcontext file lists them; of one that cannot be used, 'deltam' for each.
    faults : list of str
        A line each, in the order in which reading would meet them; empty where there is none.

    Raises
    ------
    InputError
        If the sidecar cannot be read at all.
    """
    sidecar, faults = run.sidecar, []
    types = ["deltam"] * shape[-1]
    try:
        types = read_volume_types(require_context(run), run.images or run.path, shape[-1])
    except InputError as error:
        faults.append(str(error))
    return types, [*faults, *find_faults(sidecar, types, shape[:3], run.m0scans, m0_given)]


def require_context(run: AslRun) -> Path:
    """The aslcontext file of a series.

    Parameters
    ----------
    run : AslRun

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is none.
    """
    if run.context is None:
        derived = "desc" in run.entities
        other = ", or quantify the acquired dataset with --preprocessed" if derived else ""
        raise InputError(
            f"{run.path.with_name(f'{run.stem}_aslcontext.tsv')}: no such file; "
            f"list the type of each volume in it{other}"
        )
    return run.context


def find_faults(
    sidecar: Sidecar,
    types: Sequence[str],
    shape: tuple[int, ...],
    m0scans: Sequence[Path] = (),
    m0_given: bool = False,
) -> list[str]:
    """What in the sidecar of a series stands in the way of quantifying it.

    Parameters
    ----------
    sidecar : Sidecar
        Of the series.
    types : sequence of str
        Volume types.
    shape : tuple of int
        (X, Y, Z).
    m0scans : sequence of Path
        Of the participant, for a hint.
    m0_given : bool
        Whether M0 is not that of the dataset.

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
        encoded = is_time_encoded(sidecar, types)
        attempt(lambda: volume_times(sidecar, "LabelingDuration", types, zero=encoded))
    delays = attempt(lambda: volume_times(sidecar, "PostLabelingDelay", types, zero=True))
    if is_time_encoded(sidecar, types):
        encoding = attempt(lambda: encoding_of(sidecar, []))
        of_train = delays is None or np.ptp(delays[is_perfusion(types)]) == 0.0
        if encoding is not None and of_train:
            attempt(lambda: sub_bolus_durations(sidecar, encoding.matrix.shape[1]))
    if not m0_given:
        attempt(lambda: _check_m0_type(sidecar, types, m0scans))
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


def _check_m0_type(sidecar: Sidecar, types: Sequence[str], m0scans: Sequence[Path]) -> None:
    if sidecar.metadata.get("M0Type") is not None:
        return
    seen = ""
    if "m0scan" in types:
        seen = f"; {types.count('m0scan')} volumes are m0scan: is it Included?"
    elif m0scans:
        seen = f"; there is {m0scans[0].name}: is it Separate?"
    raise InputError(
        f"{sidecar.path}: required key 'M0Type' is missing{seen}; add it to the JSON sidecar"
    )


def _check_durations(sidecar: Sidecar) -> None:
    said = contradiction(sidecar.metadata)
    if said:
        raise InputError(
            f"{sidecar.path}: {said}; correct LabelingDuration, or remove the key that is wrong"
        )
