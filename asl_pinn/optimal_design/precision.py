"""How well a scan is expected to tell each parameter: over a population, and by transit time."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.evaluation.cramer_rao import cramer_rao_sd, jacobian
from asl_pinn.models import KineticModel, Parameter, fix
from asl_pinn.models.compose import Sum
from asl_pinn.optimal_design.expectation import Goal, Points, covariance, scan_problem
from asl_pinn.optimal_design.population import Population
from asl_pinn.optimal_design.scan import Scan
from asl_pinn.problem import Problem, predict

ATT_GRID = np.arange(0.1, 4.0001, 0.05)
"""Transit times of the curves [s]."""

_WORST = 0.9  # quantile


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is expected of one parameter in one tissue.

    Attributes
    ----------
    parameter : Parameter
        Which.
    tissue : str
        'grey matter'.
    mean, sd_before : float
        Of the population, in the parameter's unit.
    sd : float
        Mean over the population of the standard deviation after the scan, what was known before
        counted in.
    median_sd, worst_sd : float
        Cramér-Rao bound of fits that know nothing before: median and 90 % quantile over the
        population; infinite where the scan does not determine the parameter.
    bias : float
        Root mean square over the population of the error that held parameters cause.
    """

    parameter: Parameter
    tissue: str
    mean: float
    sd_before: float
    sd: float
    median_sd: float
    worst_sd: float
    bias: float

    @property
    def percent(self) -> float:
        """Standard deviation after the scan in per cent of the mean."""
        return 100.0 * self.sd / self.mean


@dataclasses.dataclass(frozen=True)
class Precision:
    """What is expected of a scan.

    Attributes
    ----------
    scan : Scan
        Which.
    averages : int
        Cycles that fit the scan time.
    model : KineticModel
        That can be fitted to it.
    expected : tuple of Expected
        By tissue and parameter.
    att : ndarray, shape (N,)
        Transit times of the curves [s].
    curves : ndarray, shape (P, T, N)
        Error against ATT, the other parameters being at their means: Cramér-Rao bound, and what
        held parameters add.
    served : tuple of (float, float) or None
        By tissue, shortest and longest ATT between which the scan tells every parameter that it
        estimates better than it was known before [s]; None for nowhere.
    """

    scan: Scan
    averages: int
    model: KineticModel
    expected: tuple[Expected, ...]
    att: FloatArray
    curves: FloatArray
    served: tuple[tuple[float, float] | None, ...]


class Bounds(NamedTuple):
    """Errors at K points; of the P parameters that are fitted, voxels last.

    Attributes
    ----------
    known, unknown : ndarray, shape (P, K)
        Standard deviations with and without what is known before the scan.
    bias : ndarray, shape (P, K)
        What held parameters cause.
    """

    known: FloatArray
    unknown: FloatArray
    bias: FloatArray


def fitted_model(model: KineticModel, scan: Scan) -> KineticModel:
    """The model that can be fitted to a scan: tissue alone, where it has to hold parameters.

    Parameters
    ----------
    model : KineticModel
        Of the signal.
    scan : Scan
        With what it holds.

    Returns
    -------
    KineticModel
    """
    if not scan.held:
        return model
    tissue = model.models[0] if isinstance(model, Sum) else model
    return fix(tissue, **scan.held)


def expected_precision(scan: Scan, goal: Goal, scan_time: float) -> Precision:
    """Evaluate a scan over a population and along ATT.

    Parameters
    ----------
    scan : Scan
        To be evaluated.
    goal : Goal
        Model, population and noise; its criterion does not matter.
    scan_time : float
        Of the ASL series [s].

    Returns
    -------
    Precision

    Raises
    ------
    InputError
        If not one cycle fits the scan time.
    """
    population, averages = goal.population, scan.averages(scan_time)
    fitted = fitted_model(goal.model, scan)
    along = _along_att(goal.model, population)
    n_tissues, n_points = len(population.tissues), population.n_points
    tissue = np.concatenate([population.tissue, np.repeat(np.arange(n_tissues), len(ATT_GRID))])
    points = Points(
        np.concatenate([population.values, along], axis=1),
        population.sd[:, tissue],
        population.t1_tissue[tissue],
        None,
    )
    found = scan_bounds(scan, goal.model, points, goal.noise_sd, averages)
    rows = [goal.model.names.index(name) for name in fitted.names]
    expected = [
        _expected(p, k, row, [each[place, :n_points] for each in found], population)
        for k in range(n_tissues)
        for place, (row, p) in enumerate(zip(rows, fitted.parameters, strict=True))
    ]
    error = np.hypot(found.unknown, found.bias)[:, n_points:]
    curves = error.reshape(len(rows), n_tissues, len(ATT_GRID))
    better = curves < population.sd[rows][:, :, None]
    served = tuple(_longest_run(better[:, k].all(axis=0)) for k in range(n_tissues))
    return Precision(scan, averages, fitted, tuple(expected), ATT_GRID, curves, served)


