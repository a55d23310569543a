"""The bolus duration as a function of time, tau(t), and its slope."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.interpolate import PchipInterpolator, PPoly, make_interp_spline

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError

BolusKind = Literal["spline5", "monotone"]

_LEAST_POINTS: dict[BolusKind, int] = {"spline5": 6, "monotone": 2}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BolusSpline:
    """A piecewise polynomial tau(t) through the points (t_i, tau_i) of a protocol.

    Attributes
    ----------
    knots : Array, shape (M + 1,)
        Where the M pieces begin, and where the last one ends [s].
    coefficients : Array, shape (degree + 1, M)
        Of each piece, by falling powers of the time since it began [s, s/s, ...].
    kind : {'spline5', 'monotone'}
        Which interpolant.
    """

    knots: Array
    coefficients: Array
    kind: BolusKind = dataclasses.field(metadata={"static": True})


def fit_bolus(t: ArrayLike, label_duration: ArrayLike, kind: BolusKind) -> BolusSpline:
    """Interpolate the bolus durations of a protocol over time; on the host.

    Parameters
    ----------
    t : array_like, shape (D,)
        Time since the start of each bolus [s], in any order, all different.
    label_duration : array_like, shape (D,)
        Duration of each bolus [s].
    kind : {'spline5', 'monotone'}
        The not-a-knot quintic spline of the original method, for D >= 6, or Fritsch and
        Carlson's monotone cubic (PCHIP), for D >= 2.

    Returns
    -------
    BolusSpline
        In JAX's floating-point type for `t`.

    Raises
    ------
    InputError
        If there are too few points for `kind`, two times are equal, or `kind` is unknown.

    References
    ----------
    de Boor, A Practical Guide to Splines (1978); Fritsch and Butland, SIAM J Sci Stat
    Comput 5:300-304 (1984).

    Examples
    --------
    >>> spline = fit_bolus([1.0, 2.0, 3.0, 4.0], [0.4, 0.6, 1.0, 1.8], "monotone")
    >>> tau, slope = label_duration_at(spline, 2.5)
    >>> round(float(tau), 3), round(float(slope), 3)
    (0.767, 0.4)
    """
    times, tau = np.asarray(t, np.float64), np.asarray(label_duration, np.float64)
    if kind not in _LEAST_POINTS:
        raise InputError(f"unknown bolus kind {kind!r}; choose {' or '.join(_LEAST_POINTS)}")
    if times.size < _LEAST_POINTS[kind]:
        raise InputError(
            f"bolus kind {kind!r} needs at least {_LEAST_POINTS[kind]} delays, the protocol has "
            f"{times.size}; use 'per_bolus', or more delays"
        )
    if np.unique(times).size < times.size:
        raise InputError(
            f"bolus kind {kind!r} needs delays at times that differ; use 'per_bolus' where two "
            "boluses are read equally long after their start"
        )
    order = np.argsort(times)
    pieces = _PIECES[kind](times[order], tau[order])
    # Repeated knots at the ends of a B-spline bound pieces of no width.
    wide = np.flatnonzero(np.diff(pieces.x) > 0.0)
    dtype = jnp.result_type(float, np.asarray(t))
    return BolusSpline(
        jnp.asarray(np.append(pieces.x[wide], pieces.x[-1]), dtype),
        jnp.asarray(pieces.c[:, wide], dtype),
        kind,
    )


@jax.jit
def label_duration_at(spline: BolusSpline, t: ArrayLike) -> tuple[Array, Array]:
    """Evaluate tau(t) and tau'(t).

    Parameters
    ----------
    spline : BolusSpline
        From `fit_bolus`.
    t : array_like
        Times since the start of the bolus [s]; outside the fitted range the outermost
        polynomial piece continues.

    Returns
    -------
    tau, slope : Array
        Bolus duration [s] and its derivative [s/s], of the shape of `t`.
    """
    t = jnp.asarray(t)
    last = spline.coefficients.shape[1] - 1
    piece = jnp.clip(jnp.searchsorted(spline.knots, t, side="right") - 1, 0, last)
    since, coefficients = t - spline.knots[piece], spline.coefficients[:, piece]
    tau, slope = coefficients[0], jnp.zeros_like(coefficients[0])
    for coefficient in coefficients[1:]:  # Horner's scheme, and its derivative beside it
        tau, slope = tau * since + coefficient, slope * since + tau
    return tau, slope


def range_excess(spline: BolusSpline, t: ArrayLike, label_duration: ArrayLike) -> float:
    """How far tau(t) leaves the range of its own points, between the first and the last.

    Parameters
    ----------
    spline : BolusSpline
        From `fit_bolus`.
    t, label_duration : array_like, shape (D,)
        The points it was fitted to [s].

    Returns
    -------
    float
        Largest distance below the smallest or above the largest tau_i [s]; 0 if none.

    Examples
    --------
    The quintic spline swings far outside the durations of a schedule of unequal boluses.

    >>> t = [3.1, 1.3, 0.85, 0.6, 0.45, 0.3, 0.2]
    >>> label_duration = [1.8, 0.8, 0.4, 0.15, 0.15, 0.1, 0.1]
    >>> range_excess(fit_bolus(t, label_duration, "spline5"), t, label_duration) > 1.0
    True
    """
    t, tau = np.asarray(t), np.asarray(label_duration)
    curve = np.asarray(label_duration_at(spline, np.linspace(t.min(), t.max(), 2001))[0])
    return float(max(0.0, tau.min() - curve.min(), curve.max() - tau.max()))


def require_within_range(spline: BolusSpline, t: ArrayLike, label_duration: ArrayLike) -> None:
    """Refuse an interpolant that swings outside the durations that the scanner played.

    Parameters
    ----------
    spline, t, label_duration
        As in `range_excess`.

    Raises
    ------
    InputError
        If tau(t) leaves the range of the tau_i by more than 5 % of the longest.
    """
    excess = range_excess(spline, t, label_duration)
    longest = float(np.max(np.asarray(label_duration)))
    if excess > 0.05 * longest:
        raise InputError(
            f"bolus kind {spline.kind!r} leaves the range of the label durations by "
            f"{excess:.2f} s for this schedule; use 'monotone' or 'per_bolus'"
        )


def _quintic(t: FloatArray, tau: FloatArray) -> PPoly:
    return PPoly.from_spline(make_interp_spline(t, tau, k=5))


_PIECES = {"spline5": _quintic, "monotone": PchipInterpolator}
