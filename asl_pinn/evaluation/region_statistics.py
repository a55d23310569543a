"""Statistics of maps by region: what goes into the table of a paper."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import Maps, Status
from asl_pinn.evaluation.quality import PURE, TISSUES
from asl_pinn.models.base import Parameter
from asl_pinn.models.compose import components

_ALL = "all"


def region_rows(
    maps: Maps,
    labels: NDArray[np.int32],
    regions: Mapping[int, str],
    tissues: Mapping[str, FloatArray] | None = None,
) -> list[dict[str, Any]]:
    """Statistics of each parameter in each region, a row for the region and for each tissue in it.

    Parameters
    ----------
    maps : Maps
        Result of an estimator.
    labels : ndarray of int, shape (X, Y, Z)
        Region of each voxel, 0 for none.
    regions : mapping of int to str
        Names by label.
    tissues : mapping of str to ndarray, shape (X, Y, Z), optional
        Fractions by label: 'GM', 'WM'; voxels with 0.7 of a tissue at least are of it.

    Returns
    -------
    list of dict
        By column, None where there is no value; `region_columns` says what each is. Statistics are
        over voxels that were fitted within the bounds. A parameter of a single tissue is left out
        of the rows of the other; the amplitude of a sparse component counts as 0 where it is
        absent, and its other parameters count where it is there.

    Examples
    --------
    >>> from asl_pinn import models
    >>> maps = Maps(models.get("buxton"), {"cbf": np.full((2, 1, 1), 60.0), "att":
    ...     np.array([1.0, 1.2]).reshape(2, 1, 1)}, np.ones((2, 1, 1), np.int8))
    >>> (row,) = region_rows(maps, np.full((2, 1, 1), 7), {7: "thalamus"})
    >>> row["name"], row["n_voxels"], row["mean_cbf"], round(row["mean_att"], 2)
    ('thalamus', 2, 60.0, 1.1)
    """
    places = {_ALL: np.ones(labels.shape, bool)} | {
        label: fraction >= PURE for label, fraction in (tissues or {}).items() if label in TISSUES
    }
    fitted = np.asarray(maps.status) == Status.FITTED
    rows = []
    for label, name in regions.items():
        for tissue, place in places.items():
            region = (labels == label) & place
            where = region & fitted
            row: dict[str, Any] = {
                "index": label,
                "name": name,
                "tissue": tissue,
                "n_voxels": int(where.sum()),
                "coverage": float(where.sum() / region.sum()) if region.any() else None,
            }
            for p in maps.model.parameters:
                if tissue == _ALL or p.tissue in ("", tissue):
                    row |= _statistics(maps, p, where)
            rows.append(row)
    return rows


def region_columns(maps: Maps) -> dict[str, dict[str, Any]]:
    """What each column of `region_rows` is, as a BIDS sidecar says it.

    Parameters
    ----------
    maps : Maps
        Whose model's parameters are meant.

    Returns
    -------
    dict of str to dict
        Description, and Units or Levels, by column.
    """
    described: dict[str, dict[str, Any]] = {
        "index": {"Description": "Label of the region in the atlas"},
        "name": {"Description": "Name of the region"},
        "tissue": {
            "Description": f"Voxels of the region that count; of a tissue, those with {PURE:g} of "
            "it at least",
            "Levels": {_ALL: "All voxels of the region"}
            | {label: f"Voxels of {name}" for label, name in TISSUES.items()},
        },
        "n_voxels": {"Description": "Voxels that were fitted within the bounds", "Units": "1"},
        "coverage": {
            "Description": "Part of the voxels of the region, or of its tissue, that n_voxels is",
            "Units": "1",
        },
    }
    for p in maps.model.parameters:
        for key, text in _DESCRIBED.items():
            described[f"{key}_{p.name}"] = {
                "Description": text.format(label=p.label),
                "Units": p.unit,
            }
    return described


_DESCRIBED = {
    "mean": "Mean of {label}",
    "median": "Median of {label}",
    "weighted_mean": "Mean of {label}, each voxel weighted by the inverse of its variance",
    "sd_of_mean": "Standard deviation of the mean of {label}, from draws from the posterior: of "
    "the noise, and not over the voxels",
}


def _statistics(maps: Maps, p: Parameter, where: NDArray[np.bool_]) -> dict[str, float | None]:
    chosen = where if p.sparse else where & maps.told(p.name)
    values = maps[p.name][chosen].astype(np.float64)
    if not values.size:
        return {f"{key}_{p.name}": None for key in _DESCRIBED}
    return {
        f"mean_{p.name}": float(values.mean()),
        f"median_{p.name}": float(np.median(values)),
        f"weighted_mean_{p.name}": _weighted(maps, p, chosen, values),
        f"sd_of_mean_{p.name}": _sd_of_mean(maps, p, chosen),
    }


def _weighted(
    maps: Maps, p: Parameter, where: NDArray[np.bool_], values: FloatArray
) -> float | None:
    """None without standard deviations, or where one is 0, as of what is absent."""
    if p.name not in maps.sd:
        return None
    sd = maps.sd[p.name][where].astype(np.float64)
    if not (sd > 0.0).all():
        return None
    return float(np.average(values, weights=sd**-2))


def _sd_of_mean(maps: Maps, p: Parameter, where: NDArray[np.bool_]) -> float | None:
    """None without draws, and for what draws have in other voxels than the map: arrival times."""
    of_components = {name for others in components(maps.model).values() for name in others}
    if p.name not in maps.samples or p.name in of_components:
        return None
    return float(maps.samples[p.name][:, where].astype(np.float64).mean(axis=1).std(ddof=1))