def scan_bounds(
    scan: Scan, model: KineticModel, points: Points, noise_sd: float, averages: int
) -> Bounds:
    """Errors of a scan at some points.

    Parameters
    ----------
    scan : Scan
        Timing and noise.
    model : KineticModel
        Of the signal; what is fitted is `fitted_model` of it.
    points : Points
        K of them, by the parameters of `model`.
    noise_sd : float
        Standard deviation of one image [unit of M0].
    averages : int
        Cycles.

    Returns
    -------
    Bounds
    """
    true, fitted = (each.softened() for each in (model, fitted_model(model, scan)))
    rows = [model.names.index(name) for name in fitted.names]
    values, sd = (np.asarray(each, np.float32) for each in (points.values, points.sd))
    at = scan_problem(scan, fitted, points.t1_tissue, noise_sd, averages)
    known = np.asarray(_known_sd(at, values[rows], sd[rows]))
    bias = np.zeros_like(known)
    if scan.held:
        truth = dataclasses.replace(at, model=true)
        difference = predict(truth, tuple(values)) - predict(at, tuple(values[rows]))
        bias = projected(at, values[rows], np.asarray(difference))
    return Bounds(known, cramer_rao_sd(at, values[rows]), bias)


def projected(problem: Problem, values: FloatArray, difference: FloatArray) -> FloatArray:
    """To first order, what a difference in the signal does to the fitted parameters.

    Parameters
    ----------
    problem : Problem
        With the model that is fitted.
    values : ndarray, shape (P, K)
        True parameters.
    difference : ndarray, shape (D, K)
        True signal, less that of the model there.

    Returns
    -------
    ndarray, shape (P, K)
        Bias, in the units of the parameters: least squares on the slopes of the model.
    """
    return _least_squares(problem, values, difference)


@jax.jit
def _known_sd(problem: Problem, values: Array, sd: Array) -> Array:
    found = covariance(problem, Points(values, sd, None, None))
    return sd * jnp.sqrt(jnp.diagonal(found, axis1=1, axis2=2)).T


def _least_squares(problem: Problem, values: FloatArray, difference: FloatArray) -> FloatArray:
    columns = np.stack(jax.jit(jacobian)(problem, values), axis=-1)  # (D, K, P)
    length = np.linalg.norm(columns, axis=0)
    length = np.where(length > 0.0, length, 1.0)
    # On the host, as batches of decompositions may wait for the threads that wait for them.
    rcond = 10.0 * len(columns) * float(np.finfo(columns.dtype).eps)
    inverse = np.linalg.pinv(np.moveaxis(columns / length, 0, 1), rcond)
    return (np.einsum("kpd,dk->kp", inverse, difference) / length).T


def _along_att(model: KineticModel, population: Population) -> FloatArray:
    """Parameters at their means in each tissue, ATT along its grid and aBAT with it."""
    columns = np.repeat(population.mean, len(ATT_GRID), axis=1)
    if "att" in model.names:
        row = model.names.index("att")
        ratio = np.tile(ATT_GRID, len(population.tissues)) / columns[row]
        moved = [k for k, name in enumerate(model.names) if name in ("att", "abat")]
        columns[moved] *= ratio
    return columns


def _expected(
    p: Parameter, tissue: int, row: int, found: list[FloatArray], population: Population
) -> Expected:
    known, unknown, bias = (each[population.of(tissue)] for each in found)
    # Quantiles without interpolation, which between infinite bounds gives NaN.
    median, worst = (float(np.quantile(unknown, q, method="lower")) for q in (0.5, _WORST))
    return Expected(
        parameter=p,
        tissue=population.labels[tissue],
        mean=float(population.mean[row, tissue]),
        sd_before=float(population.sd[row, tissue]),
        sd=float(known.mean()),
        median_sd=median,
        worst_sd=worst,
        bias=float(np.sqrt(np.mean(bias**2))),
    )


def _longest_run(inside: Any) -> tuple[float, float] | None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    if not len(edges):
        return None
    begins, ends = edges[::2], edges[1::2] - 1
    longest = int(np.argmax(ends - begins))
    return float(ATT_GRID[begins[longest]]), float(ATT_GRID[ends[longest]])
