"""Every estimator on one slice and on one volume."""

import dataclasses
from typing import Any

from cases import METHODS, run_method

from asl_pinn.data import AslData
from bench.measure import of_copy, row, time_calls

_QUICK = ("nlls", "spatial-map", "neural-field")
_SLICE = (
    "nlls",
    "nlls-smoothed",
    "spatial-map-no-covariates",
    "spatial-map",
    "neural-field-no-covariates",
    "neural-field",
    "pinn",
)
_VOLUME = ("nlls", "nlls-smoothed", "spatial-map", "neural-field")
_N_SLICES = 20


def rows(
    slice_data: AslData,
    brain: AslData,
    repeats: int,
    volume_repeats: int,
    quick: bool,
    bounds: dict[str, float],
) -> list[dict[str, Any]]:
    """Rows of the estimators with their defaults.

    Parameters
    ----------
    slice_data : AslData
        The central slice.
    brain : AslData
        The whole brain, of which the volume is the middle 20 slices.
    repeats, volume_repeats : int
        Runs of each on the slice and on the volume.
    quick : bool
        Whether to time the defaults of three methods on the slice alone.
    bounds : dict
        Limits of the machine.

    Returns
    -------
    list of dict
    """
    if quick:
        return [_row(name, "one slice", slice_data, repeats, bounds) for name in _QUICK]
    volume = _middle(brain)
    return [
        *(_row(name, "one slice", slice_data, repeats, bounds) for name in _SLICE),
        *(_row(name, f"{_N_SLICES} slices", volume, volume_repeats, bounds) for name in _VOLUME),
    ]


def _row(
    name: str, what: str, data: AslData, repeats: int, bounds: dict[str, float]
) -> dict[str, Any]:
    timing = time_calls(lambda: run_method(name, data)[0].values, repeats)
    method = METHODS[name]
    told = ", ".join(f"{key}={value}" for key, value in method.options.items())
    options = f" ({told})" if told else ""
    work = f"{method.estimator}{options}, {what}, {int(data.valid.sum())} voxels"
    return row(work, timing, of_limit=of_copy(data, timing.median, bounds))


def _middle(brain: AslData) -> AslData:
    first = (brain.mask.shape[2] - _N_SLICES) // 2
    part = slice(first, first + _N_SLICES)
    names = ("delta_m", "m0", "mask", "t1_tissue", "readout_delay")
    return dataclasses.replace(brain, **{name: getattr(brain, name)[:, :, part] for name in names})
