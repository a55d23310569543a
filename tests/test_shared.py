"""Parameters that all voxels of a brain share."""

import dataclasses
import logging

import numpy as np
import pytest

from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import Estimate, RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.estimators.shared import Shared, put_back, settle_shared
from asl_pinn.models import fix, get
from asl_pinn.problem import make_problem
from asl_pinn.simulation.acquire import simulate

MODEL = "buxton+dispersion-gaussian"


def dispersed(phantom, sd: float):
    values = {**phantom.values, "dispersion_sd": np.where(phantom.mask, sd, 0.0)}
    return dataclasses.replace(phantom, values=values)


def data(phantom, protocol, sd, tsnr=10.0):
    return simulate(dispersed(phantom, sd), protocol, tsnr=tsnr, seed=1, model=get(MODEL))


@pytest.fixture(scope="module")
def maps(phantom, protocol):
    nlls, model = get_estimator("nlls"), get(MODEL)
    series = data(phantom, protocol, 0.35)
    return estimate_maps(series, "nlls", nlls, model, nlls.options(), RunContext())


@pytest.mark.parametrize("sd", [0.05, 0.35])
def test_one_value_is_found_for_all_voxels(phantom, protocol, sd):
    problem = make_problem(data(phantom, protocol, sd), get(MODEL), "float32")
    found = settle_shared(problem)
    assert 0.0 < found.sds["dispersion_sd"] < 0.05
    assert abs(found.values["dispersion_sd"] - sd) < 3.0 * found.sds["dispersion_sd"] + 0.01
    assert not found.notes


def test_maps_have_it_as_constants_with_its_sd(maps, phantom):
    assert tuple(maps.values) == tuple(maps.sd) == get(MODEL).names
    for volume in (maps.dispersion_sd, maps.sd["dispersion_sd"]):
        inside = volume[phantom.mask]
        assert np.ptp(inside) == 0.0
        assert inside[0] > 0.0
        assert (volume[~phantom.mask] == 0.0).all()
    assert np.mean(maps.status[phantom.mask] == Status.FITTED) > 0.95


def test_the_other_maps_are_those_of_the_model_that_holds_it(maps, phantom, protocol):
    held = fix(get(MODEL), dispersion_sd=float(maps.dispersion_sd.max()))
    nlls = get_estimator("nlls")
    series = data(phantom, protocol, 0.35)
    again = estimate_maps(series, "nlls", nlls, held, nlls.options(), RunContext())
    assert again.model.names == ("cbf", "att")
    for name in again.model.names:
        np.testing.assert_allclose(again[name], maps[name], rtol=1e-3, atol=1e-3)


def test_draws_of_it_are_the_same_in_all_voxels():
    settled = Shared({"dispersion_sd": 0.2}, {"dispersion_sd": 0.05})
    rows = np.random.default_rng(0).normal(size=(200, 2, 7))
    found = put_back(Estimate(rows[0], np.ones(7), samples=rows), get(MODEL), settled, seed=3)
    assert found.values.shape == (3, 7)
    assert found.sd is None
    where = get(MODEL).names.index("dispersion_sd")
    draws = found.samples[:, where]
    assert (np.ptp(draws, axis=1) == 0.0).all()
    assert draws[:, 0].std() == pytest.approx(0.05, rel=0.2)
    np.testing.assert_array_equal(np.delete(found.samples, where, axis=1), rows)


def test_what_the_data_do_not_tell_stays_at_its_prior_and_is_said(phantom, protocol, caplog):
    """T1 of blood scales with CBF, voxel by voxel, whatever CBF and ATT have to do with another."""
    problem = make_problem(
        simulate(phantom, protocol, tsnr=5.0, seed=0), get("buxton+t1_blood"), "f4"
    )
    with caplog.at_level(logging.INFO, "asl_pinn"):
        found = settle_shared(problem)
    assert found.values["t1_blood"] == pytest.approx(1.65)
    assert found.sds["t1_blood"] == pytest.approx(0.1)
    assert "do not tell T1b" in found.notes[0]
    assert len(caplog.records) == 1


def test_a_model_that_shares_nothing_is_left_alone(phantom, protocol):
    problem = make_problem(simulate(phantom, protocol, tsnr=5.0, seed=0), get("buxton"), "float32")
    assert settle_shared(problem).values == {}


def test_too_few_delays_are_refused_by_the_method_as_ever(phantom, protocol):
    short = dataclasses.replace(
        protocol, label_duration=protocol.label_duration[:1], pld=protocol.pld[:1]
    )
    nlls = get_estimator("nlls")
    series = data(phantom, short, 0.2)
    with pytest.raises(InputError, match="1 delay"):
        estimate_maps(series, "nlls", nlls, get(MODEL), nlls.options(), RunContext())
