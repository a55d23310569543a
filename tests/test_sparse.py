"""Models with a component that most voxels lack, such as arterial blood, in the voxel-wise fits."""

import dataclasses

import numpy as np
import pytest
import scipy

from asl_pinn.data import Status
from asl_pinn.estimators.base import RunContext, estimate_maps, voxel_status
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.estimators.voxelwise.grid import (
    Normal,
    PopulationPrior,
    grid_posterior,
    make_grid,
)
from asl_pinn.estimators.voxelwise.objective import NllsOptions, with_noise
from asl_pinn.estimators.voxelwise.sparse import select
from asl_pinn.models import Buxton, fix, get, with_bounds
from asl_pinn.models.compose import components, without_sparse
from asl_pinn.problem import make_problem, predict, take
from asl_pinn.simulation.acquire import noise_free, noise_sd, simulate

MODEL = get("buxton+arterial").softened()
COARSE = NllsOptions(f_scale=1e5, grid=6)
# Within these bounds 12 values are as near one another as 32 within those of the model.
NARROW = with_bounds(get("buxton+arterial"), att=(0.3, 1.8), abat=(0.3, 1.8))
TISSUE = with_bounds(Buxton(), att=(0.3, 1.8))
QUICK = {"grid": 12}
TIMES = np.linspace(0.05, 4.0, 6)
CBF, ABV = Normal(np.float64(55.0), np.float64(20.0)), Normal(np.float64(0.0), np.float64(0.02))
POPULATION = PopulationPrior(
    (CBF, ABV),
    (Normal(np.float64(1.3), np.float64(0.4)), Normal(np.float64(0.8), np.float64(0.5))),
)


def fit(data, method="nlls", model=NARROW, **options):
    estimator = get_estimator(method)
    chosen = estimator.options(**QUICK, **options)
    return estimate_maps(data, method, estimator, model, chosen, RunContext())


@pytest.fixture(scope="module")
def brain(phantom):
    """The small brain, with arteries in a corner of it that arrive before the tissue."""
    x, y = np.indices(phantom.mask.shape)[:2]
    abv = np.where(phantom.mask & (x + y < 10), 0.02, 0.0)
    arterial = {"abv": abv, "abat": np.where(abv > 0.0, phantom.att - 0.45, 0.0)}
    return dataclasses.replace(phantom, values={**phantom.values, **arterial})


def problem_of(brain, protocol, model=MODEL, dtype=np.float32):
    data = simulate(brain, protocol, tsnr=5.0, seed=3, model=get("buxton+arterial"))
    sd = noise_sd(noise_free(brain, protocol), brain, 5.0)
    return with_noise(make_problem(data, model, dtype), sd)


@pytest.fixture
def few(brain, protocol):
    """Voxels with and without arteries, in float64."""
    problem = problem_of(brain, protocol, dtype=np.float64)
    return take(problem, np.arange(0, problem.n_voxels, 60))


def columns(problem, which, att, abat):
    """Curves of one voxel per unit of CBF and of aBV, and its data; in noise SDs."""
    one = take(problem, np.array([which]))
    curves = [predict(one, values) for values in ((40.0, att, 0.0, abat), (0.0, att, 1.0, abat))]
    tissue, artery = (np.asarray(curve)[:, 0] / problem.noise_sd for curve in curves)
    return np.stack([tissue / 40.0, artery], axis=1), one.measured[:, 0] / problem.noise_sd


