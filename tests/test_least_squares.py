import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from asl_pinn.numerics.least_squares import (
    SOLVERS,
    Tolerances,
    determinant_small,
    soft_l1_cost,
    solve,
    solve_small,
)

pytestmark = pytest.mark.usefixtures("float64")

TIGHT = Tolerances(xtol=1e-10, ftol=1e-13, max_steps=300, f_scale=0.7)
SOLVED = jax.jit(solve, static_argnames=("residual", "tolerances", "solver"))
FREE = (jnp.array([-10.0, -10.0]), jnp.array([10.0, 10.0]))


def rosenbrock(x):
    return jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def kinked(x):
    """Kinked along x0 = 1, where the minimum lies, with x1 smooth."""
    return jnp.stack([jnp.abs(x[0] - 1.0) + 0.3 * x[1] + 1.0, x[1] - 2.0, 0.1 * (x[0] - 3.0)])


@pytest.mark.parametrize("solver", SOLVERS)
def test_rosenbrock_is_solved(solver):
    found = SOLVED(rosenbrock, jnp.array([-1.2, 1.0]), *FREE, TIGHT, solver)
    assert bool(found.converged)
    assert not bool(found.at_kink)
    assert np.allclose(found.x, 1.0, atol=1e-6)
    assert int(found.n_steps) < 100


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("upper", [10.0, 0.5, -0.4])
def test_solution_is_scipys_inside_a_box(solver, upper):
    lower, upper = jnp.array([-2.0, -2.0]), jnp.array([upper, 3.0])
    start = jnp.array([-1.2, 1.0])
    ours = SOLVED(rosenbrock, start, lower, upper, TIGHT, solver)
    theirs = scipy.optimize.least_squares(
        lambda x: np.asarray(rosenbrock(x)),
        start,
        bounds=(lower, upper),
        method="dogbox",
        loss="soft_l1",
        f_scale=TIGHT.f_scale,
        xtol=1e-12,
        ftol=1e-14,
        gtol=1e-14,
        max_nfev=1000,
    )
    assert float(ours.cost) <= theirs.cost * (1.0 + 1e-6) + 1e-12
    assert np.allclose(ours.x, theirs.x, atol=1e-3)
    assert ((ours.x >= lower) & (ours.x <= upper)).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_hessian_is_scipys_scaled_gauss_newton_matrix(solver):
    found = SOLVED(rosenbrock, jnp.array([0.8, 0.8]), *FREE, TIGHT, solver)
    jacobian = jax.jacfwd(rosenbrock)(found.x)
    weights = (1.0 + (rosenbrock(found.x) / TIGHT.f_scale) ** 2) ** -1.5
    assert np.allclose(found.hessian, jacobian.T @ (weights[:, None] * jacobian), rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_minimum_on_a_kink_is_found_from_both_sides(solver):
    for begin in (-3.0, 4.0):
        found = SOLVED(kinked, jnp.array([begin, 0.0]), *FREE, TIGHT, solver)
        assert float(found.x[0]) == pytest.approx(1.0, abs=1e-3)
        assert bool(found.at_kink)


@pytest.mark.parametrize("solver", SOLVERS)
def test_more_steps_never_raise_the_cost_and_few_do_not_converge(solver):
    costs = []
    for steps in (2, 8, 32):
        tolerances = Tolerances(1e-10, 1e-13, steps, 1.0)
        found = SOLVED(rosenbrock, jnp.array([-1.2, 1.0]), *FREE, tolerances, solver)
        assert int(found.n_steps) <= steps
        costs.append(float(found.cost))
    assert (np.diff(costs) <= 0.0).all()
    early = SOLVED(rosenbrock, jnp.array([-1.2, 1.0]), *FREE, Tolerances(1e-10, 1e-13, 2), solver)
    assert not bool(early.converged)


@pytest.mark.parametrize("solver", SOLVERS)
def test_vmapped_solves_are_those_alone(solver):
    starts = jnp.array([[-1.2, 1.0], [0.5, -0.5], [2.0, 2.0]])

    def one(x):
        return SOLVED(rosenbrock, x, *FREE, TIGHT, solver)

    together = jax.jit(jax.vmap(one))(starts)
    for k, x in enumerate(starts):
        alone = one(x)
        assert np.allclose(together.x[k], alone.x, rtol=1e-9)
        assert int(together.n_steps[k]) == int(alone.n_steps)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_parameter_without_effect_stays_where_it_is(solver):
    found = SOLVED(lambda x: x[:1] - 2.0, jnp.array([0.0, 0.3]), *FREE, TIGHT, solver)
    assert np.allclose(found.x, [2.0, 0.3], atol=1e-6)
    assert np.isfinite(found.hessian).all()


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(0.01, 100.0))
def test_soft_l1_is_scipys(residual, scale):
    residual = np.array(residual)
    expected = scale**2 * np.sum(np.sqrt(1.0 + (residual / scale) ** 2) - 1.0)
    assert float(soft_l1_cost(residual, scale)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_small_systems_are_solved(size):
    random = np.random.default_rng(size)
    factor = random.normal(size=(size, size + 2))
    matrix = factor @ factor.T
    inverse = np.stack(solve_small(matrix, np.eye(size)))
    assert np.allclose(matrix @ inverse, np.eye(size), atol=1e-9)
    vector = random.normal(size=size)
    assert np.allclose(solve_small(matrix, vector), np.linalg.solve(matrix, vector), rtol=1e-9)
    assert float(determinant_small(matrix)) == pytest.approx(np.linalg.det(matrix), rel=1e-9)
