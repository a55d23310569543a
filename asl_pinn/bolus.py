"""The bolus duration as a function of time, tau(t), and its slope."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.errors import InputError

BolusKind = Literal["spline5", "monotone"]

_DEGREE = 5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BolusSpline:
    """An interpolant tau(t) through the points (t_i, tau_i) of a protocol.

    Attributes
    ----------
    knots : Array
        `spline5`: the B-spline's knot vector, shape (D + 6,); `monotone`: the sorted t_i,
        shape (D,) [s].
    values : Array
        `spline5`: B-spline coefficients; `monotone`: tau_i; shape (D,) [s].
    slopes : Array
        `monotone`: tau'(t_i), shape (D,) [s/s]; `spline5`: empty.
    kind : {'spline5', 'monotone'}
        Which interpolant.
    """

    knots: Array
    values: Array
    slopes: Array
    kind: BolusKind = dataclasses.field(metadata={"static": True})


def fit_bolus(t: ArrayLike, label_duration: ArrayLike, kind: BolusKind) -> BolusSpline:
    """Interpolate the bolus durations of a protocol over time.

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

    Raises
    ------
    InputError
        If there are too few points for `kind` or `kind` is unknown.

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
    t, tau = jnp.asarray(t), jnp.asarray(label_duration)
    if kind == "spline5":
        if t.size < _DEGREE + 1:
            raise InputError(
                f"bolus kind 'spline5' needs at least {_DEGREE + 1} delays, the protocol has "
                f"{t.size}; use 'monotone'"
            )
        return _fit_spline5(t, tau)
    if kind == "monotone":
        if t.size < 2:
            raise InputError(f"bolus kind 'monotone' needs at least 2 delays, not {t.size}")
        return _fit_monotone(t, tau)
    raise InputError(f"unknown bolus kind {kind!r}; choose spline5 or monotone")


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
    if spline.kind == "spline5":
        knots, coefficients = spline.knots, spline.values
        run = knots[_DEGREE + 1 : -1] - knots[1 : -_DEGREE - 1]
        slope_coefficients = _DEGREE * jnp.diff(coefficients) / run
        return (
            _evaluate_bspline(t, knots, coefficients, _DEGREE),
            _evaluate_bspline(t, knots[1:-1], slope_coefficients, _DEGREE - 1),
        )
    return _evaluate_hermite(t, spline)


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


@jax.jit
def _fit_spline5(t: Array, tau: Array) -> BolusSpline:
    t, tau = _by_time(t, tau)
    half = (_DEGREE + 1) // 2
    interior = t[half:-half]
    knots = jnp.concatenate(
        [jnp.repeat(t[:1], _DEGREE + 1), interior, jnp.repeat(t[-1:], _DEGREE + 1)]
    )
    first, basis = _bspline_basis(t, knots, _DEGREE)
    columns = first[:, None] + jnp.arange(_DEGREE + 1)
    collocation = jnp.zeros((t.size, t.size), t.dtype)
    collocation = collocation.at[jnp.arange(t.size)[:, None], columns].set(basis)
    return BolusSpline(knots, jnp.linalg.solve(collocation, tau), jnp.zeros(0, t.dtype), "spline5")


@jax.jit
def _fit_monotone(t: Array, tau: Array) -> BolusSpline:
    t, tau = _by_time(t, tau)
    return BolusSpline(t, tau, _monotone_slopes(t, tau), "monotone")


def _by_time(t: Array, tau: Array) -> tuple[Array, Array]:
    order = jnp.argsort(t)
    return t[order], tau[order]


def _evaluate_bspline(t: Array, knots: Array, coefficients: Array, degree: int) -> Array:
    first, basis = _bspline_basis(t, knots, degree)
    return jnp.sum(basis * coefficients[first[..., None] + jnp.arange(degree + 1)], axis=-1)


def _bspline_basis(t: Array, knots: Array, degree: int) -> tuple[Array, Array]:
    """Index of the first non-zero B-spline at t, and the degree + 1 non-zero values."""
    span = jnp.clip(jnp.searchsorted(knots, t, side="right") - 1, degree, knots.size - degree - 2)
    basis = [jnp.ones_like(t)]
    for k in range(1, degree + 1):
        grown = [jnp.zeros_like(t)] * (k + 1)
        for j, value in enumerate(basis):
            right, left = knots[span + j + 1], knots[span + j + 1 - k]
            share = value / (right - left)
            grown[j] = grown[j] + (right - t) * share
            grown[j + 1] = grown[j + 1] + (t - left) * share
        basis = grown
    return span - degree, jnp.stack(basis, axis=-1)


def _monotone_slopes(t: Array, tau: Array) -> Array:
    width, secant = jnp.diff(t), jnp.diff(tau) / jnp.diff(t)
    if t.size == 2:
        return jnp.repeat(secant, 2)
    before, after = secant[:-1], secant[1:]
    weight_before = 2.0 * width[1:] + width[:-1]
    weight_after = width[1:] + 2.0 * width[:-1]
    same_sign = before * after > 0.0
    safe_before = jnp.where(same_sign, before, 1.0)
    safe_after = jnp.where(same_sign, after, 1.0)
    harmonic = (weight_before + weight_after) / (
        weight_before / safe_before + weight_after / safe_after
    )
    inner = jnp.where(same_sign, harmonic, 0.0)
    start = _monotone_end_slope(width[0], width[1], secant[0], secant[1])
    end = _monotone_end_slope(width[-1], width[-2], secant[-1], secant[-2])
    return jnp.concatenate([start[None], inner, end[None]])


def _monotone_end_slope(
    width: Array, next_width: Array, secant: Array, next_secant: Array
) -> Array:
    """One-sided three-point slope, limited so that the end piece stays monotone."""
    slope = ((2.0 * width + next_width) * secant - width * next_secant) / (width + next_width)
    overshoots = (jnp.sign(secant) != jnp.sign(next_secant)) & (
        jnp.abs(slope) > 3.0 * jnp.abs(secant)
    )
    slope = jnp.where(overshoots, 3.0 * secant, slope)
    return jnp.where(jnp.sign(slope) != jnp.sign(secant), 0.0, slope)


def _evaluate_hermite(t: Array, spline: BolusSpline) -> tuple[Array, Array]:
    knots = spline.knots
    left = jnp.clip(jnp.searchsorted(knots, t, side="right") - 1, 0, knots.size - 2)
    width = knots[left + 1] - knots[left]
    u = (t - knots[left]) / width
    tau0, tau1 = spline.values[left], spline.values[left + 1]
    slope0, slope1 = spline.slopes[left], spline.slopes[left + 1]
    secant = (tau1 - tau0) / width
    quadratic = 3.0 * secant - 2.0 * slope0 - slope1
    cubic = slope0 + slope1 - 2.0 * secant
    tau = tau0 + width * u * (slope0 + u * (quadratic + u * cubic))
    return tau, slope0 + u * (2.0 * quadratic + 3.0 * u * cubic)
