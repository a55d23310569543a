"""What a scan is expected to leave unknown of each parameter, at every point of a population."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.acquisition.constants import LABELING_EFFICIENCY, PARTITION_COEFFICIENT, T1_BLOOD
from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.evaluation.cramer_rao import jacobian
from asl_pinn.models import Blood, KineticModel, Timing, Tissue
from asl_pinn.models.kernels import GaussianKernel
from asl_pinn.numerics.least_squares import determinant_small, solve_small
from asl_pinn.optimal_design.population import Population
from asl_pinn.optimal_design.scan import Scan
from asl_pinn.problem import Problem

Kind = Literal["A", "D"]


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a good protocol is one of.

    Attributes
    ----------
    model : KineticModel
        That is to be fitted.
    population : Population
        Over which the expectation is taken.
    noise_sd : float
        Standard deviation of one image over M0.
    parameters : tuple of str
        That are to be known well.
    kind : {'A', 'D'}
        Sum of their variances, each over that in the population, or determinant of their
        covariance.
    """

    model: KineticModel
    population: Population
    noise_sd: float
    parameters: tuple[str, ...]
    kind: Kind = "A"

    def __post_init__(self) -> None:
        for name in self.parameters:
            if name not in self.model.names:
                known = ", ".join(self.model.names)
                raise InputError(f"model {self.model.name} has no parameter {name!r}, only {known}")
        if not self.parameters:
            raise InputError("no parameter is chosen; name those that are to be known well")
        if self.kind not in ("A", "D"):
            raise InputError(f"unknown criterion {self.kind!r}; choose A or D")

    @property
    def chosen(self) -> list[int]:
        """Places of the parameters in the model."""
        return [self.model.names.index(name) for name in self.parameters]


class Points(NamedTuple):
    """A population as arrays of one value for each point.

    Attributes
    ----------
    values, sd : ndarray, shape (P, K)
        Parameters, and their standard deviations before the scan.
    t1_tissue : ndarray, shape (K,)
        Longitudinal relaxation times [s].
    weights : ndarray, shape (K,)
        Of the points.
    """

    values: Any
    sd: Any
    t1_tissue: Any
    weights: Any


def points_of(population: Population) -> Points:
    """The points of a population.

    Parameters
    ----------
    population : Population
        Of K points.

    Returns
    -------
    Points
    """
    return Points(
        population.values,
        population.sd[:, population.tissue],
        population.t1_tissue[population.tissue],
        population.weights,
    )


def design_problem(
    model: KineticModel,
    label_duration: ArrayLike,
    pld: ArrayLike,
    t1_tissue: ArrayLike,
    difference_sd: ArrayLike,
    averages: ArrayLike,
    *,
    edge_sd: float = 0.0,
) -> Problem:
    """An acquisition of voxels of unit M0, nothing measured yet.

    Parameters
    ----------
    model : KineticModel
        That is to be fitted.
    label_duration, pld : array_like, shape (D,)
        Timing [s].
    t1_tissue : array_like, shape (K,)
        Longitudinal relaxation time of each voxel [s].
    difference_sd : array_like
        Standard deviation of one difference over M0.
    averages : array_like
        Differences behind each delay.
    edge_sd : float
        Standard deviation of the edges of every bolus [s]; 0 for sharp ones.

    Returns
    -------
    Problem
    """
    t1_tissue, duration = jnp.asarray(t1_tissue), jnp.asarray(label_duration)
    voxels = jnp.zeros_like(t1_tissue)
    kernel = GaussianKernel(edge_sd) if edge_sd > 0.0 else None
    return Problem(
        measured=jnp.zeros((len(duration), len(t1_tissue)), t1_tissue.dtype),
        weights=jnp.full(len(duration), jnp.asarray(averages, t1_tissue.dtype)),
        timing=Timing(duration + jnp.asarray(pld), duration, voxels),
        tissue=Tissue(jnp.ones_like(voxels), t1_tissue, PARTITION_COEFFICIENT),
        blood=Blood(T1_BLOOD, LABELING_EFFICIENCY, kernel=kernel),
        model=model,
        noise_sd=jnp.asarray(difference_sd, t1_tissue.dtype),
    )


