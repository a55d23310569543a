import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn.estimators.neural.siren import Siren


def parameters(network, n_inputs=2, dtype=jnp.float32):
    return jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, n_inputs), dtype))


@pytest.mark.parametrize("hidden_omega", [1.0, 30.0])
def test_weights_are_uniform_in_the_published_bounds(hidden_omega):
    layers = parameters(Siren(256, 4, 1, 30.0, hidden_omega))["params"]["layers"]
    bound = np.sqrt(6.0 / 256) / hidden_omega
    shapes = [(2, 256), (256, 256), (256, 256), (256, 256), (256, 1)]
    assert [layer["kernel"].shape for layer in layers] == shapes
    for layer, expected in zip(layers, [0.5, bound, bound, bound, bound], strict=True):
        kernel = np.asarray(layer["kernel"])
        assert np.abs(kernel).max() <= expected
        assert np.abs(kernel).max() > 0.97 * expected
        assert kernel.std() == pytest.approx(expected / np.sqrt(3.0), rel=0.1)
    phases = np.asarray(layers[0]["bias"])
    assert np.abs(phases).max() <= np.pi
    assert phases.std() == pytest.approx(np.pi / np.sqrt(3.0), rel=0.1)


def test_every_layer_has_the_same_standard_deviation():
    x = jax.random.uniform(jax.random.key(1), (500, 2), minval=-1.0, maxval=1.0)
    # Weights give a hidden layer's argument unit variance, and biases their own.
    argument = np.sqrt(1.0 + (30.0 / np.sqrt(256)) ** 2 / 3.0)
    for depth in (1, 2, 4, 8):
        network = Siren(256, depth, 200, 30.0, 30.0)
        output = network.apply(parameters(network), x)
        assert 30.0 * output.std() == pytest.approx(argument, rel=0.15)


def test_omega_sets_how_fast_the_output_varies_with_each_input():
    network = Siren(64, 3, 1, (1.0, 20.0), 1.0)
    params = parameters(network)
    gradient = jax.vmap(jax.grad(lambda x: network.apply(params, x)[0]))
    slopes = gradient(jax.random.uniform(jax.random.key(1), (200, 2)))
    slow, fast = np.sqrt(np.mean(np.asarray(slopes) ** 2, axis=0))
    assert 10.0 < fast / slow < 40.0


def test_derivative_in_one_input_matches_finite_differences():
    with jax.enable_x64(True):
        network = Siren(32, 3, 2, 5.0, 1.0)
        params = parameters(network, 3, jnp.float64)
        x = jax.random.uniform(jax.random.key(1), (20, 3), jnp.float64)
        along = jnp.zeros_like(x).at[:, 0].set(1.0)
        _, derivative = jax.jvp(lambda x: network.apply(params, x), (x,), (along,))
        step = 1e-5
        ahead, behind = (network.apply(params, x + sign * step * along) for sign in (1, -1))
        np.testing.assert_allclose(derivative, (ahead - behind) / (2 * step), atol=1e-7)


def test_slopes_beside_the_values_are_those_of_forward_differentiation():
    with jax.enable_x64(True):
        network = Siren(32, 3, 2, (5.0, 2.0, 1.0), 1.5)
        params = parameters(network, 3, jnp.float64)
        x, along = jax.random.uniform(jax.random.key(1), (2, 20, 3), jnp.float64)
        values, slopes = network.apply(params, x, along[12:], method=Siren.with_slopes)
        _, expected = jax.jvp(lambda x: network.apply(params, x), (x,), (along,))
        np.testing.assert_allclose(values, network.apply(params, x), atol=1e-12)
        np.testing.assert_allclose(slopes, expected[12:], atol=1e-12)


def test_shapes_and_types():
    network = Siren(8, 2, 3, 10.0, 1.0)
    params = parameters(network)
    assert network.apply(params, jnp.zeros((4, 5, 2))).shape == (4, 5, 3)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    with jax.enable_x64(True):
        double = parameters(network, 2, jnp.float64)
        assert network.apply(double, jnp.zeros((1, 2), jnp.float64)).dtype == jnp.float64
