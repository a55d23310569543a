"""What the voxel-wise fits share: options, the cost, the noise and the maps."""

import dataclasses
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, PerfusionMaps, Status, status_volume, to_volume
from asl_pinn.errors import InputError
from asl_pinn.options import option
from asl_pinn.protocol import Protocol
from asl_pinn.voxels import Voxels, predict

CBF_UNIT = 50.0
"""CBF in the solver's unit of order one [mL/100g/min]."""

LEAST_NOISE = 1e-3
"""Least noise that an estimator may find, over the root mean square signal."""

_NOISE_SAMPLE = 2048

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NllsOptions:
    """Options of `nlls` and `nlls-scipy`."""

    solver: Literal["dogleg", "lm"] = option("dogleg", "Powell's dogleg or Levenberg-Marquardt.")
    cbf_max: float = option(200.0, "Upper bound of CBF [mL/100g/min].")
    att_min: float = option(0.05, "Lower bound of ATT [s].")
    att_max: float = option(4.0, "Upper bound of ATT [s].")
    att_guess: float = option(1.2, "Initial guess of ATT, the centre of its penalty [s].")
    att_guess_sd: float = option(
        1.0, "Distance from the guess that costs as much as a misfit of one noise SD [s]."
    )
    att_grid: int = option(64, "Transit times tried for the start of each voxel.")
    loss_scale: float = option(3.0, "Misfit, in noise SDs, where soft-L1 turns linear.")
    max_steps: int = option(60, "Most steps a voxel may take.")
    xtol: float = option(1e-4, "Step that counts as none [s, or 50 mL/100g/min].")
    ftol: float = option(1e-6, "Relative reduction of the cost that counts as none.")
    sd: Literal["population", "curvature"] = option(
        "population",
        "Standard deviations from how well other transit times fit, given the law of CBF and ATT "
        "over the voxels, or from the curvature of the cost alone, which is quicker.",
    )
    chunk_size: int = option(4096, "Voxels solved together; bounds memory.")


