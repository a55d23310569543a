"""Noise of one image, measured from a BIDS dataset."""

import math
import os
from pathlib import Path

import numpy as np

from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.io import bids
from asl_pinn.io.bids.sidecar import Sidecar
from asl_pinn.models import get
from asl_pinn.models.choice import default_model


def image_noise(folder: str | os.PathLike[str]) -> float:
    """Standard deviation of one image over M0, from the misfits of `nlls` with tissue alone.

    What that model does not describe, such as arteries, counts as noise.

    Parameters
    ----------
    folder : str or path
        BIDS dataset; its first ASL series counts.

    Returns
    -------
    float
        Of one image, before pairs are subtracted or an encoded cycle is decoded, over the median of
        M0 in the mask.

    Raises
    ------
    InputError
        If there is no series, it cannot be read, or it has too few delays to tell noise.
    """
    run = bids.find_runs(Path(folder))[0]
    data, _ = bids.read_run(run)
    method, model = "nlls", get(default_model(data.protocol))
    estimator = get_estimator(method)
    options = estimator.options(sd="curvature")
    maps = estimate_maps(data, method, estimator, model, options, RunContext())
    if maps.noise_sd is None:
        raise InputError(
            f"{run.path}: {data.protocol.n_delays} delays do not tell noise from signal; state the "
            "noise as tSNR or in per cent of M0"
        )
    m0 = float(np.median(data.m0[data.valid]))
    return float(maps.noise_sd) / m0 / _difference_factor(run.sidecar)


def _difference_factor(sidecar: Sidecar) -> float:
    """Noise of a difference over that of an image."""
    stated = sidecar.metadata
    if not {"TimeEncodedMatrixSize", "TimeEncodedMatrix"} & set(stated):
        return math.sqrt(2.0)
    size = stated.get("TimeEncodedMatrixSize") or len(stated["TimeEncodedMatrix"])
    return 2.0 / math.sqrt(size)
