"""What difference images cannot look like, whatever the brain."""

from collections.abc import Sequence

import numpy as np

from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.io.bids.encoded import encoding_of, is_time_encoded
from asl_pinn.io.bids.sidecar import Sidecar

_LEAST_DEVIATIONS = 0.1
_LEAST_ERRORS = 5.0
_LARGEST_DIFFERENCE = 0.1


def check_differences(
    data: AslData, sidecar: Sidecar, types: Sequence[str], notes: list[str]
) -> None:
    """Refuse differences that are label - control, and note those too large for their M0.

    Blood that was labelled lowers the signal, so that control - label is positive wherever
    there is perfusion. The sign is wrong where the mean over the valid voxels, each averaged
    over its delays, is negative by more than five standard errors and more than a tenth of
    the standard deviation.

    Parameters
    ----------
    data : AslData
        With a valid voxel at least.
    sidecar : Sidecar
        Of the series.
    types : sequence of str
        Volume types of the series, which say how to mend it.
    notes : list of str
        Gets a line where the median difference exceeds a tenth of M0.

    Raises
    ------
    InputError
        If the differences are label - control.
    """
    valid = data.valid
    weights = np.asarray(data.n_averages, np.float64)
    mean = data.delta_m[valid].astype(np.float64) @ weights / weights.sum()
    deviation = mean.std()
    error = deviation / np.sqrt(len(mean))
    if mean.mean() < -max(_LEAST_DEVIATIONS * deviation, _LEAST_ERRORS * error):
        percent = 100.0 * mean.mean() / data.m0[valid].mean()
        raise InputError(
            f"{sidecar.path}: the mean difference over the mask is negative ({percent:.2g} % of "
            f"M0), label and control are interchanged; {_remedy(sidecar, types)}"
        )
    ratio = float(np.median(np.abs(data.delta_m[valid]).max(axis=-1) / data.m0[valid]))
    if ratio > _LARGEST_DIFFERENCE:
        notes.append(
            f"the largest difference of the median voxel is {100.0 * ratio:.0f} % of M0, more than "
            "perfusion explains: check that the series and M0 have the same scale"
        )


def _remedy(sidecar: Sidecar, types: Sequence[str]) -> str:
    if is_time_encoded(sidecar, types):
        flipped = str(not encoding_of(sidecar, []).sign_flip).lower()
        return f"set TimeEncodedSignFlip to {flipped}, or correct the encoding matrix"
    if "control" in types:
        return "exchange control and label in the volume types of aslcontext.tsv"
    return "change the sign of the deltam images"
