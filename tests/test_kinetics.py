import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from hypothesis import assume, given
from hypothesis import strategies as st

from asl_pinn.kinetics import (
    apparent_t1,
    delta_m,
    delta_m_by_att,
    delta_m_time_derivative,
)

pytestmark = pytest.mark.usefixtures("float64")

CBF = st.floats(0.0, 200.0)
ATT = st.floats(0.05, 4.0)
TAU = st.floats(0.05, 4.0)
T = st.floats(0.0, 8.0)
SLOPE = st.floats(-3.0, 3.0)


CURVE = jax.jit(delta_m)
BY_ATT = jax.jit(lambda att, *times, **constants: delta_m_by_att(*times, **constants)(att))
DERIVATIVE = jax.jit(delta_m_time_derivative)
AUTOMATIC = jax.jit(
    lambda cbf, att, t, tau, slope: jax.jvp(
        lambda t, tau: delta_m(cbf, att, t, tau), (t, tau), (1.0, slope)
    )[1]
)
WITH_GRADIENTS = {
    function.__name__: jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2, 3)))
    for function in (delta_m, delta_m_time_derivative)
}


def distance_to_kink(att: float, t: float, tau: float) -> float:
    return min(abs(t - att), abs(t - att - tau))


def reference(cbf: float, att: float, t: float, tau: float, t1: float = 1.33) -> float:
    """Convolution of the arriving bolus with the residue function, integrated numerically."""
    flow = cbf / 6000.0
    rate = 1.0 / t1 + flow / 0.9
    begin, end = att, min(t, att + tau)
    if end <= begin:
        return 0.0
    tissue, _ = scipy.integrate.quad(lambda s: np.exp(-(t - s) * rate), begin, end, epsabs=1e-13)
    return 2.0 * 0.85 / 0.9 * flow * np.exp(-att / 1.65) * tissue


@given(CBF, ATT, T, TAU)
def test_curve_is_the_convolution_of_bolus_and_residue(cbf, att, t, tau):
    expected = reference(cbf, att, t, tau)
    assert float(CURVE(cbf, att, t, tau)) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(CBF, ATT, T, TAU, SLOPE)
def test_derivative_is_the_automatic_one_along_the_schedule(cbf, att, t, tau, slope):
    assume(distance_to_kink(att, t, tau) > 1e-6)
    expected = float(AUTOMATIC(cbf, att, t, tau, slope))
    assert float(DERIVATIVE(cbf, att, t, tau, slope)) == pytest.approx(
        expected, rel=1e-6, abs=1e-12
    )


@given(CBF, ATT, T, TAU, SLOPE)
def test_derivative_is_the_central_difference(cbf, att, t, tau, slope):
    distance = min(distance_to_kink(att, t, tau), tau)
    assume(distance > 1e-3)
    step = min(1e-2, distance / (4.0 * (1.0 + abs(slope))))

    def along(offset: float) -> float:
        return float(CURVE(cbf, att, t + offset, tau + slope * offset))

    fourth_order = 8.0 * (along(step) - along(-step)) - (along(2.0 * step) - along(-2.0 * step))
    steepest = 2.0 * 0.85 / 0.9 * cbf / 6000.0
    assert float(DERIVATIVE(cbf, att, t, tau, slope)) == pytest.approx(
        fourth_order / (12.0 * step), rel=1e-6, abs=1e-6 * steepest + 1e-12
    )


@pytest.mark.parametrize("cbf", [0.0, 5.0, 60.0, 200.0])
@pytest.mark.parametrize("att", [0.05, 1.0, 4.0])
@pytest.mark.parametrize("tau", [0.05, 1.8, 4.0])
def test_curve_is_continuous_at_arrival_and_at_the_end_of_the_bolus(cbf, att, tau):
    step = 1e-9
    for kink in (att, att + tau):
        below, above = delta_m(cbf, att, jnp.array([kink - step, kink + step]), tau)
        steepest = 2.0 * 0.85 / 0.9 * cbf / 6000.0
        assert abs(float(above - below)) <= 2.0 * step * steepest + 1e-15


@pytest.mark.parametrize("function", WITH_GRADIENTS)
@given(cbf=CBF, att=ATT, tau=TAU, where=st.sampled_from(["free", "arrival", "end"]), t=T)
def test_no_nan_in_value_or_gradient_anywhere(function, cbf, att, tau, where, t):
    t = {"free": t, "arrival": att, "end": att + tau}[where]
    value, gradients = WITH_GRADIENTS[function](cbf, att, t, tau)
    assert np.isfinite(value)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("function", [delta_m, delta_m_time_derivative])
def test_float32_stays_finite_at_the_corners(function):
    corners = np.float32(
        [(f, a, t, u) for f in (0, 200) for a in (0.05, 4) for t in (0, 8) for u in (0.05, 4)]
    )
    with jax.enable_x64(False):
        gradients = jax.vmap(jax.grad(lambda row: function(*row)))(corners)
        assert gradients.dtype == np.float32
        assert np.isfinite(gradients).all()


@given(CBF, ATT, T, TAU, st.floats(0.1, 1e6))
def test_signal_scales_with_m0_and_vanishes_without_flow(cbf, att, t, tau, m0):
    assert float(CURVE(0.0, att, t, tau, m0=m0)) == 0.0
    assert float(CURVE(cbf, att, t, tau, m0=m0)) == pytest.approx(
        m0 * float(CURVE(cbf, att, t, tau)), rel=1e-12
    )


def test_derivative_jumps_where_the_bolus_arrives_and_ends_and_is_taken_from_the_right():
    arrival, end = delta_m_time_derivative(60.0, 1.0, jnp.array([1.0, 2.0]), 1.0)
    assert float(arrival) > 0.0 > float(end)
    assert float(delta_m_time_derivative(60.0, 1.0, 1.0 - 1e-9, 1.0)) == 0.0


def test_apparent_t1_is_tissue_t1_without_flow():
    assert float(apparent_t1(0.0, 1.3)) == pytest.approx(1.3)
    assert float(apparent_t1(60.0, 1.3)) == pytest.approx(1.0 / (1.0 / 1.3 + 0.01 / 0.9))


def test_functions_jit_and_vmap():
    grid = jnp.linspace(0.1, 3.0, 5)
    mapped = jax.jit(jax.vmap(delta_m, in_axes=(None, 0, None, None)))(60.0, grid, 3.0, 1.8)
    assert np.allclose(mapped, delta_m(60.0, grid, 3.0, 1.8), rtol=1e-12)


@given(CBF, st.lists(T, min_size=3, max_size=3), st.lists(TAU, min_size=3, max_size=3))
def test_many_transit_times_at_once_give_the_same_curve(cbf, t, tau):
    att = np.linspace(0.05, 4.0, 17)
    for t1 in (0.1, 1.33):
        expected = CURVE(cbf, att, np.array(t)[:, None], np.array(tau)[:, None], t1_tissue=t1)
        actual = BY_ATT(att, cbf, np.array(t)[:, None], np.array(tau)[:, None], t1_tissue=t1)
        assert np.allclose(actual, expected, rtol=0.0, atol=1e-12)
