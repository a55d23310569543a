"""What wrong constants and what a model leaves out do to the parameters under a protocol."""

import dataclasses
from collections.abc import Callable

import numpy as np

from asl_pinn.arrays import FloatArray
from asl_pinn.models import Arterial, Blood, KineticModel, Parameter, Tissue
from asl_pinn.models.dispersion import DISPERSION_SD
from asl_pinn.models.kernels import GaussianKernel
from asl_pinn.optimal_design.expectation import Goal, points_of, scan_problem
from asl_pinn.optimal_design.monte_carlo import simulate_fits
from asl_pinn.optimal_design.population import make_population
from asl_pinn.optimal_design.precision import fitted_model, projected
from asl_pinn.optimal_design.scan import Scan
from asl_pinn.problem import Problem, predict

CHANGE = 0.1
"""By which constants are wrong: truth 10 % above what is assumed."""


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Bias of one parameter from one cause.

    Attributes
    ----------
    scan : str
        Name of the scan.
    tissue : str
        'grey matter'.
    cause : str
        What is wrong.
    parameter : Parameter
        Which.
    mean : float
        Of the population, in its unit.
    first_order : float
        Mean bias over the population, to first order.
    monte_carlo : float
        The same of noisy fits, less that of fits without the fault and with the same noise.
    """

    scan: str
    tissue: str
    cause: str
    parameter: Parameter
    mean: float
    first_order: float
    monte_carlo: float


@dataclasses.dataclass(frozen=True)
class _Fault:
    """Something that the fit does not know.

    Attributes
    ----------
    cause : str
        For people.
    tissue : callable
        Constants that are assumed to those that are true.
    blood : callable
        Likewise.
    added : KineticModel or None
        Part of the signal that the fitted model lacks.
    """

    cause: str
    tissue: Callable[[Tissue], Tissue] = lambda tissue: tissue
    blood: Callable[[Blood], Blood] = lambda blood: blood
    added: KineticModel | None = None


def sensitivities(
    scan: Scan, goal: Goal, scan_time: float, *, draws: int = 4, seed: int = 0
) -> list[Sensitivity]:
    """Bias of every parameter from wrong constants, arteries and dispersion.

    Truth has a T1 of blood, T1 of tissue, labelling efficiency or partition coefficient 10 % above
    what the fit assumes; arterial blood, or a bolus with dispersed edges, of which its model knows
    nothing.

    Parameters
    ----------
    scan : Scan
        To be fitted.
    goal : Goal
        Model, population and noise.
    scan_time : float
        Of the ASL series [s].
    draws : int
        Of the noise, at each point of the population.
    seed : int
        Of the noise.

    Returns
    -------
    list of Sensitivity
        By cause, tissue and parameter that is fitted.

    Raises
    ------
    InputError
        If not one cycle fits the scan time.
    """
    averages, model, population = scan.averages(scan_time), goal.model, goal.population
    fitted = fitted_model(model, scan)
    points = points_of(population)
    rows = [model.names.index(name) for name in fitted.names]
    values = np.asarray(points.values, np.float32)
    right = scan_problem(scan, model, points.t1_tissue, goal.noise_sd, averages)
    assumed = dataclasses.replace(right, model=fitted.softened())

    def fits(truth: Problem, true_values: FloatArray) -> FloatArray:
        return simulate_fits(truth, true_values, assumed, draws=draws, seed=seed)

    signal, known = np.asarray(predict(right, tuple(values))), fits(right, values)
    found = []
    for fault in _faults(model):
        truth = _with(right, fault)
        true_values = _true_values(truth.model, model, population.tissues, values)
        difference = np.asarray(predict(truth, tuple(true_values))) - signal
        first_order = projected(assumed, values[rows], difference)
        monte_carlo = (fits(truth, true_values) - known).mean(axis=1)
        found += [
            Sensitivity(
                scan.name,
                label,
                fault.cause,
                p,
                float(population.mean[rows[place], k]),
                float(first_order[place, population.of(k)].mean()),
                float(monte_carlo[place, population.of(k)].mean()),
            )
            for k, label in enumerate(population.labels)
            for place, p in enumerate(fitted.parameters)
        ]
    return found


def _faults(model: KineticModel) -> list[_Fault]:
    """What can be wrong with a model that does not infer or describe it."""
    by, more = f"{100.0 * CHANGE:.0f} %", 1.0 + CHANGE
    stated = {
        "t1_blood": _Fault(
            f"T1 of blood {by} longer",
            blood=lambda blood: blood._replace(t1_blood=blood.t1_blood * more),
        ),
        "t1_tissue": _Fault(
            f"T1 of tissue {by} longer",
            tissue=lambda tissue: tissue._replace(t1_tissue=tissue.t1_tissue * more),
        ),
        "labeling_efficiency": _Fault(
            f"labelling efficiency {by} higher",
            blood=lambda blood: blood._replace(
                labeling_efficiency=blood.labeling_efficiency * more
            ),
        ),
        "partition_coefficient": _Fault(
            f"partition coefficient {by} higher",
            tissue=lambda tissue: tissue._replace(
                partition_coefficient=tissue.partition_coefficient * more
            ),
        ),
        "abv": _Fault("arterial blood not in the model", added=Arterial()),
    }
    found = [fault for name, fault in stated.items() if name not in model.names]
    if not any(name.startswith("dispersion_") for name in model.names):
        kernel = GaussianKernel(DISPERSION_SD.typical)
        cause = f"dispersion of {DISPERSION_SD.typical:g} s not in the model"
        found.append(_Fault(cause, blood=lambda blood: blood._replace(kernel=kernel)))
    return found


def _with(problem: Problem, fault: _Fault) -> Problem:
    model = problem.model if fault.added is None else problem.model + fault.added
    return dataclasses.replace(
        problem, tissue=fault.tissue(problem.tissue), blood=fault.blood(problem.blood), model=model
    )


def _true_values(
    true: KineticModel, model: KineticModel, tissues: tuple[str, ...], values: FloatArray
) -> FloatArray:
    """Values of a population, with those of the parts that only the truth has."""
    if true.names == model.names:
        return values
    n_points = values.shape[1] // len(tissues)
    with_more = make_population(true, tissues, n_points=n_points)
    added = [true.names.index(name) for name in true.names if name not in model.names]
    more = with_more.values[added].astype(np.float32)
    return np.concatenate([values, more])
