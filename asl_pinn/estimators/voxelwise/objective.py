"""What the voxel-wise fits have in common: options, residuals, noise, enough measurements."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.estimators.checks import require_numbers
from asl_pinn.estimators.options import fraction_option, option
from asl_pinn.models.base import KineticModel
from asl_pinn.models.compose import Fixed
from asl_pinn.problem import Problem, predict, take

LEAST_NOISE = 1e-3
"""Least noise that an estimator may find, over the root mean square signal."""

QUADRATIC = 1e4
"""Scale of the soft-L1 loss that makes it a plain sum of squares in either precision."""

_NOISE_SAMPLE = 2048


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NllsOptions:
    """Options of `nlls` and `nlls-scipy`; bounds and priors are the model's."""

    solver: Literal["dogleg", "lm"] = option("dogleg", "Powell's dogleg or Levenberg-Marquardt.")
    grid: int = option(
        64,
        "Values tried of each parameter that is searched on a grid, such as ATT, for the start "
        "and the standard deviations of each voxel; of several such parameters 1,024 combinations "
        "at most.",
        most=4_096,
    )
    f_scale: float = option(3.0, "Misfit, in noise SDs, where soft-L1 turns linear.")
    max_steps: int = option(60, "Most steps a voxel may take.", most=10_000)
    xtol: float = option(
        1e-4, "Step that counts as none, over the scale of a parameter [1 s, or 50 mL/100g/min]."
    )
    ftol: float = option(1e-6, "Relative reduction of the cost that counts as none.")
    sd: Literal["population", "curvature"] = option(
        "population",
        "Standard deviations from how well other values of the parameters fit, given their "
        "distribution over the voxels, or from the curvature of the cost alone, which is quicker.",
    )
    chunk_size: int = option(4096, "Voxels solved together; bounds memory.", most=1_048_576)
    pv_kernel: str = option(
        "5x5x5",
        "Voxels over which the images of pure grey and white matter are regressed, with models "
        "that tell them apart.",
    )
    min_fraction: float = fraction_option()


def check(problem: Problem, options: NllsOptions) -> None:
    """Refuse problems or options that a voxel-wise fit cannot work with.

    Parameters
    ----------
    problem : Problem
        To be fitted.
    options : NllsOptions
        Tolerances and sizes.

    Raises
    ------
    InputError
        If there are too few measurements, the options are out of range, the model has no
        amplitude, or no label would have arrived at a held transit time.
    """
    model = problem.model
    if not model.linear:
        raise InputError(
            f"model {model.name} has no linear parameter; a voxel-wise fit needs an amplitude"
        )
    check_measurements(problem, noise=bool(model.kinked))
    check_arrival(problem)
    least = {"grid": 2, "max_steps": 1, "chunk_size": 1}
    require_numbers(options, least, ("f_scale", "xtol", "ftol"))


def check_measurements(problem: Problem, *, noise: bool = True) -> None:
    """Refuse fewer measurements than a fit has parameters to determine.

    Parameters
    ----------
    problem : Problem
        To be fitted.
    noise : bool
        Whether the fit needs one more, to tell the noise from the signal.

    Raises
    ------
    InputError
        Naming a parameter that could be held.
    """
    model, found = problem.model, problem.n_measurements
    needed = n_determined(model) + noise
    if found >= needed:
        return
    wanted = [p.symbol for p in model.parameters if p.knowledge is None] + ["the noise"] * noise
    listed = wanted[0] if len(wanted) == 1 else f"{', '.join(wanted[:-1])} and {wanted[-1]}"
    holdable = [p for p in (*model.kinked, *model.smooth) if p.knowledge is None]
    advice = "fit it with --method=nlls"
    if holdable:
        unit = {"s": "SECONDS"}.get(holdable[0].unit, "VALUE")
        advice = f"hold {holdable[0].symbol} with --method=nlls --fix={holdable[0].name}={unit}"
    verb = "needs" if len(wanted) == 1 else "need"
    raise InputError(f"{found} delay(s) in the data; {listed} {verb} at least {needed}: {advice}")


def n_determined(model: KineticModel) -> int:
    """Number of parameters that the measurements have to determine.

    A prior that is knowledge, not a weak one, counts as the one measurement more that its
    parameter needs, so that neither the least number of measurements nor the degrees of freedom
    of the misfits change with such a parameter.

    Parameters
    ----------
    model : KineticModel
        With the parameters.

    Returns
    -------
    int
    """
    return sum(p.knowledge is None for p in model.parameters)


def with_noise(problem: Problem, noise_sd: float) -> Problem:
    """A problem with its noise.

    Parameters
    ----------
    problem : Problem
        Of any noise.
    noise_sd : float
        Standard deviation of one difference image [unit of measured].

    Returns
    -------
    Problem
    """
    return dataclasses.replace(problem, noise_sd=np.asarray(noise_sd, problem.dtype))


def residuals(x: Array, problem: Problem) -> Array:
    """Residuals of the voxels of a problem whose noise is known.

    Parameters
    ----------
    x : Array, shape (P, *S)
        Parameters over their scales; S is (V,), or () for the arrays of one voxel.
    problem : Problem
        `measured` has shape (D, *S).

    Returns
    -------
    Array, shape (D + N, *S)
        Misfits in units of the noise, then, for each of the N parameters that have a prior, the
        distance from its mean in units of its SD.
    """
    values = [p.scale * at for p, at in zip(problem.model.parameters, x, strict=True)]
    misfit = predict(problem, values) - problem.measured
    weights = jnp.sqrt(jnp.asarray(problem.weights, misfit.dtype)) / problem.noise_sd
    weights = weights.reshape(-1, *[1] * (misfit.ndim - 1))
    distances = [distance[None] for distance in prior_residuals(values, problem)]
    return jnp.concatenate([misfit * weights, *distances])


