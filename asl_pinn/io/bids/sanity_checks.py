"""What difference images cannot look like, whatever the brain."""

from collections.abc import Sequence

import numpy as np

from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.io.bids.encoded import encoding_of, is_time_encoded
from asl_pinn.io.bids.sidecar import Sidecar

_LEAST_DEVIATIONS = 0.1
_LEAST_ERRORS = 5.0


def check_differences(
    data: AslData, sidecar: Sidecar, types: Sequence[str], *, keep_sign: bool = False
) -> None:
    """Refuse differences that are zero everywhere, or label - control.

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
    keep_sign : bool
        Whether to take negative differences as they are.

    Raises
    ------
    InputError
        If the differences are all zero, or label - control.
    """
    valid = data.valid
    if not data.delta_m[valid].any():
        raise InputError(
            f"{sidecar.path}: the differences are zero in all voxels of the mask; check the images "
            "and the volume types"
        )
    weights = np.asarray(data.n_averages, np.float64)
    mean = data.delta_m[valid].astype(np.float64) @ weights / weights.sum()
    deviation = mean.std()
    error = deviation / np.sqrt(len(mean))
    if not keep_sign and mean.mean() < -max(_LEAST_DEVIATIONS * deviation, _LEAST_ERRORS * error):
        tiny = np.finfo(np.float64).tiny
        percent = 100.0 * mean.mean() / data.m0[valid].astype(np.float64).mean()
        raise InputError(
            f"{sidecar.path}: the mean difference over the mask is negative ({percent:.2g} % of "
            f"M0, {-mean.mean() / max(error, tiny):.3g} standard errors below zero), as if label "
            f"and control were interchanged; {_remedy(sidecar, types)}; or take the differences "
            "as they are with --keep_sign"
        )


def _remedy(sidecar: Sidecar, types: Sequence[str]) -> str:
    if is_time_encoded(sidecar, types):
        flipped = str(not encoding_of(sidecar, []).sign_flip).lower()
        return f"set TimeEncodedSignFlip to {flipped}, or correct the encoding matrix"
    if "control" in types:
        return "exchange control and label in the volume types of aslcontext.tsv"
    return "change the sign of the deltam images"