@pytest.mark.usefixtures("float64")
def test_arterial_arrival_is_tried_up_to_that_of_tissue(few):
    grid = make_grid(MODEL, COARSE, np.dtype(np.float64))
    att, abat = (np.asarray(points) for points in grid.points)
    assert len(att) == 21
    assert (abat <= att).all()
    found = grid_posterior(few, COARSE)
    for probability in found.probability:
        assert probability.shape == (6, few.n_voxels)
        np.testing.assert_allclose(probability.sum(axis=0), 1.0, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_amplitudes_inside_their_bounds_are_the_best_there(few):
    found = grid_posterior(few, COARSE, prior_weight=0.0)
    upper = [p.upper for p in MODEL.linear]
    for which in range(few.n_voxels):
        costs = []
        for i, att in enumerate(TIMES):
            for abat in TIMES[: i + 1]:
                curves, measured = columns(few, which, att, abat)
                # In units in which both amplitudes are of order one, as SciPy's tolerances ask.
                scale = np.array([40.0, 0.01])
                best = scipy.optimize.lsq_linear(
                    curves * scale, measured, (0.0, upper / scale), method="bvls", tol=1e-14
                )
                costs.append((best.cost, *(best.x * scale)))
        cost, cbf, abv = min(costs)
        # The signal is not quite linear in CBF, whose curve is taken at its typical value.
        assert found.cost[which] == pytest.approx(cost, rel=1e-5)
        assert 50.0 * found.x[0, which] == pytest.approx(cbf, rel=1e-4)
        assert 0.01 * found.x[2, which] == pytest.approx(abv, rel=1e-4, abs=1e-7)


@pytest.mark.usefixtures("float64")
def test_evidence_and_moments_of_a_positive_amplitude_are_those_of_integrals(few):
    # So noisy that no integrand is narrow.
    few = with_noise(few, 8.0 * few.noise_sd)
    found = grid_posterior(few, COARSE, POPULATION)
    cbf, abv = np.linspace(-100.0, 260.0, 601), np.linspace(0.0, 0.16, 801)
    # Trapezia; the prior of aBV is half normal.
    cbf_prior = scipy.stats.norm.logpdf(cbf, *CBF) + np.log(cbf[1] - cbf[0])
    abv_prior = scipy.stats.halfnorm.logpdf(abv, *ABV) + np.log(abv[1] - abv[0])
    abv_prior[0] -= np.log(2.0)
    pairs = [(i, k) for i in range(6) for k in range(i + 1)]
    times = np.array([[TIMES[i], TIMES[k]] for i, k in pairs])
    times_prior = -0.5 * (((times - [1.3, 0.8]) / [0.4, 0.5]) ** 2).sum(axis=1)
    times_prior -= scipy.special.logsumexp(times_prior)
    for which in range(few.n_voxels):
        marginals = []
        for (att, abat), prior in zip(times, times_prior, strict=True):
            curves, measured = columns(few, which, att, abat)
            squares = curves.T @ curves
            pulls = curves.T @ measured
            log = (
                (cbf_prior + pulls[0] * cbf - 0.5 * squares[0, 0] * cbf**2)[:, None]
                + (abv_prior + pulls[1] * abv - 0.5 * squares[1, 1] * abv**2)
                - squares[0, 1] * np.outer(cbf, abv)
            )
            marginals.append(prior + scipy.special.logsumexp(log, axis=0))
        marginals = np.stack(marginals)
        evidence = scipy.special.logsumexp(marginals)
        joint = np.exp(marginals - evidence)
        expected = evidence - 0.5 * measured @ measured
        assert found.log_evidence[which] == pytest.approx(expected, abs=1e-4)
        mean = joint.sum(axis=0) @ abv
        assert found.mean[1][which] == pytest.approx(mean, rel=1e-3)
        variance = joint.sum(axis=0) @ (abv - mean) ** 2
        assert found.variance[1][which] == pytest.approx(variance, rel=1e-3)
        for axis in range(2):
            probability = np.zeros(6)
            np.add.at(probability, [pair[axis] for pair in pairs], joint.sum(axis=1))
            np.testing.assert_allclose(found.probability[axis][:, which], probability, atol=1e-4)


def test_arteries_are_found_where_they_are(brain, protocol):
    chosen = select(problem_of(brain, protocol, NARROW.softened()), NllsOptions(**QUICK))
    arterial = brain["abv"][brain.mask] > 0.0
    assert chosen.present[arterial].mean() > 0.95
    assert chosen.present[~arterial].mean() < 0.02


def test_data_without_arteries_get_the_fit_without_them(brain, protocol):
    data = simulate(brain, protocol, tsnr=2.0, seed=3)
    found, tissue = fit(data), fit(data, model=TISSUE)
    inside = brain.mask
    for name in ("abv", "abat"):
        assert not found[name].any()
    assert found.noise_sd == pytest.approx(tissue.noise_sd, rel=0.05)
    for name in tissue.model.names:
        scale = tissue.model[name].scale
        np.testing.assert_allclose(found[name][inside], tissue[name][inside], atol=0.01 * scale)
    assert (found.status == tissue.status).all()
    # What the data leave open of the amplitude is told all the same.
    assert 0.0 < np.median(found.sd["abv"][inside]) < 0.005
    assert not found.sd["abat"].any()


@pytest.fixture(scope="module")
def clear(brain, protocol):
    return simulate(brain, protocol, tsnr=8.0, seed=1, model=get("buxton+arterial"))


@pytest.fixture(scope="module")
def maps(clear):
    return fit(clear)


def test_arteries_and_tissue_are_recovered(brain, maps):
    arterial = brain["abv"] > 0.0
    assert (maps["abv"][arterial] > 0.0).all()
    assert (maps["abv"][brain.mask & ~arterial] > 0.0).mean() < 0.05
    for name, most in (("cbf", 0.06), ("att", 0.06), ("abv", 0.15), ("abat", 0.15)):
        error = maps[name][arterial] / brain[name][arterial] - 1.0
        assert np.abs(np.median(error)) < 0.5 * most
        assert np.median(np.abs(error)) < most
        assert (maps.sd[name][arterial] > 0.0).all()
    assert (maps.status[brain.mask] == Status.FITTED).mean() > 0.95


def test_scipy_finds_the_same(clear, maps):
    theirs = fit(clear, "nlls-scipy")
    assert theirs.noise_sd == maps.noise_sd
    for p in maps.model.parameters:
        here = clear.mask & (maps["abv"] > 0.0)
        assert np.median(np.abs(theirs[p.name] - maps[p.name])[here]) < 2e-3 * p.scale
        ratio = theirs.sd[p.name][here] / maps.sd[p.name][here]
        assert np.median(ratio) == pytest.approx(1.0, abs=0.02)


def test_smoothed_images_have_arteries_too(brain, clear, maps):
    found = fit(clear, "nlls-smoothed", smoothing_fwhm=4.0)
    bare = simulate(brain, clear.protocol, tsnr=5.0, seed=3)
    arterial = brain["abv"] > 0.0
    assert (found["abv"][arterial] > 0.0).mean() > 0.9
    # What the blur hides is told.
    sds = [np.median(each.sd["abv"][arterial]) for each in (found, maps)]
    assert sds[0] > sds[1]
    for each in (found, fit(bare, "nlls-smoothed", smoothing_fwhm=4.0)):
        for name, sd in each.sd.items():
            assert np.isfinite(sd).all(), name


def test_what_a_sparse_amplitude_takes_with_it():
    model = get("buxton+t1+arterial")
    assert components(model) == {"abv": ("abat",)}
    assert components(fix(model, abat=0.8, t1_tissue=1.3)) == {"abv": ()}
    assert components(Buxton()) == {}
    assert without_sparse(model).names == ("cbf", "att", "t1_tissue")
    assert without_sparse(fix(model, abat=0.8)).names == ("cbf", "att", "t1_tissue")
    held = without_sparse(fix(model, abat=0.8, t1_tissue=1.3))
    assert held.names == ("cbf", "att")
    assert held.held == {"t1_tissue": 1.3}
    assert isinstance(without_sparse(get("buxton+arterial")), Buxton)
    plain = get("buxton+t1")
    assert without_sparse(plain) is plain


def test_what_is_absent_is_on_no_bound():
    """Absent; present; with its arrival on the lower bound; tissue on a bound without artery."""
    values = np.array(
        [[40.0, 40.0, 40.0, 0.0], [1.2, 1.2, 1.2, 1.2], [0.0, 0.01, 0.01, 0.0], [0.0, 0.6, 0.05, 0]]
    )
    bound, fitted = Status.ON_BOUND, Status.FITTED
    assert voxel_status(values, MODEL).tolist() == [fitted, fitted, bound, bound]
