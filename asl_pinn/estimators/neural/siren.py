"""Coordinate networks with sine activations (SIREN)."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from asl_pinn.estimators.neural.sine import cosine, sine

Layer = dict[str, Array]


class Siren(nn.Module):
    """A fully connected network of sine layers and one linear layer at the end.

    The first layer is sin(W (omega x) + b) with phases b drawn from the whole circle: its
    omega sets how fast the output may vary with each input. The others are
    sin(omega (W x + b)). With the weights drawn as in the reference, the activations of
    all layers have the same standard deviation.

    Attributes
    ----------
    width : int
        Neurons of each sine layer.
    depth : int
        Number of sine layers.
    n_outputs : int
        Number of outputs.
    first_omega : float or tuple of float
        Angular frequency of the first layer: one for all inputs, or one for each.
    hidden_omega : float
        Factor of the other layers' arguments.

    References
    ----------
    Sitzmann et al., Implicit neural representations with periodic activation functions,
    NeurIPS (2020), section 3.2 and supplement 1.
    """

    width: int
    depth: int
    n_outputs: int
    first_omega: float | tuple[float, ...] = 30.0
    hidden_omega: float = 30.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Evaluate the network.

        Parameters
        ----------
        x : Array, shape (..., N)
            Inputs of order one.

        Returns
        -------
        Array, shape (..., n_outputs)
        """
        first, *hidden, last = self._layers(x)
        x = sine(_affine(first, self._omega(x) * x))
        for layer in hidden:
            x = sine(self.hidden_omega * _affine(layer, x))
        return _affine(last, x)

    @nn.compact
    def with_slopes(self, x: Array, direction: Array) -> tuple[Array, Array]:
        """Evaluate the network at B points, and its directional derivatives at the last of them.

        What `jax.jvp` would give, but all points and derivatives share each layer's matrix
        product, which keeps a CPU busier than many small ones.

        Parameters
        ----------
        x : Array, shape (B, N)
            Inputs of order one.
        direction : Array, shape (S, N)
            Tangents of the last S points.

        Returns
        -------
        values : Array, shape (B, n_outputs)
        slopes : Array, shape (S, n_outputs)
        """
        first, *hidden, last = self._layers(x)
        omega, n_points, without = self._omega(x), len(x), len(x) - len(direction)
        phase = _affine(first, omega * x)
        phase_slope = (omega * direction) @ first["kernel"]
        for layer in (*hidden, last):
            slope = cosine(phase[without:]) * phase_slope
            product = jnp.concatenate([sine(phase), slope]) @ layer["kernel"]
            scale = 1.0 if layer is last else self.hidden_omega
            phase = scale * (product[:n_points] + layer["bias"])
            phase_slope = scale * product[n_points:]
        return phase, phase_slope

    def _layers(self, x: Array) -> list[Layer]:
        return self.param("layers", self._draw, x.shape[-1], x.dtype)

    def _omega(self, x: Array) -> Array:
        return jnp.broadcast_to(jnp.asarray(self.first_omega, x.dtype), x.shape[-1:])

    def _draw(self, key: Array, n_inputs: int, dtype: DTypeLike) -> list[Layer]:
        """Parameters of all layers, out of one draw, which compiles faster than many."""
        sizes = [n_inputs] + [self.width] * self.depth + [self.n_outputs]
        shapes = list(itertools.pairwise(sizes))
        hidden_bounds = math.sqrt(6.0 / self.width) / self.hidden_omega, self.width**-0.5
        bounds = [(1.0 / n_inputs, math.pi)] + [hidden_bounds] * self.depth
        ends = np.cumsum([size for rows, columns in shapes for size in (rows * columns, columns)])
        numbers = jax.random.uniform(key, (ends[-1],), dtype, -1.0, 1.0)
        pieces = iter(jnp.split(numbers, ends[:-1]))
        return [
            {"kernel": bound * next(pieces).reshape(shape), "bias": bias_bound * next(pieces)}
            for shape, (bound, bias_bound) in zip(shapes, bounds, strict=True)
        ]


def _affine(layer: Layer, x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"]
