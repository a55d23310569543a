import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn.sine import sine

ANGLES = np.random.default_rng(0).uniform(-1000.0, 1000.0, 20000)


def test_float32_sine_is_close_to_the_double_precision_one():
    angles = ANGLES.astype(np.float32)
    error = np.asarray(sine(jnp.asarray(angles)), np.float64) - np.sin(angles.astype(np.float64))
    assert np.abs(error).max() < 1e-6


def test_float64_takes_the_builtin_sine():
    with jax.enable_x64(True):
        angles = jnp.asarray(ANGLES)
        assert (sine(angles) == jnp.sin(angles)).all()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_are_those_of_the_sine(order):
    def derive(function):
        for _ in range(order):
            function = jax.grad(function)
        return jax.vmap(function)

    angles = jnp.linspace(-7.0, 7.0, 501)
    np.testing.assert_allclose(derive(sine)(angles), derive(jnp.sin)(angles), atol=2e-6)


def test_multiples_of_pi_and_zero():
    assert sine(jnp.float32(0.0)) == 0.0
    multiples = jnp.arange(-5, 6, dtype=jnp.float32) * np.float32(np.pi)
    assert np.abs(sine(multiples)).max() < 2e-6
