"""Warnings where a model does not describe the data, and silence where it does."""

import dataclasses

import numpy as np
import pytest

from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.evaluation.predictive_check import predictive_check
from asl_pinn.models import get
from asl_pinn.simulation.acquire import simulate

OPTIONS = {"nlls": {}, "spatial-map": {"samples": 8, "rounds": 12}}


def check(phantom, protocol, method, tsnr, model="buxton", **values):
    known = {name: np.where(phantom.mask, volume, 0.0) for name, volume in {**values}.items()}
    truth = dataclasses.replace(phantom, values={**phantom.values, **known})
    data = simulate(truth, protocol, tsnr=tsnr, seed=4, model=get(model))
    estimator = get_estimator(method)
    options = estimator.options(**OPTIONS[method])
    maps = estimate_maps(data, method, estimator, get("buxton"), options, RunContext())
    return predictive_check(data, maps)


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("tsnr", [0.5, 1.5, 5.0])
def test_data_that_the_model_describes_raise_no_alarm(phantom, protocol, method, tsnr):
    found = check(phantom, protocol, method, tsnr)
    assert found.warning == ""
    assert found.reduced_chi_square == pytest.approx(1.0, abs=0.15)
    assert len(found.mean_misfit) == protocol.n_delays


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("tsnr", [1.5, 5.0])
def test_arteries_in_some_voxels_are_told(phantom, protocol, method, tsnr):
    abv = np.zeros(phantom.mask.shape)
    abv[4:7] = 0.015
    abat = np.maximum(0.6 * phantom.att, 0.1)
    found = check(phantom, protocol, method, tsnr, "buxton+arterial", abv=abv, abat=abat)
    assert "does not describe the data" in found.warning
    assert found.beyond > 0.05


def test_a_misfit_of_all_voxels_is_told_with_its_delay(phantom, protocol):
    found = check(
        phantom, protocol, "spatial-map", 5.0, "buxton+dispersion-gaussian", dispersion_sd=0.35
    )
    assert "noise SDs" in found.warning
    worst = np.argmax(np.abs(found.mean_misfit))
    assert f"t = {protocol.t[worst]:.3g} s" in found.warning


def test_without_a_known_noise_there_is_no_check(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=4)
    nlls = get_estimator("nlls")
    maps = estimate_maps(data, "nlls", nlls, get("buxton"), nlls.options(), RunContext())
    assert predictive_check(data, dataclasses.replace(maps, noise_sd=None)) is None
