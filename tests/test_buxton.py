import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asl_pinn.models.base import Blood, Timing, Tissue
from asl_pinn.models.buxton import Buxton, apparent_t1

pytestmark = pytest.mark.usefixtures("float64")

CBF = st.floats(0.0, 200.0)
ATT = st.floats(0.05, 4.0)
TAU = st.floats(0.05, 4.0)
T = st.floats(0.0, 8.0)
SLOPE = st.floats(-3.0, 3.0)

BUXTON = Buxton()


def delta_m(cbf, att, t, tau, t1=1.33):
    return BUXTON.signal((cbf, att), Timing(t, tau), Tissue(t1_tissue=t1), Blood())


def derivative(cbf, att, t, tau, slope=0.0):
    return BUXTON.time_derivative((cbf, att), Timing(t, tau), Tissue(), Blood(), slope)


def basis(att, t, tau, t1):
    (curve,) = BUXTON.basis((), Timing(t, tau), Tissue(t1_tissue=t1), Blood())(att)
    return curve


CURVE, DERIVATIVE, BASIS = jax.jit(delta_m), jax.jit(derivative), jax.jit(basis)


def analytic_derivative(cbf: float, att: float, t: float, tau: float, slope: float) -> float:
    """Total derivative by hand, between the kinks: dM/dt + dM/dtau * tau'(t).

    While the bolus flows in, M grows at F exp(-x/T1') whatever its duration. After its end M
    decays at 1/T1', and a bolus that had lasted longer would have brought F exp(-(x - tau)/T1')
    more for each second.
    """
    flow = cbf / 6000.0
    rate = 1.0 / 1.33 + flow / 0.9
    delivery = 2.0 * 0.85 / 0.9 * flow * np.exp(-att / 1.65)
    since_arrival = t - att
    if since_arrival < 0.0:
        return 0.0
    if since_arrival < tau:
        return delivery * np.exp(-since_arrival * rate)
    after_end = delivery * np.exp(-(since_arrival - tau) * rate)
    return after_end * (slope - (1.0 - np.exp(-tau * rate)))


@given(CBF, ATT, T, TAU, SLOPE)
def test_derivative_is_the_analytic_one_along_the_schedule(cbf, att, t, tau, slope):
    assume(min(abs(t - att), abs(t - att - tau)) > 1e-6)
    assert float(DERIVATIVE(cbf, att, t, tau, slope)) == pytest.approx(
        analytic_derivative(cbf, att, t, tau, slope), rel=1e-9, abs=1e-15
    )


@pytest.mark.parametrize("slope", [0.0, -0.7])
def test_derivative_jumps_where_the_bolus_arrives_and_ends_and_is_there_the_mean(slope):
    for kink in (1.0, 2.0):
        before, at, after = (
            float(derivative(60.0, 1.0, t, 1.0, slope)) for t in (kink - 1e-9, kink, kink + 1e-9)
        )
        assert abs(after - before) > 1e-3
        assert at == pytest.approx((before + after) / 2.0, rel=1e-6)
    assert float(derivative(60.0, 1.0, 1.0 - 1e-9, 1.0, slope)) == 0.0


@pytest.mark.parametrize("function", [delta_m, derivative])
def test_float32_stays_finite_at_the_corners(function):
    corners = np.float32(
        [(f, a, t, u) for f in (0, 200) for a in (0.05, 4) for t in (0, 8) for u in (0.05, 4)]
    )
    with jax.enable_x64(False):
        gradients = jax.vmap(jax.grad(lambda row: function(*row)))(corners)
        assert gradients.dtype == np.float32
        assert np.isfinite(gradients).all()


def test_apparent_t1_is_tissue_t1_without_flow():
    tissue = Tissue(t1_tissue=1.3)
    assert float(apparent_t1(0.0, tissue)) == pytest.approx(1.3)
    assert float(apparent_t1(60.0, tissue)) == pytest.approx(1.0 / (1.0 / 1.3 + 0.01 / 0.9))


def test_curve_jits_and_vmaps():
    grid = jnp.linspace(0.1, 3.0, 5)
    mapped = jax.jit(jax.vmap(delta_m, in_axes=(None, 0, None, None)))(60.0, grid, 3.0, 1.8)
    assert np.allclose(mapped, delta_m(60.0, grid, 3.0, 1.8), rtol=1e-12)


def test_slices_read_later_have_longer_delays():
    early = BUXTON.signal((60.0, 1.2), Timing(2.0, 1.5, 0.3), Tissue(), Blood())
    assert float(early) == pytest.approx(float(delta_m(60.0, 1.2, 2.3, 1.5)), rel=1e-12)


@given(st.lists(T, min_size=3, max_size=3), st.lists(TAU, min_size=3, max_size=3))
def test_many_transit_times_at_once_give_the_same_curve(t, tau):
    att = np.linspace(0.05, 4.0, 17)
    cbf = BUXTON["cbf"].typical
    for t1 in (0.1, 1.33):
        expected = CURVE(cbf, att, np.array(t)[:, None], np.array(tau)[:, None], t1)
        actual = BASIS(att, np.array(t)[:, None], np.array(tau)[:, None], t1)
        assert np.allclose(actual, expected, rtol=0.0, atol=1e-12)
