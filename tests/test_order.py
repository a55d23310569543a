"""The order of a map's smoothness that the data choose."""

import dataclasses

import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.estimators.base import RunContext
from asl_pinn.estimators.options import ByParameter
from asl_pinn.estimators.spatial import order
from asl_pinn.estimators.spatial.fit import fit
from asl_pinn.estimators.spatial.options import SpatialOptions
from asl_pinn.estimators.spatial.order import best_of, candidates, prediction_error, some_slices
from asl_pinn.problem import make_problem
from asl_pinn.simulation.acquire import simulate


@pytest.fixture
def problem(phantom, protocol, monkeypatch):
    monkeypatch.setattr(order, "_FEWEST", 100)
    return make_problem(
        simulate(phantom, protocol, tsnr=5.0, seed=0), models.get("buxton"), "float32"
    )


def orders(options):
    return options.order(("cbf", "att"))


def test_what_is_open_is_tried_and_what_is_stated_kept(problem):
    assert [orders(each) for each in candidates(SpatialOptions(), problem)] == [(1, 2), (1, 1)]
    stated = SpatialOptions(order=ByParameter.of(1, cbf=2))
    assert [orders(each) for each in candidates(stated, problem)] == [(2, 1)]


def test_few_voxels_do_not_choose(problem, monkeypatch):
    monkeypatch.setattr(order, "_FEWEST", problem.n_voxels + 1)
    assert [orders(each) for each in candidates(SpatialOptions(), problem)] == [(1, 2)]


def test_the_least_expected_error_is_chosen_and_one_candidate_not_asked(problem):
    smooth, rough = candidates(SpatialOptions(), problem)
    errors = {smooth: 2.0, rough: 1.0}
    assert best_of((smooth, rough), errors.__getitem__) == rough
    assert best_of((smooth,), {}.__getitem__) == smooth


def test_what_a_fit_follows_is_paid_for_twice():
    """Of n unit-noise data, the mean leaves n - 1 squares and misses n new ones by n + 1."""
    rng = np.random.default_rng(0)
    data, new = rng.standard_normal((2, 20000, 5))
    mean = data.mean(axis=1, keepdims=True)
    cost = 0.5 * np.mean(np.sum((data - mean) ** 2, axis=1))
    missed = np.mean(np.sum((new - mean) ** 2, axis=1))
    assert prediction_error(cost, (1.0,)) == pytest.approx(missed, rel=0.02)


def test_slices_are_taken_about_the_fullest_one(problem, monkeypatch):
    assert some_slices(problem) is problem
    monkeypatch.setattr(order, "_SAMPLE", 100)
    one = some_slices(problem)
    where = problem.geometry.where
    slices = np.flatnonzero(one.geometry.where.any(axis=(0, 1)))
    assert slices.tolist() == [int(np.argmax(where.sum(axis=(0, 1))))]
    assert one.n_voxels == where[:, :, slices].sum()
    here = one.geometry.where[where]
    assert np.array_equal(one.measured, np.asarray(problem.measured)[:, here])


@pytest.mark.parametrize(("stepped", "expected"), [(False, 2), (True, 1)])
def test_times_that_step_ask_for_differences(phantom, protocol, monkeypatch, stepped, expected):
    monkeypatch.setattr(order, "_FEWEST", 100)
    x = np.indices(phantom.mask.shape)[0]
    att = np.where(x // 3 % 2, 1.5, 1.0) if stepped else phantom.att
    values = {**phantom.values, "att": np.where(phantom.mask, att, 0.0)}
    truth = dataclasses.replace(phantom, values=values)
    problem = make_problem(
        simulate(truth, protocol, tsnr=10.0, seed=0), models.get("buxton"), "float32"
    )
    found = fit(problem, SpatialOptions(), RunContext())
    assert found.history["att_order"][-1] == expected
