import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator, make_interp_spline

from asl_pinn.acquisition.bolus import (
    fit_bolus,
    label_duration_at,
    range_excess,
    require_within_range,
)
from asl_pinn.acquisition.protocol import label_durations, time_encoded_protocol
from asl_pinn.errors import InputError

pytestmark = pytest.mark.usefixtures("float64")

FREE_LUNCH_T = [0.27, 0.37, 0.52, 0.67, 1.07, 1.87, 3.67]
FREE_LUNCH_TAU = [0.1, 0.1, 0.15, 0.15, 0.4, 0.8, 1.8]
SCIPY = {
    "spline5": lambda t, tau: make_interp_spline(t, tau, k=5),
    "monotone": PchipInterpolator,
}

points = st.sampled_from([6, 7, 23]).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.05, 1.5), min_size=n, max_size=n),
        st.lists(st.floats(0.05, 4.0), min_size=n, max_size=n),
    )
)


@pytest.mark.parametrize("kind", SCIPY)
@given(points)
def test_values_and_slopes_are_those_of_scipy(kind, points):
    t, tau = np.cumsum(points[0]), np.array(points[1])
    expected = SCIPY[kind](t, tau)
    query = np.concatenate([np.linspace(t[0], t[-1], 97), t])
    value, slope = label_duration_at(fit_bolus(t, tau, kind), query)
    size = np.abs(expected(query)).max()
    steep = np.abs(expected.derivative()(query)).max() + 1.0
    assert np.abs(value - expected(query)).max() <= 1e-10 * max(1.0, size)
    assert np.abs(slope - expected.derivative()(query)).max() <= 1e-10 * steep


@pytest.mark.parametrize("kind", SCIPY)
def test_slope_is_the_derivative_of_the_value(kind, protocol):
    spline = fit_bolus(protocol.t, protocol.label_duration, kind)
    query = jnp.linspace(0.4, 4.0, 53)
    _, slope = label_duration_at(spline, query)
    automatic = jax.vmap(jax.grad(lambda t: label_duration_at(spline, t)[0]))(query)
    assert np.allclose(slope, automatic, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", SCIPY)
def test_order_of_the_delays_does_not_matter(kind, protocol):
    query = np.linspace(0.4, 4.0, 11)
    forward = fit_bolus(protocol.t, protocol.label_duration, kind)
    backward = fit_bolus(protocol.t[::-1], protocol.label_duration[::-1], kind)
    assert np.array_equal(label_duration_at(forward, query), label_duration_at(backward, query))


def test_spline5_is_refused_for_the_free_lunch_schedule_and_monotone_is_not():
    spline = fit_bolus(FREE_LUNCH_T, FREE_LUNCH_TAU, "spline5")
    assert range_excess(spline, FREE_LUNCH_T, FREE_LUNCH_TAU) > 10.0
    with pytest.raises(InputError, match=r"leaves the range .* by 12\.43 s"):
        require_within_range(spline, FREE_LUNCH_T, FREE_LUNCH_TAU)
    monotone = fit_bolus(FREE_LUNCH_T, FREE_LUNCH_TAU, "monotone")
    require_within_range(monotone, FREE_LUNCH_T, FREE_LUNCH_TAU)
    assert range_excess(monotone, FREE_LUNCH_T, FREE_LUNCH_TAU) < 1e-12


@pytest.mark.parametrize("schedule", ["t1_adjusted", "equal"])
def test_spline5_stays_in_range_for_smooth_schedules(schedule):
    protocol = time_encoded_protocol(label_durations(schedule, 7))
    spline = fit_bolus(protocol.t, protocol.label_duration, "spline5")
    require_within_range(spline, protocol.t, protocol.label_duration)


@pytest.mark.parametrize(
    ("kind", "n", "message"),
    [
        ("spline5", 3, "at least 6 delays"),
        ("monotone", 1, "at least 2 delays"),
        ("cubic", 7, "unknown bolus kind 'cubic'"),
    ],
)
def test_too_few_delays_and_unknown_kinds_are_refused(kind, n, message):
    with pytest.raises(InputError, match=message):
        fit_bolus(np.arange(1.0, n + 1.0), np.ones(n), kind)


@pytest.mark.parametrize("kind", SCIPY)
def test_equal_times_are_refused(kind):
    with pytest.raises(InputError, match="at times that differ"):
        fit_bolus([1.0, 2.0, 2.0, 3.0, 4.0, 5.0], np.linspace(0.5, 1.0, 6), kind)


def test_monotone_of_two_points_is_a_line():
    value, slope = label_duration_at(fit_bolus([1.0, 3.0], [0.5, 1.5], "monotone"), 2.0)
    assert (float(value), float(slope)) == (1.0, 0.5)


@pytest.mark.parametrize("kind", SCIPY)
def test_float32_is_accurate_to_a_ten_thousandth(kind, protocol):
    query = np.linspace(0.34, 4.0, 29)
    exact = label_duration_at(fit_bolus(protocol.t, protocol.label_duration, kind), query)
    with jax.enable_x64(False):
        t, tau = np.float32(protocol.t), np.float32(protocol.label_duration)
        single = label_duration_at(fit_bolus(t, tau, kind), np.float32(query))
    assert single[0].dtype == np.float32
    assert np.allclose(single[0], exact[0], atol=1e-4)
    assert np.allclose(single[1], exact[1], atol=1e-3)