def prior_residuals(values: tuple[Array, ...] | list[Array], problem: Problem) -> list[Array]:
    """Distances of parameters from the means of their priors, in units of the priors' SDs.

    Half their squares are minus the logarithms of the normal priors, as half the squared misfits
    in units of the noise are of the likelihood: the least cost is the posterior's mode.

    Parameters
    ----------
    values : sequence of P arrays, each of shape S
        Parameters in their units.
    problem : Problem
        A prior's mean may be a constant of each voxel.

    Returns
    -------
    list of Array
        One for each parameter that has a prior, of shape S.
    """
    centres = problem.model.centres(problem.tissue, problem.blood)
    return [
        (value - centre) / p.prior.sd
        for p, value, centre in zip(problem.model.parameters, values, centres, strict=True)
        if p.prior is not None
    ]


def bounds(model: KineticModel, dtype: DTypeLike) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds of the parameters over their scales.

    Made on the host: compiled code multiplies by the reciprocal of a scale, and what ends on
    a bound would miss it by a rounding error.

    Parameters
    ----------
    model : KineticModel
        With P parameters.
    dtype : dtype
        Floating-point type of the result.

    Returns
    -------
    lower, upper : ndarray, shape (P,)
    """
    lower = np.array([p.lower / p.scale for p in model.parameters], dtype)
    return lower, np.array([p.upper / p.scale for p in model.parameters], dtype)


def centres_inside(problem: Problem) -> tuple[Array, ...]:
    """Centre of each parameter, moved to a bound where it lies beyond, in its unit.

    Parameters
    ----------
    problem : Problem
        Constants of V voxels.

    Returns
    -------
    tuple of Array, each of shape () or (V,)
    """
    model = problem.model
    centres = model.centres(problem.tissue, problem.blood)
    return tuple(
        jnp.clip(jnp.asarray(centre), p.lower, p.upper)
        for p, centre in zip(model.parameters, centres, strict=True)
    )


def noise_sample(problem: Problem) -> Problem:
    """Every k-th voxel of a problem, enough to estimate the noise from.

    Parameters
    ----------
    problem : Problem
        Of V voxels.

    Returns
    -------
    Problem
        Of 2,048 voxels at most.
    """
    return take(problem, slice(None, None, -(-problem.n_voxels // _NOISE_SAMPLE)))


def noise_from_squares(squares: FloatArray, n_fitted: int, problem: Problem) -> float:
    """Noise of one difference image from the voxels' residual sums of squares.

    Over the noise variance, the sums follow a chi-square distribution with D - `n_fitted` degrees
    of freedom.

    Parameters
    ----------
    squares : ndarray, shape (V,)
        Weighted residual sum of squares of the fit of each voxel.
    n_fitted : int
        Parameters that the D measurements of each determine.
    problem : Problem
        Its root mean square signal sets the least noise, a thousandth of it: below, the
        cost would turn into a sum of absolute values, on whose kinks the solvers stall.

    Returns
    -------
    float
        Standard deviation [unit of measured], from the median, which outliers do not move.
    """
    expected = scipy.stats.chi2.median(problem.n_measurements - n_fitted)
    noise_sd = np.sqrt(np.median(squares) / expected)
    least = LEAST_NOISE * root_mean_square(problem.measured)
    return float(max(noise_sd, least, np.finfo(np.float32).tiny))


def root_mean_square(values: ArrayLike) -> float:
    """Root of the mean square of an array of any shape, in its unit."""
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


def values_of(x: FloatArray, model: KineticModel) -> FloatArray:
    """Parameters in their units, from those over their scales.

    Parameters
    ----------
    x : ndarray, shape (P, V)
        Parameters over their scales.
    model : KineticModel
        With the scales.

    Returns
    -------
    ndarray, shape (P, V)
    """
    return x * np.asarray([[p.scale] for p in model.parameters], x.dtype)


def misfit_of(problem: Problem, x: FloatArray) -> FloatArray:
    """Data less curve.

    Parameters
    ----------
    problem : Problem
        V voxels.
    x : ndarray, shape (P, V)
        Parameters over their scales.

    Returns
    -------
    ndarray, shape (D, V)
        In the unit of the measurements.
    """
    curve = predict(problem, tuple(values_of(x, problem.model)))
    return np.asarray(problem.measured) - np.asarray(curve)


def check_arrival(problem: Problem) -> None:
    """Refuse held values at which some slice would see no signal at all, whatever its flow.

    Parameters
    ----------
    problem : Problem
        To be fitted, by any method.

    Raises
    ------
    InputError
        If the model's transit time is held at one after the last readout.
    """
    model = problem.model
    if model.kinked or not isinstance(model, Fixed):
        return
    readout_delay = np.asarray(problem.timing.readout_delay)
    earliest = take(problem, np.array([np.argmin(readout_delay)]))
    signal = predict(earliest, centres_inside(earliest))
    if np.any(np.asarray(signal) != 0.0):
        return
    last = float(np.max(problem.timing.t) + np.min(readout_delay))
    held = ",".join(f"{name}={value:g}" for name, value in model.held.items())
    raise InputError(
        f"--fix={held}: at readout, {last:.4g} s after labelling began, nothing would have "
        "arrived; hold a shorter transit time"
    )
