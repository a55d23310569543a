import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asl_pinn.acquisition.protocol import label_durations, time_encoded_protocol
from asl_pinn.errors import InputError

SCHEDULES = ["equal", "t1_adjusted", "free_lunch"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(n=st.integers(2, 23), total=st.floats(2.0, 8.0))
def test_durations_are_positive_and_add_up(schedule, n, total):
    durations = label_durations(schedule, n, total)
    assert durations.shape == (n,)
    assert (durations > 0.0).all()
    assert durations.sum() == pytest.approx(total, rel=1e-12)


@given(n=st.integers(2, 23), total=st.floats(2.0, 8.0), t1_blood=st.floats(1.2, 2.0))
def test_t1_adjusted_boluses_have_equal_area(n, total, t1_blood):
    durations = label_durations("t1_adjusted", n, total, t1_blood=t1_blood)
    ends = total - np.cumsum(durations)
    begins = ends + durations
    areas = t1_blood * (np.exp(-ends / t1_blood) - np.exp(-begins / t1_blood))
    assert areas == pytest.approx(np.full(n, areas[0]), rel=1e-9)
    assert (np.diff(durations) < 0.0).all()


def test_free_lunch_has_one_long_first_bolus():
    durations = label_durations("free_lunch", 7, 4.0, first=1.6)
    assert durations == pytest.approx([1.6] + [0.4] * 6)


@given(st.lists(st.floats(0.05, 2.0), min_size=1, max_size=23), st.floats(0.0, 2.0))
def test_a_delay_is_all_that_comes_after_the_bolus(durations, final_delay):
    protocol = time_encoded_protocol(durations, final_delay)
    for j, pld in enumerate(protocol.pld):
        assert pld == pytest.approx(sum(durations[j + 1 :]) + final_delay)
    assert protocol.t == pytest.approx(protocol.pld + durations)
    assert protocol.n_delays == len(durations)


def test_in_vivo_timing_follows_from_its_durations():
    protocol = time_encoded_protocol([1.8, 0.8, 0.4, 0.15, 0.15, 0.1, 0.1], 0.17)
    assert protocol.pld == pytest.approx([1.87, 1.07, 0.67, 0.52, 0.37, 0.27, 0.17])


def test_protocol_is_a_pytree(protocol):
    doubled = jax.tree.map(lambda leaf: 2 * leaf, protocol)
    assert doubled.t == pytest.approx(2.0 * protocol.t)
    assert doubled.t1_blood == 3.3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: label_durations("equal", 7, 0.0), "labelling time"),
        (lambda: label_durations("equal", 0), "labelling time"),
        (lambda: label_durations("free_lunch", 7, 1.8), "must be shorter"),
        (lambda: label_durations("free_lunch", 1, 4.0), "at least 2"),
        (lambda: label_durations("golden", 7), "unknown schedule"),
        (lambda: time_encoded_protocol([0.5, 0.0]), "must be positive"),
        (lambda: time_encoded_protocol([0.5, np.nan]), "must be positive"),
        (lambda: time_encoded_protocol([0.5], -0.1), "must not be negative"),
        (lambda: time_encoded_protocol([0.5], np.nan), "must not be negative"),
        (lambda: time_encoded_protocol([0.5], 100.0), "nor above 30 s"),
        (lambda: time_encoded_protocol([500.0], 0.1), "30 at most"),
        (lambda: label_durations("t1_adjusted", 7, 4000.0), "30 s at most"),
    ],
)
def test_impossible_schedules_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