def check(data: AslData, options: NllsOptions) -> None:
    """Refuse data or options that a voxel-wise fit cannot work with.

    Parameters
    ----------
    data : AslData
        To be fitted.
    options : NllsOptions
        Bounds and sizes.

    Raises
    ------
    InputError
        If there are fewer than 3 delays, or the options are out of order.
    """
    if data.protocol.n_delays < 3:
        raise InputError(
            f"{data.protocol.n_delays} delay(s) in the data; CBF, ATT and the noise need at least "
            "3: hold ATT with --method=fixed-att --att=SECONDS"
        )
    check_att_bounds(options.att_min, options.att_max)
    for name in ("cbf_max", "att_guess_sd", "loss_scale", "xtol", "ftol"):
        if not getattr(options, name) > 0.0:
            raise InputError(f"--{name} must be positive, it is {getattr(options, name)}")
    for name, least in (("att_grid", 2), ("max_steps", 1), ("chunk_size", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} must be at least {least}, it is {getattr(options, name)}")


def check_att_bounds(att_min: float, att_max: float) -> None:
    """Refuse bounds unless 0 < att_min < att_max.

    Parameters
    ----------
    att_min, att_max : float
        Bounds of ATT [s].

    Raises
    ------
    InputError
        If they are out of order.
    """
    if not 0.0 < att_min < att_max:
        raise InputError(f"ATT bounds out of order: --att_min={att_min}, --att_max={att_max}")


def residuals(
    x: Array,
    voxel: Voxels,
    noise_sd: Array,
    protocol: Protocol,
    n_averages: Array,
    options: NllsOptions,
) -> Array:
    """Residuals of one voxel, or of many.

    Parameters
    ----------
    x : Array, shape (2, *S)
        CBF / 50 and ATT [s]; S is () for one voxel.
    voxel : Voxels
        With the delays first: `delta_m` of shape (D, *S).
    noise_sd : Array, shape ()
        Standard deviation of one difference image [unit of delta_m].
    protocol : Protocol
        Timing and constants.
    n_averages : Array, shape (D,)
        Images behind each delay.
    options : NllsOptions
        Centre and width of the penalty.

    Returns
    -------
    Array, shape (D + 1, *S)
        Misfits in units of the noise, then the distance of ATT from its guess.
    """
    misfit = predict(CBF_UNIT * x[0], x[1], voxel, protocol) - voxel.delta_m
    return _weigh(misfit, x[1:], noise_sd, n_averages, options)


def penalty(att: Array, options: NllsOptions) -> Array:
    """Residual that pulls ATT towards its guess.

    Parameters
    ----------
    att : Array, shape S
        Arterial transit times [s].
    options : NllsOptions
        Guess and its width.

    Returns
    -------
    Array, shape S
    """
    return (att - options.att_guess) / options.att_guess_sd


def bounds(options: NllsOptions, dtype: DTypeLike) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds of (CBF / 50, ATT), each of shape (2,).

    Parameters
    ----------
    options : NllsOptions
        Bounds of CBF [mL/100g/min] and ATT [s].
    dtype : dtype
        Floating-point type of the result.

    Returns
    -------
    lower, upper : ndarray, shape (2,)
    """
    lower = np.array([0.0, options.att_min], dtype)
    return lower, np.array([options.cbf_max / CBF_UNIT, options.att_max], dtype)


def noise_sample(values: T) -> T:
    """Every k-th voxel of a pytree of arrays, enough to estimate the noise from.

    Parameters
    ----------
    values : pytree of ndarray
        Leaves with a leading axis of V voxels.

    Returns
    -------
    pytree of ndarray
        Of the same structure, with 2,048 voxels at most.
    """
    every = -(-len(jax.tree.leaves(values)[0]) // _NOISE_SAMPLE)
    return jax.tree.map(lambda leaf: leaf[::every], values)


def noise_from_squares(squares: FloatArray, n_delays: int, voxels: Voxels) -> float:
    """Noise of one difference image from the voxels' residual sums of squares.

    Parameters
    ----------
    squares : ndarray, shape (V,)
        Weighted residual sum of squares of each voxel's fit of two parameters.
    n_delays : int
        Delays D; the sums follow a chi-square law with D - 2 degrees of freedom.
    voxels : Voxels
        Their root mean square signal sets the least noise, a thousandth of it: below, the
        cost would turn into a sum of absolute values, on whose creases the solvers stall.

    Returns
    -------
    float
        Standard deviation [unit of delta_m], from the median, which outliers do not move.
    """
    noise_sd = np.sqrt(np.median(squares) / scipy.stats.chi2.median(n_delays - 2))
    least = LEAST_NOISE * root_mean_square(voxels.delta_m)
    return float(max(noise_sd, least, np.finfo(np.float32).tiny))


def root_mean_square(values: ArrayLike) -> float:
    """Root of the mean square of an array of any shape, in its unit."""
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


def assemble(
    data: AslData,
    options: NllsOptions,
    noise_sd: float,
    x: FloatArray,
    sd: FloatArray,
    converged: NDArray[np.bool_],
) -> PerfusionMaps:
    """Maps, standard deviations and status from the solutions of all voxels.

    Parameters
    ----------
    data : AslData
        The volumes that were fitted.
    options : NllsOptions
        Bounds.
    noise_sd : float
        Estimated standard deviation of one difference image [unit of delta_m].
    x : ndarray, shape (V, 2)
        CBF / 50 and ATT.
    sd : ndarray, shape (V, 2)
        Standard deviations of CBF [mL/100g/min] and ATT [s].
    converged : ndarray of bool, shape (V,)
        Whether a tolerance was met.

    Returns
    -------
    PerfusionMaps
    """
    valid = data.valid
    lower, upper = bounds(options, x.dtype)
    on_bound = ((x <= lower) | (x >= upper)).any(axis=1)
    state = np.where(on_bound, Status.ON_BOUND, Status.FITTED)
    state = np.where(converged, state, Status.NOT_CONVERGED)
    return PerfusionMaps(
        cbf=to_volume(CBF_UNIT * x[:, 0], valid),
        att=to_volume(x[:, 1], valid),
        status=status_volume(state, data),
        cbf_sd=to_volume(sd[:, 0], valid),
        att_sd=to_volume(sd[:, 1], valid),
        noise_sd=noise_sd,
    )


def _weigh(
    misfit: Array, att: Array, noise_sd: Array, n_averages: Array, options: NllsOptions
) -> Array:
    """Misfits (D, *S) over the noise, then the distance of ATT (1, *S) from its guess."""
    weights = jnp.sqrt(jnp.asarray(n_averages, misfit.dtype)) / noise_sd
    weights = weights.reshape(-1, *[1] * (misfit.ndim - 1))
    return jnp.concatenate([misfit * weights, penalty(att, options)])
