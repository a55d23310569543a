"""Numbers by which the quality of a result is judged, one row a run."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.evaluation.predictive_check import PredictiveCheck
from asl_pinn.models.base import Parameter
from asl_pinn.numerics.smoothing import blur_inside, blur_widths

TISSUES = {"GM": "grey matter", "WM": "white matter"}
"""Tissues of which numbers are told, by label."""

PURE = 0.7
"""Least fraction of a tissue in a voxel that counts as of it, as ASLPrep has it."""

_FWHM = 5.0  # of the blur before the quality evaluation index [mm]
_STATISTICS = {"mean": "Mean", "median": "Median", "sd": "Standard deviation over the voxels"}


def quality_numbers(
    data: AslData,
    maps: Maps,
    images: FloatArray,
    check: PredictiveCheck | None,
    tissues: Mapping[str, FloatArray],
    displacement: FloatArray | None = None,
) -> dict[str, float | int | None]:
    """Numbers about the maps of one run, and about the data behind them.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D)
        What it predicts [unit of delta_m].
    check : PredictiveCheck or None
        Of the result.
    tissues : mapping of str to ndarray, shape (X, Y, Z)
        Fractions by label: 'GM', 'WM', 'CSF', as far as they are known.
    displacement : ndarray, shape (V,), optional
        Framewise displacement of the volumes [mm].

    Returns
    -------
    dict of str to float or int or None
        By name of the column, None for what is not known; `quality_columns` says what each is.
        Statistics are over voxels that were fitted within the bounds, those of a tissue over
        voxels with a fraction of it of 0.7 at least.
    """
    mask = np.asarray(data.mask, bool)
    inside = {label: mask & (tissues[label] >= PURE) for label in TISSUES if label in tissues}
    n_mask, status = int(mask.sum()), np.asarray(maps.status)
    row: dict[str, float | int | None] = {
        "n_voxels": n_mask,
        "n_fitted": int((status == Status.FITTED).sum()),
        "mask_coverage": float(data.valid.sum() / max(n_mask, 1)),
    }
    for p in maps.model.parameters:
        if not p.tissue:
            row |= _statistics(maps, p, p.name, mask)
        for label, where in inside.items():
            if p.tissue in ("", label):
                name = f"{label.lower()}_{p.name.removesuffix(f'_{label.lower()}')}"
                row |= _statistics(maps, p, name, where)
    row |= _ratio(row)
    cbf = _whole(maps, tissues)
    grey = inside.get("GM")
    row["qei_cbf"] = None if cbf is None else quality_index(cbf, maps, tissues)
    row["percentage_negative_cbf"] = _negative(maps, grey)
    row |= _signal(data, maps, mask if grey is None or not grey.any() else grey)
    row |= _goodness(data, images, status == Status.FITTED, check)
    return row | _motion(displacement)


def quality_columns(maps: Maps, n_delays: int) -> dict[str, dict[str, str]]:
    """What each column of `quality_numbers` is, as a BIDS sidecar says it.

    Parameters
    ----------
    maps : Maps
        Whose model's parameters are meant.
    n_delays : int
        Number of delays.

    Returns
    -------
    dict of str to dict
        Description and Units by column.
    """
    described = dict(_DESCRIBED)
    for p in maps.model.parameters:
        for label in ("", *TISSUES):
            if p.tissue not in ("", label):
                continue
            own = p.name.removesuffix(f"_{label.lower()}") if label else p.name
            name = f"{label.lower()}_{own}" if label else own
            where = f"voxels of {TISSUES[label]}" if label else "the voxels"
            for key, statistic in _STATISTICS.items():
                described[f"{key}_{name}"] = _entry(f"{statistic} of {p.label} in {where}", p.unit)
            described[f"spatial_cov_{name}"] = _entry(
                f"Spatial coefficient of variation of {p.label} in {where}", "1"
            )
    for d in range(1, n_delays + 1):
        described[f"tsnr_delay{d}"] = _entry(
            f"Mean difference at delay {d} over grey matter, or over the mask where that is not "
            "known, divided by the standard deviation of the noise of one difference image",
            "1",
        )
    return described


def quality_index(cbf: FloatArray, maps: Maps, tissues: Mapping[str, FloatArray]) -> float | None:
    """Quality evaluation index of a CBF map, between 0 and 1.

    The cubic root of the product of three terms: likeness to a pseudo-CBF made of tissue fractions
    (2.5 for grey, 1 for white matter), spread within tissues, and negative values in grey matter.
    The map is blurred by 5 mm beforehand.

    Parameters
    ----------
    cbf : ndarray, shape (X, Y, Z)
        Cerebral blood flow [mL/100g/min].
    maps : Maps
        With the status of each voxel, and the affine.
    tissues : mapping of str to ndarray, shape (X, Y, Z)
        Fractions of 'GM', 'WM' and 'CSF'.

    Returns
    -------
    float or None
        None where the fractions, or two voxels at least of each tissue, are missing.

    References
    ----------
    Dolui et al., Proc ISMRM 25:682 (2017); J Magn Reson Imaging 60:2497-2508 (2024). The constants
    are those of the authors' program, as ASLPrep has them.
    """
    if not {"GM", "WM", "CSF"} <= tissues.keys():
        return None
    brain = np.isin(maps.status, (Status.FITTED, Status.ON_BOUND, Status.NOT_CONVERGED))
    parts = [brain & (tissues[label] >= PURE) for label in ("GM", "WM", "CSF")]
    parts = [part for part in parts if part.sum() > 1]
    grey, white = (brain & (tissues[label] >= PURE) for label in TISSUES)
    if grey.sum() < 2 or white.sum() < 2:
        return None
    blurred = blur_inside(cbf, brain, blur_widths(_FWHM, maps.affine, cbf.shape))
    structural = 2.5 * tissues["GM"] + tissues["WM"]
    likeness = max(_correlation(blurred[brain], structural[brain]), 0.0)
    dof = [int(part.sum()) - 1 for part in parts]
    pooled = sum(n * blurred[part].var() for n, part in zip(dof, parts, strict=True)) / sum(dof)
    mean = abs(float(blurred[grey].mean()))
    if mean == 0.0:
        return 0.0
    negative = float((blurred[grey] < 0.0).mean())
    alike = -math.expm1(-3.0126 * likeness**2.4419)
    return float(
        np.cbrt(alike * math.exp(-0.054 * (pooled / mean) ** 0.9272 - 2.8478 * negative**0.5196))
    )


def _statistics(
    maps: Maps, p: Parameter, name: str, where: NDArray[np.bool_]
) -> dict[str, float | None]:
    values = maps[p.name][where & maps.fitted(p.name)].astype(np.float64)
    if not values.size:
        return {f"{key}_{name}": None for key in _STATISTICS}
    mean, sd = float(values.mean()), float(values.std())
    row: dict[str, float | None] = {
        f"mean_{name}": mean,
        f"median_{name}": float(np.median(values)),
        f"sd_{name}": sd,
    }
    if p.name.startswith("cbf"):
        row[f"spatial_cov_{name}"] = sd / mean if mean > 0.0 else None
    return row


def _ratio(row: Mapping[str, float | None]) -> dict[str, float | None]:
    grey, white = row.get("mean_gm_cbf"), row.get("mean_wm_cbf")
    if grey is None or white is None or white <= 0.0:
        return {}
    return {"ratio_gm_wm_cbf": grey / white}


def _whole(maps: Maps, tissues: Mapping[str, FloatArray]) -> FloatArray | None:
    """CBF of the voxel as a whole, of tissues by their fractions."""
    if "cbf" in maps.values:
        return maps["cbf"]
    if {"cbf_gm", "cbf_wm"} <= maps.values.keys() and tissues.keys() >= TISSUES.keys():
        return maps["cbf_gm"] * tissues["GM"] + maps["cbf_wm"] * tissues["WM"]
    return None


def _negative(maps: Maps, grey: NDArray[np.bool_] | None) -> float | None:
    name = next((name for name in ("cbf", "cbf_gm") if name in maps.values), None)
    if name is None or grey is None:
        return None
    estimated = np.isin(maps.status, (Status.FITTED, Status.ON_BOUND, Status.NOT_CONVERGED))
    values = maps[name][grey & estimated & maps.told(name)]
    p = maps.model[name]
    lowest = 1e-5 * p.upper if p.lower == 0.0 else 0.0
    return 100.0 * float((values <= lowest).mean()) if values.size else None


def _signal(data: AslData, maps: Maps, where: NDArray[np.bool_]) -> dict[str, float | None]:
    """Temporal signal-to-noise ratio, of all delays and of each."""
    chosen = where & data.valid
    n_delays = data.protocol.n_delays
    if not maps.noise_sd or not chosen.any():
        return {"tsnr": None}
    means = data.delta_m[chosen].astype(np.float64).mean(axis=0) / maps.noise_sd
    return {
        "tsnr": float(means.mean()),
        **{f"tsnr_delay{d + 1}": float(means[d]) for d in range(n_delays)},
    }


def _goodness(
    data: AslData,
    images: FloatArray,
    fitted: NDArray[np.bool_],
    check: PredictiveCheck | None,
) -> dict[str, float | None]:
    explained = None
    if fitted.any() and data.protocol.n_delays > 1:
        measured = data.delta_m[fitted].astype(np.float64)
        weights = np.asarray(data.n_averages, np.float64)
        misfit = (weights * (measured - images[fitted]) ** 2).sum()
        total = (weights * (measured - measured.mean(axis=0)) ** 2).sum()
        explained = 1.0 - float(misfit / total) if total > 0.0 else None
    return {
        "explained_variance": explained,
        "reduced_chi_square": None if check is None else check.reduced_chi_square,
        "percentage_outliers": None if check is None else 100.0 * check.beyond,
    }


def _motion(displacement: FloatArray | None) -> dict[str, float | None]:
    known = np.array([]) if displacement is None else displacement[np.isfinite(displacement)]
    return {
        "mean_fd": float(known.mean()) if known.size else None,
        "max_fd": float(known.max()) if known.size else None,
    }


def _correlation(a: FloatArray, b: FloatArray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0.0 else 0.0


def _entry(description: str, units: str) -> dict[str, str]:
    return {"Description": description, "Units": units}


_DESCRIBED = {
    "n_voxels": _entry("Voxels of the mask", "1"),
    "n_fitted": _entry("Voxels that were fitted within the bounds", "1"),
    "mask_coverage": _entry("Part of the mask whose data, M0 and T1 can be used", "1"),
    "ratio_gm_wm_cbf": _entry("Mean CBF of grey matter over that of white matter", "1"),
    "qei_cbf": _entry(
        "Quality evaluation index of CBF (Dolui et al., Proc ISMRM 25:682, 2017; J Magn Reson "
        "Imaging 60:2497-2508, 2024), 0 to 1; it needs fractions of grey and white matter",
        "1",
    ),
    "percentage_negative_cbf": _entry(
        "Voxels of grey matter whose CBF is negative, or on a lower bound of 0, which takes the "
        "place of negative values",
        "percent",
    ),
    "tsnr": _entry(
        "Temporal signal-to-noise ratio: mean difference over grey matter (over the mask where "
        "that is not known) and delays, divided by the standard deviation of the noise of one "
        "difference image",
        "1",
    ),
    "explained_variance": _entry(
        "1 - sum of squared misfits over the sum of squared deviations of the differences from "
        "their mean at each delay, over the voxels fitted within the bounds; noise counts as "
        "misfit",
        "1",
    ),
    "reduced_chi_square": _entry(
        "Mean squared misfit in units of the noise, over the degrees of freedom", "1"
    ),
    "percentage_outliers": _entry(
        "Voxels whose data differ from the model by more than noise does in 1 % of them",
        "percent",
    ),
    "mean_fd": _entry(
        "Mean framewise displacement, from the confounds among the derivatives", "mm"
    ),
    "max_fd": _entry(
        "Largest framewise displacement, from the confounds among the derivatives", "mm"
    ),
}
