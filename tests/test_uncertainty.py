import dataclasses

import numpy as np
import pytest

from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.estimators.voxelwise.nlls import NllsOptions
from asl_pinn.estimators.voxelwise.objective import with_noise
from asl_pinn.estimators.voxelwise.uncertainty import population_prior
from asl_pinn.evaluation.metrics import coverage
from asl_pinn.models import Buxton, Prior, get
from asl_pinn.models.base import Parameter
from asl_pinn.problem import make_problem
from asl_pinn.simulation.acquire import noise_free, noise_sd, simulate


def fit(data, model="buxton", method="nlls", **options):
    estimator = get_estimator(method)
    chosen = get(model) if isinstance(model, str) else model
    return estimate_maps(
        data, method, estimator, chosen, estimator.options(**options), RunContext()
    )


def covered(maps, phantom, name):
    return coverage(maps[name], phantom.truth(maps.model)[name], maps.sd[name], phantom.mask)


@pytest.mark.parametrize("tsnr", [1.0, 1.5])
def test_intervals_cover_the_truth_where_the_curvature_does_not(phantom, protocol, tsnr):
    data = simulate(phantom, protocol, tsnr=tsnr, seed=3)
    by_population, by_curvature = fit(data), fit(data, sd="curvature")
    assert by_population.att.tobytes() == by_curvature.att.tobytes()
    for name in ("cbf", "att"):
        assert 0.92 <= covered(by_population, phantom, name) <= 0.99
    assert covered(by_curvature, phantom, "att") < 0.9


@pytest.mark.parametrize("model", ["buxton", "buxton+t1"])
def test_where_the_posterior_is_narrow_the_curvature_tells(phantom, protocol, model):
    data = simulate(phantom, protocol, tsnr=100.0, seed=3)
    maps = [fit(data, model, sd=sd) for sd in ("population", "curvature")]
    for name in maps[0].sd:
        assert np.allclose(maps[0].sd[name], maps[1].sd[name], rtol=1e-4)


@pytest.mark.parametrize("tsnr", [1.5, 20.0])
def test_an_uncertain_t1_widens_the_other_intervals(phantom, protocol, tsnr):
    """T1 of each voxel is drawn from its prior: all intervals cover, and only with it inferred."""
    drawn = 0.1 * np.random.default_rng(0).standard_normal(phantom.mask.shape)
    truth = dataclasses.replace(phantom, t1_tissue=phantom.t1_tissue + drawn)
    data = simulate(truth, protocol, tsnr=tsnr, seed=3)
    told = dataclasses.replace(data, t1_tissue=phantom.t1_tissue.astype(np.float32))
    inferred, stated = fit(told, "buxton+t1"), fit(told)
    for name in inferred.values:
        assert 0.92 <= covered(inferred, truth, name) <= 0.995
    mask = phantom.mask
    assert np.median(inferred.sd["cbf"][mask] / stated.sd["cbf"][mask]) > 1.0
    if tsnr > 10.0:
        assert covered(stated, truth, "cbf") < 0.9


def test_distributions_of_the_parameters_over_the_voxels_are_found(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=3)
    sd = noise_sd(noise_free(phantom, protocol), phantom, 5.0)
    problem = with_noise(make_problem(data, Buxton(), np.float32), sd)
    found = population_prior(problem, NllsOptions())
    for name, normals in (("cbf", found.linear), ("att", found.kinked)):
        true = phantom[name][phantom.mask]
        assert np.allclose(normals[0], (true.mean(), true.std()), rtol=0.12)


def with_prior(name: str, prior: Prior) -> Buxton:
    def changed(p: Parameter) -> Parameter:
        return dataclasses.replace(p, prior=prior) if p.name == name else p

    return Buxton(tuple(map(changed, Buxton().parameters)))


def test_a_prior_that_is_knowledge_is_not_learned_anew(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=3)
    problem = with_noise(make_problem(data, with_prior("att", Prior(1.0, 0.3)), np.float32), 1.0)
    [(mean, sd)] = population_prior(problem, NllsOptions()).kinked
    assert (float(mean), float(sd)) == pytest.approx((1.0, 0.3), rel=1e-5)


def test_no_distribution_is_needed_where_no_parameter_is_on_a_grid(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=3)
    problem = make_problem(data, Buxton(), np.float32)
    assert population_prior(with_noise(problem, 1.0), NllsOptions(sd="curvature")) is None


def test_a_blur_counts_in_the_standard_deviations(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=3)
    maps = fit(data, method="nlls-smoothed", smoothing_fwhm=15.0)
    error = (maps.cbf - phantom.cbf)[phantom.mask]
    stated = np.sqrt(np.mean(maps.sd["cbf"][phantom.mask] ** 2))
    assert stated == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.3)
