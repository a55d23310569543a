import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn.estimators.neural.sine import cosine, sine

ANGLES = np.random.default_rng(0).uniform(-1000.0, 1000.0, 20000)


@pytest.mark.parametrize(("ours", "exact"), [(sine, np.sin), (cosine, np.cos)])
def test_float32_is_close_to_double_precision(ours, exact):
    angles = ANGLES.astype(np.float32)
    error = np.asarray(ours(jnp.asarray(angles)), np.float64) - exact(angles.astype(np.float64))
    assert np.abs(error).max() < 1e-6


@pytest.mark.parametrize(("ours", "builtin"), [(sine, jnp.sin), (cosine, jnp.cos)])
def test_float64_takes_the_builtin_function(ours, builtin):
    with jax.enable_x64(True):
        angles = jnp.asarray(ANGLES)
        assert (ours(angles) == builtin(angles)).all()


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
