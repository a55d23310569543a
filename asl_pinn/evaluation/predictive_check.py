"""Whether a fitted model describes the data that it was fitted to: a posterior predictive check."""

import dataclasses

import numpy as np
import scipy

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps, Status
from asl_pinn.evaluation.prediction import predicted
from asl_pinn.models.compose import components

_LEVEL = 0.99

# Calibration of the warnings, on simulations that the model describes: ICBM 152 phantom, central
# slice, Hadamard-8, tSNR 0.5, 1.5 and 5. There 1.1 to 1.8 % of the voxels lay beyond the quantile
# of 99 %, and mean misfits were at most 0.07 noise SDs where voxels were fitted together, and 0.28
# where each was fitted by itself: a CBF that must not be negative takes noise for signal.
_MOST_BEYOND = 0.03
_MOST_MISFIT, _MOST_MISFIT_ALONE = 0.15, 0.4
_ALONE = 1.0  # parameters that each voxel's data determine, from where it is fitted by itself


@dataclasses.dataclass(frozen=True)
class PredictiveCheck:
    """How the data differ from what a fitted model predicts; over voxels fitted within the bounds.

    Attributes
    ----------
    mean_misfit : ndarray, shape (D,)
        Measured less predicted at each delay, the mean over the voxels [noise SDs of that delay].
    degrees_of_freedom : float
        Delays less the parameters that the data of one voxel determine.
    reduced_chi_square : float
        Mean over the voxels of the sum of squared misfits, over the degrees of freedom.
    beyond : float
        Fraction of the voxels whose sum noise would exceed in one of a hundred.
    warning : str
        What does not agree, in a sentence; '' where the model describes the data.
    """

    mean_misfit: FloatArray
    degrees_of_freedom: float
    reduced_chi_square: float
    beyond: float
    warning: str


def predictive_check(
    data: AslData, maps: Maps, images: FloatArray | None = None
) -> PredictiveCheck | None:
    """Compare the data with what the maps predict.

    In units of the noise that the estimator found, the sum of squared misfits of a voxel follows a
    chi-square distribution; the fit absorbs as many degrees of freedom as parameters that the data
    of the voxel determine, which the standard deviations tell: few, where voxels are fitted
    together. The noise comes from the same misfits, mostly by a median or with outliers apart, so
    that what is wrong everywhere to the same degree passes for noise, unless it is systematic.

    Parameters
    ----------
    data : AslData
        What was fitted.
    maps : Maps
        Result of an estimator on it.
    images : ndarray, shape (X, Y, Z, D), optional
        What it predicts, from `predicted`, if that is there already [unit of delta_m].

    Returns
    -------
    PredictiveCheck or None
        None where the noise is not known, or no voxel has been fitted.

    References
    ----------
    Gelman, Meng and Stern, Stat Sinica 6:733-807 (1996).
    """
    fitted = (np.asarray(maps.status) == Status.FITTED) & data.valid
    if maps.noise_sd is None or not fitted.any():
        return None
    images = predicted(data, maps) if images is None else images
    units = np.sqrt(np.asarray(data.n_averages, np.float64)) / maps.noise_sd
    misfit = units * (data.delta_m - images)[fitted].astype(np.float64)
    absorbed = _absorbed(data, maps, images, units)
    n_delays = misfit.shape[-1]
    dof = n_delays - absorbed
    if dof <= 0.0:
        return None
    squares = np.sum(misfit**2, axis=-1)
    found = PredictiveCheck(
        mean_misfit=misfit.mean(axis=0),
        degrees_of_freedom=dof,
        reduced_chi_square=float(squares.mean() / dof),
        beyond=float(np.mean(squares > scipy.stats.chi2.ppf(_LEVEL, dof))),
        warning="",
    )
    most = _MOST_MISFIT_ALONE if absorbed >= _ALONE else _MOST_MISFIT
    return dataclasses.replace(found, warning=_warning(data, found, most))


def _absorbed(data: AslData, maps: Maps, images: FloatArray, units: FloatArray) -> float:
    """Parameters that the data of one voxel determine, the median over the voxels.

    The sum over delays of the variance of the prediction over that of the noise, the parameters
    taken one by one.
    """
    absent = {name for a, rest in components(maps.model).items() for name in (a, *rest)}
    own = [p for p in maps.model.parameters if not p.shared]
    most = float(sum(p.knowledge is None and p.name not in absent for p in own))
    if not maps.sd:
        return most
    variance = np.zeros(data.mask.shape)
    for p in own:
        moved = dict(maps.values) | {p.name: maps.values[p.name] + maps.sd[p.name]}
        change = predicted(data, dataclasses.replace(maps, values=moved)) - images
        variance += np.sum((units * change) ** 2, axis=-1)
    fitted = (np.asarray(maps.status) == Status.FITTED) & data.valid
    return min(most, float(np.median(variance[fitted])))


def _warning(data: AslData, found: PredictiveCheck, most_misfit: float) -> str:
    said = []
    if found.beyond > _MOST_BEYOND:
        said.append(
            f"{100.0 * found.beyond:.0f} % of the voxels differ from it by more than noise does in "
            "1 % of them"
        )
    worst = int(np.argmax(np.abs(found.mean_misfit)))
    if abs(found.mean_misfit[worst]) > most_misfit:
        side = "above" if found.mean_misfit[worst] > 0.0 else "below"
        said.append(
            f"the mean signal at t = {data.protocol.t[worst]:.3g} s is "
            f"{abs(found.mean_misfit[worst]):.2g} noise SDs {side} it"
        )
    if not said:
        return ""
    return (
        f"the model does not describe the data: {', and '.join(said)}; arteries, dispersion, "
        "motion or wrong timing do that, so compare another --model"
    )
