"""How blood was labelled, as a sidecar states it."""

from collections.abc import Sequence

import numpy as np

from asl_pinn.acquisition.constants import (
    CASL_LABELING_EFFICIENCY,
    LABELING_EFFICIENCY,
    PASL_LABELING_EFFICIENCY,
)
from asl_pinn.errors import InputError
from asl_pinn.io.bids.sidecar import Sidecar, flag, number, numbers
from asl_pinn.io.bids.timing import labeling_type
from asl_pinn.io.bids.volume_types import is_perfusion

_EFFICIENCIES = {
    "PCASL": LABELING_EFFICIENCY,
    "CASL": CASL_LABELING_EFFICIENCY,
    "PASL": PASL_LABELING_EFFICIENCY,
}
_EFFICIENCY_PER_PULSE = 0.95
_LEAST_EFFICIENCY = 0.1  # what inverts less than a tenth labels nothing
_MOST_PULSES = 20


def labeling_efficiency(
    sidecar: Sidecar, notes: list[str], given: float | None = None
) -> tuple[float, str]:
    """Inversion efficiency, background-suppression losses included.

    Parameters
    ----------
    sidecar : Sidecar
        LabelingEfficiency is used as stated; else that of the ArterialSpinLabelingType (0.85 for
        PCASL, 0.68 for CASL, 0.98 for PASL), times 0.95 for each pulse of
        BackgroundSuppressionNumberPulses.
    notes : list of str
        Gets a line where the value is neither the stated nor the given one.
    given : float, optional
        In place of all that.

    Returns
    -------
    efficiency : float
    source : str
        'LabelingEfficiency' of the sidecar, the flag, or a default in words.

    Raises
    ------
    InputError
        If the labelling is of another type or a value is out of range.
    """
    kind = labeling_type(sidecar)
    if given is not None:
        return given, "--labeling_efficiency"
    if sidecar.metadata.get("LabelingEfficiency") is not None:
        efficiency = number(sidecar, "LabelingEfficiency")
        if not _LEAST_EFFICIENCY <= efficiency <= 1.0:
            raise InputError(
                f"{sidecar.path}: LabelingEfficiency must be {_LEAST_EFFICIENCY:g} to 1, "
                f"it is {efficiency:g}"
            )
        return efficiency, "LabelingEfficiency"
    efficiency = _EFFICIENCIES[kind]
    if not flag(sidecar, "BackgroundSuppression", default=False):
        notes.append(f"labelling efficiency {efficiency:g}: not stated, the default for {kind}")
        return efficiency, f"default for {kind}"
    if sidecar.metadata.get("BackgroundSuppressionNumberPulses") is None:
        notes.append(
            f"labelling efficiency {efficiency:g}: the number of background-suppression pulses "
            "is not stated, so their losses are left out and CBF comes out low"
        )
        return efficiency, f"default for {kind}, without losses by background suppression"
    pulses = number(sidecar, "BackgroundSuppressionNumberPulses")
    if not 0 <= pulses <= _MOST_PULSES or pulses != int(pulses):
        raise InputError(
            f"{sidecar.path}: BackgroundSuppressionNumberPulses must be a count of at most "
            f"{_MOST_PULSES}, it is {pulses:g}"
        )
    efficiency *= _EFFICIENCY_PER_PULSE ** int(pulses)
    notes.append(
        f"labelling efficiency {efficiency:.4g}: not stated, the default for {kind} with "
        f"{int(pulses)} background-suppression pulses"
    )
    return efficiency, f"default for {kind} with {int(pulses)} background-suppression pulses"


def vascular_crushing(sidecar: Sidecar, types: Sequence[str]) -> bool | None:
    """Whether gradients suppress the signal of blood in large arteries.

    Parameters
    ----------
    sidecar : Sidecar
        VascularCrushing counts, and VascularCrushingVENC: one number or one per volume [cm/s],
        0 where the gradients were off.
    types : sequence of str
        Volume types; the VENC of M0 volumes does not count.

    Returns
    -------
    bool or None
        None where nothing is stated.

    Raises
    ------
    InputError
        If the two contradict one another, some volumes were crushed and others not, or a value
        is none.
    """
    stated = sidecar.metadata.get("VascularCrushing")
    stated = None if stated is None else flag(sidecar, "VascularCrushing")
    if sidecar.metadata.get("VascularCrushingVENC") is None:
        return stated
    velocities = numbers(sidecar, "VascularCrushingVENC")
    if len(velocities) == len(types):
        velocities = velocities[is_perfusion(types)]
    if not (np.isfinite(velocities) & (velocities >= 0.0)).all():
        raise InputError(
            f"{sidecar.path}: VascularCrushingVENC must be zero or more, it holds "
            f"{velocities.min():g}"
        )
    crushed = bool((velocities > 0.0).any())
    if crushed and (velocities == 0.0).any():
        raise InputError(
            f"{sidecar.path}: VascularCrushingVENC is 0 for some volumes alone, and volumes with "
            "and without arterial signal are no repeats; keep one kind in a series"
        )
    if stated not in (None, crushed):
        raise InputError(
            f"{sidecar.path}: VascularCrushing is {str(stated).lower()}, but VascularCrushingVENC "
            f"is {velocities.max():g} cm/s; correct one of them"
        )
    return crushed
