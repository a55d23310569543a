"""The same voxel-wise fit by SciPy, one voxel after the other: the reference for `nlls`."""

import sys

import numpy as np
from scipy.optimize import OptimizeResult, least_squares
from tqdm import tqdm

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.estimators.intervals import population_of, standard_deviations
from asl_pinn.estimators.survey import rough_noise, survey
from asl_pinn.estimators.voxelwise import (
    CBF_UNIT,
    NllsOptions,
    assemble,
    bounds,
    check,
    noise_from_squares,
)
from asl_pinn.execution import Execution
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, gather


def fit(data: AslData, options: NllsOptions, execution: Execution) -> PerfusionMaps:
    """Fit CBF and ATT in every voxel with SciPy's `least_squares`.

    Start, bounds, residuals and loss are those of `nlls`; the solver is SciPy's dogbox, so
    that `options.solver` is not used.

    Parameters
    ----------
    data : AslData
        At least 3 delays.
    options : NllsOptions
        Bounds, penalty, tolerances.
    execution : Execution
        Progress bar; the arithmetic is float64 whatever the type of the result.

    Returns
    -------
    PerfusionMaps
        With standard deviations as `options.sd` says.

    Raises
    ------
    InputError
        If there are fewer than 3 delays, no valid voxel, or options out of order.

    References
    ----------
    Voglis and Lagaris, WSEAS Int Conf Applied Mathematics (2004), for dogbox.
    """
    check(data, options)
    voxels = gather(data, execution.dtype)
    noise_sd = rough_noise(voxels, data, options)
    starts = survey(voxels, noise_sd, data, options).x
    first = _solve_all(voxels, starts, noise_sd, data, options, execution)
    noise_sd = noise_from_squares(
        np.array([_squares(result, noise_sd) for result in first]),
        data.protocol.n_delays,
        voxels,
    )
    found = np.stack([result.x for result in first])
    solved = _solve_all(voxels, found, noise_sd, data, options, execution)
    x = np.stack([result.x for result in solved]).astype(execution.dtype)
    hessian = np.stack([result.jac.T @ result.jac for result in solved]).astype(execution.dtype)
    population = population_of(voxels, noise_sd, data, options)
    surveyed = survey(voxels, noise_sd, data, options, population)
    sd = standard_deviations(surveyed, x, hessian, options)
    converged = np.array([result.success for result in solved])
    return assemble(data, options, noise_sd, x, sd, converged)


def solve_voxel(
    delta_m: FloatArray,
    start: FloatArray,
    noise_sd: float,
    m0: float,
    t1_tissue: float,
    readout_delay: float,
    protocol: Protocol,
    n_averages: FloatArray,
    options: NllsOptions,
) -> OptimizeResult:
    """Fit one voxel.

    Parameters
    ----------
    delta_m : ndarray, shape (D,)
        Control - label differences [a.u.].
    start : ndarray, shape (2,)
        CBF / 50 and ATT [s].
    noise_sd : float
        Standard deviation of one difference image [unit of delta_m].
    m0, t1_tissue, readout_delay : float
        The voxel's M0 [a.u.], T1 [s] and delay of its slice [s].
    protocol : Protocol
        Timing and constants.
    n_averages : ndarray, shape (D,)
        Images behind each delay.
    options : NllsOptions
        Bounds, penalty, tolerances.

    Returns
    -------
    scipy.optimize.OptimizeResult
    """
    weights = np.sqrt(n_averages) / noise_sd
    t = protocol.t + readout_delay

    def residual(x: FloatArray) -> FloatArray:
        signal = _delta_m(CBF_UNIT * x[0], x[1], t, m0, t1_tissue, protocol)
        penalty = (x[1] - options.att_guess) / options.att_guess_sd
        return np.append((signal - delta_m) * weights, penalty)

    lower, upper = bounds(options, np.float64)
    return least_squares(
        residual,
        np.clip(start, lower, upper),
        bounds=(lower, upper),
        method="dogbox",
        loss="soft_l1",
        f_scale=options.loss_scale,
        xtol=options.xtol,
        ftol=options.ftol,
        gtol=None,
        max_nfev=options.max_steps,
    )


def _solve_all(
    voxels: Voxels,
    starts: FloatArray,
    noise_sd: float,
    data: AslData,
    options: NllsOptions,
    execution: Execution,
) -> list[OptimizeResult]:
    columns = (voxels.delta_m, starts, voxels.m0, voxels.t1_tissue, voxels.readout_delay)
    rows = zip(*(np.asarray(column, np.float64) for column in columns), strict=True)
    n_averages = np.asarray(data.n_averages, np.float64)
    hidden = None if execution.progress else True
    bar = tqdm(rows, "nlls-scipy", len(starts), file=sys.stderr, unit="voxel", disable=hidden)
    return [
        solve_voxel(delta_m, x, noise_sd, m0, t1, delay, data.protocol, n_averages, options)
        for delta_m, x, m0, t1, delay in bar
    ]


def _squares(result: OptimizeResult, noise_sd: float) -> float:
    misfit = result.fun[:-1] * noise_sd
    return float(misfit @ misfit)


def _delta_m(
    cbf: float, att: float, t: FloatArray, m0: float, t1_tissue: float, protocol: Protocol
) -> FloatArray:
    """Buxton's curve piece by piece in NumPy, written apart from `kinetics`."""
    flow = cbf / 6000.0
    t1_app = 1.0 / (1.0 / t1_tissue + flow / protocol.partition_coefficient)
    x, tau = t - att, protocol.label_duration
    arterial_m0 = m0 / protocol.partition_coefficient
    peak = 2.0 * protocol.labeling_efficiency * arterial_m0 * flow * t1_app
    peak *= np.exp(-att / protocol.t1_blood)
    during = 1.0 - np.exp(-np.maximum(x, 0.0) / t1_app)
    after = np.exp(-np.maximum(x - tau, 0.0) / t1_app) * (1.0 - np.exp(-tau / t1_app))
    return peak * np.where(x < 0.0, 0.0, np.where(x < tau, during, after))
