"""Whether fits are as precise as the bound says: a scan simulated many times, and fitted."""

import dataclasses

import numpy as np

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.models import Parameter
from asl_pinn.optimal_design.expectation import Goal, Points, scan_problem
from asl_pinn.optimal_design.precision import fitted_model, scan_bounds
from asl_pinn.optimal_design.scan import Scan
from asl_pinn.problem import Problem, predict, take

METHOD = "nlls"
AGREEMENT = 0.1
"""Relative difference of spread and bound up to which they agree."""

_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of ATT


@dataclasses.dataclass(frozen=True)
class Check:
    """Spread of fits beside the bound, at one point.

    Attributes
    ----------
    scan : str
        Name of the scan.
    tissue : str
        'grey matter'.
    att : float
        Transit time [s]; the other parameters are at their means.
    parameter : Parameter
        Which.
    bound, spread, bias : float
        Cramér-Rao bound, standard deviation of the fits and their mean less the truth, in the
        parameter's unit.
    """

    scan: str
    tissue: str
    att: float
    parameter: Parameter
    bound: float
    spread: float
    bias: float

    @property
    def ratio(self) -> float:
        """Spread of the fits over the bound."""
        return self.spread / self.bound

    @property
    def verdict(self) -> str:
        """What that says."""
        if not np.isfinite(self.bound):
            return "not determined"
        if self.ratio > 1.0 + AGREEMENT:
            return "bound is optimistic"
        if self.ratio < 1.0 - AGREEMENT:
            return "held by bounds or prior"
        return "as the bound says"


def check_bound(
    scan: Scan, goal: Goal, scan_time: float, *, draws: int = 1000, seed: int = 0
) -> list[Check]:
    """Compare the spread of `nlls` with the bound at several transit times of each tissue.

    Parameters
    ----------
    scan : Scan
        To be simulated.
    goal : Goal
        Model, population and noise.
    scan_time : float
        Of the ASL series [s].
    draws : int
        Of the noise, at each point.
    seed : int
        Of the noise.

    Returns
    -------
    list of Check
        By tissue, transit time and parameter that is fitted.

    Raises
    ------
    InputError
        If not one cycle fits the scan time, `draws` is below 2, or the scan has too few delays
        for a fit of the model.
    """
    if draws < 2:
        raise InputError(f"draws must be 2 or more, as spread is asked for, not {draws}")
    population, names = goal.population, goal.model.names
    averages = scan.averages(scan_time)
    moved = [k for k, name in enumerate(names) if name in ("att", "abat")]
    columns, places = [], []
    for k in range(len(population.tissues)):
        for quantile in _QUANTILES if moved else (0.5,):
            column = population.mean[:, k].copy()
            if moved:
                own = population.values[names.index("att"), population.of(k)]
                column[moved] *= np.quantile(own, quantile) / column[names.index("att")]
            columns.append(column)
            places.append(k)
    values = np.array(columns).T
    points = Points(values, population.sd[:, places], population.t1_tissue[places], None)
    bounds = scan_bounds(scan, goal.model, points, goal.noise_sd, averages).unknown
    fitted = fitted_model(goal.model, scan)
    truth = scan_problem(scan, goal.model, points.t1_tissue, goal.noise_sd, averages)
    assumed = dataclasses.replace(truth, model=fitted.softened())
    fits = simulate_fits(truth, values, assumed, draws=draws, seed=seed)
    return [
        Check(
            scan.name,
            population.labels[k],
            float(values[names.index("att"), point]) if moved else float("nan"),
            p,
            float(bounds[row, point]),
            float(fits[row, :, point].std(ddof=1)),
            float(fits[row, :, point].mean() - values[names.index(p.name), point]),
        )
        for point, k in enumerate(places)
        for row, p in enumerate(fitted.parameters)
    ]


def simulate_fits(
    truth: Problem, values: FloatArray, assumed: Problem, *, draws: int, seed: int
) -> FloatArray:
    """Simulate a scan with noise and fit it, voxel by voxel.

    Parameters
    ----------
    truth : Problem
        Timing, constants and model of the signal in K voxels.
    values : ndarray, shape (Q, K)
        Parameters of that model, in their units.
    assumed : Problem
        What the fit takes them for, with the noise.
    draws : int
        Of the noise, in each voxel; the same for the same seed.
    seed : int
        Of the noise.

    Returns
    -------
    ndarray, shape (P, draws, K)
        Fitted parameters, in their units.
    """
    signal = np.asarray(predict(truth, tuple(np.asarray(values, np.float32))))
    normal = np.random.default_rng(seed).standard_normal((len(signal), draws, signal.shape[1]))
    sd = assumed.noise_sd / np.sqrt(assumed.weights)
    measured = signal[:, None] + sd[:, None, None] * normal
    repeated = take(assumed, np.tile(np.arange(signal.shape[1]), draws))
    data = dataclasses.replace(
        repeated, measured=measured.reshape(len(signal), -1).astype(np.float32), noise_sd=None
    )
    estimator = get_estimator(METHOD)
    # Curvature alone: standard deviations are not asked for, and those from a grid take longest.
    found = estimator.fit(data, estimator.options(sd="curvature"), RunContext())
    return np.asarray(found.values).reshape(-1, draws, signal.shape[1])