def scan_problem(
    scan: Scan, model: KineticModel, t1_tissue: FloatArray, noise_sd: float, averages: int
) -> Problem:
    """The same of a scan, on the host in single precision, as fits take it.

    Parameters
    ----------
    scan : Scan
        Timing and noise.
    model : KineticModel
        Of the signal, or that is to be fitted.
    t1_tissue : ndarray, shape (K,)
        Longitudinal relaxation time of each voxel [s].
    noise_sd : float
        Standard deviation of one image [unit of M0].
    averages : int
        Cycles.

    Returns
    -------
    Problem
    """
    protocol = scan.protocol
    made = design_problem(
        model,
        protocol.label_duration,
        protocol.pld,
        np.asarray(t1_tissue, np.float32),
        scan.noise_factor * noise_sd,
        averages,
    )
    apart: Any = None  # the model stays as it is
    arrays: Problem = jax.tree.map(np.asarray, dataclasses.replace(made, model=apart))
    return dataclasses.replace(arrays, model=model)


def covariance(problem: Problem, points: Points) -> Array:
    """Covariance of the parameters after the scan, each over its SD before.

    Fisher's information of the scan, and what is known beforehand: the inverse of the sum is the
    Bayesian bound for a linear model. Whatever the scan does not tell stays at 1.

    Parameters
    ----------
    problem : Problem
        From `design_problem`.
    points : Points
        K of them.

    Returns
    -------
    Array, shape (K, P, P)

    References
    ----------
    Chaloner and Verdinelli, Bayesian experimental design: a review, Stat Sci 10:273-304 (1995).
    """
    values, sd = jnp.asarray(points.values), jnp.asarray(points.sd)
    precision = jnp.sqrt(problem.weights) / problem.noise_sd
    columns = [
        precision[:, None] * by_unit * column
        for by_unit, column in zip(sd, jacobian(problem, values), strict=True)
    ]
    # Unrolled, as batches of decompositions may wait for the threads that wait for them.
    every = range(len(columns))
    rows = [
        [jnp.sum(columns[i] * columns[k], axis=0) + float(i == k) for k in every] for i in every
    ]
    inverse = [solve_small(rows, [float(i == k) for i in every]) for k in every]
    return jnp.stack([jnp.stack(column, axis=-1) for column in inverse], axis=-1)


def expected_cost(problem: Problem, points: Points, chosen: Sequence[int], kind: Kind) -> Array:
    """Expectation of the criterion over a population.

    Parameters
    ----------
    problem : Problem
        From `design_problem`.
    points : Points
        K of them.
    chosen : sequence of int
        Parameters that count.
    kind : {'A', 'D'}
        As in `Goal`.

    Returns
    -------
    Array, shape ()
        0 for parameters known without error, 1 for nothing learned of one; the sum over several
        (A).

    References
    ----------
    Woods et al., Magn Reson Med 81:2474-2488 (2019), who take the expectation over ATT of the
    variance of CBF, or of the determinant of the covariance of CBF and ATT.
    """
    index = jnp.asarray(chosen)
    block = covariance(problem, points)[:, index[:, None], index[None, :]]
    entries = jnp.moveaxis(block, 0, -1)
    cost = jnp.trace(entries) if kind == "A" else determinant_small(entries)
    return jnp.sum(points.weights * cost)


def scan_cost(goal: Goal, points: Points, noise_factor: float) -> Any:
    """The criterion as a function of the times of a scan.

    Parameters
    ----------
    goal : Goal
        What counts.
    points : Points
        Of the goal's population, in the floating-point type to compute in.
    noise_factor : float
        As a `Scan` has it.

    Returns
    -------
    callable
        (label_duration, pld, averages, edge_sd) to the expected cost.
    """
    model = goal.model.softened()
    difference_sd = noise_factor * goal.noise_sd

    def cost(label_duration: Array, pld: Array, averages: ArrayLike, edge_sd: float) -> Array:
        problem = design_problem(
            model,
            label_duration,
            pld,
            points.t1_tissue,
            difference_sd,
            averages,
            edge_sd=edge_sd,
        )
        return expected_cost(problem, points, goal.chosen, goal.kind)

    return cost


def as_float64(points: Points) -> Points:
    """Points in double precision; JAX must be in 64-bit mode.

    Parameters
    ----------
    points : Points
        On the host.

    Returns
    -------
    Points
    """
    return Points(*(jnp.asarray(np.asarray(array), jnp.float64) for array in points))
