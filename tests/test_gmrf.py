import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn.estimators.spatial.gmrf import (
    adjoint,
    differences,
    make_lattice,
    roughness,
    roughness_adjoint,
    roughness_diagonal,
)

MASK = np.random.default_rng(0).random((6, 5, 4)) < 0.7
MASK[2, 2, 2] = True


@pytest.fixture(params=[2, 3])
def lattice(request, float64):
    return make_lattice(MASK, (3.0, 3.0, 5.0), request.param, np.float64)


def dense(lattice, order):
    """Matrix of the roughness, (rows, V)."""
    unit = jnp.eye(lattice.link.shape[1])
    return np.asarray(jax.vmap(lambda e: roughness(lattice, e, order).ravel())(unit)).T


def test_neighbours_are_those_of_the_mask():
    lattice = make_lattice(MASK, (3.0, 3.0, 5.0), 3, np.float32)
    position = np.argwhere(MASK)
    for axis in range(3):
        linked = np.asarray(lattice.link[axis] > 0.0)
        step = position[np.asarray(lattice.following[axis])][linked] - position[linked]
        assert (step == np.eye(3, dtype=int)[axis]).all()
        assert (
            linked.sum()
            == (
                np.take(MASK, range(1, MASK.shape[axis]), axis)
                & np.take(MASK, range(MASK.shape[axis] - 1), axis)
            ).sum()
        )


def test_thick_slices_count_for_less():
    lattice = make_lattice(np.ones((2, 2, 2), bool), (3.0, 3.0, 6.0), 3, np.float32)
    assert np.unique(lattice.link[2]).tolist() == [0.0, 0.5]


@pytest.mark.parametrize("order", [1, 2])
def test_adjoint_is_the_transpose(lattice, order):
    rng = np.random.default_rng(1)
    field = jnp.asarray(rng.standard_normal(lattice.link.shape[1]))
    values = jnp.asarray(rng.standard_normal(roughness(lattice, field, order).shape))
    there = jnp.sum(roughness(lattice, field, order) * values)
    back = jnp.sum(field * roughness_adjoint(lattice, values, order))
    assert np.isclose(there, back, rtol=1e-12)
    steps = jnp.asarray(rng.standard_normal(lattice.link.shape))
    assert np.isclose(
        jnp.sum(differences(lattice, field) * steps), field @ adjoint(lattice, steps), rtol=1e-12
    )


@pytest.mark.parametrize("order", [1, 2])
def test_diagonal_is_that_of_the_dense_matrix(lattice, order):
    matrix = dense(lattice, order)
    expected = np.diag(matrix.T @ matrix)
    assert np.allclose(roughness_diagonal(lattice, order), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_what_is_smooth_is_one_constant_on_each_part(lattice, order):
    matrix = dense(lattice, order)
    assert np.linalg.matrix_rank(matrix.T @ matrix, tol=1e-8) == MASK.sum() - lattice.n_parts
