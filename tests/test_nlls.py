import dataclasses

import jax
import numpy as np
import pytest

from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.voxelwise import nlls, nlls_scipy
from asl_pinn.estimators.voxelwise.grid import grid_posterior, initial_noise
from asl_pinn.estimators.voxelwise.objective import NllsOptions, residuals, with_noise
from asl_pinn.evaluation.cross_validation import without_measurement
from asl_pinn.models import Buxton, get, with_bounds, with_priors
from asl_pinn.numerics.least_squares import soft_l1_cost
from asl_pinn.problem import make_problem
from asl_pinn.simulation.acquire import noise_free, noise_sd, simulate

SOLVERS = ["dogleg", "lm"]
MODELS = ["buxton", "buxton+t1"]
TIGHT = {"xtol": 1e-9, "ftol": 1e-12, "max_steps": 300}


def fit(data, model="buxton", estimator=nlls.NLLS, **options):
    chosen = get(model) if isinstance(model, str) else model
    return estimate_maps(
        data, "nlls", estimator, chosen, estimator.options(**options), RunContext()
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("model", "solver", "tsnr"),
    [
        *(("buxton", solver, tsnr) for solver in SOLVERS for tsnr in (1.5, 0.5)),
        ("buxton+t1", "dogleg", 1.5),
    ],
)
def test_solutions_are_scipys_from_the_same_start(phantom, protocol, model, solver, tsnr):
    data = simulate(phantom, protocol, tsnr=tsnr, seed=7)
    options = NllsOptions(solver=solver, **TIGHT)
    problem = make_problem(data, get(model), np.float64)
    problem = with_noise(problem, initial_noise(problem, options))
    starts = grid_posterior(problem, options).x
    found = nlls.solve_voxels(problem, starts, options)

    chosen = slice(0, problem.n_voxels, 2 if model == "buxton" else 8)
    costs = np.asarray(soft_l1_cost(residuals(found.x, problem), options.f_scale))[chosen]
    theirs = [
        nlls_scipy.solve_voxel(problem, voxel, starts[:, voxel], options)
        for voxel in range(problem.n_voxels)[chosen]
    ]
    expected = np.array([result.cost for result in theirs])
    assert (costs <= expected * (1.0 + 1e-6)).all()

    same_minimum = costs >= expected * (1.0 - 1e-6)
    kinks = np.append(protocol.t, protocol.pld)[:, None]
    at_a_kink = np.abs(found.x[1, chosen] - kinks).min(axis=0) < 1e-2
    determined = same_minimum & ~at_a_kink & (found.x[0, chosen] > 0.1)
    assert determined.sum() > len(costs) / 4
    parameters = np.stack([result.x for result in theirs], axis=-1)
    assert np.abs(found.x[:, chosen] - parameters)[:, determined].max() < 1e-3


@pytest.mark.parametrize(
    ("model", "solver"), [("buxton", "dogleg"), ("buxton", "lm"), ("buxton+t1", "dogleg")]
)
def test_noise_free_maps_are_recovered_to_a_thousandth(phantom, protocol, model, solver):
    maps = fit(noise_free(phantom, protocol), model, solver=solver)
    mask = phantom.mask
    for name, true in phantom.truth(maps.model).items():
        assert maps[name][mask] == pytest.approx(true[mask], rel=1e-3)
    assert (maps.status[mask] == Status.FITTED).all()


def test_an_inferred_t1_is_found_where_the_stated_one_is_wrong(phantom, protocol):
    """Noise-free, so that even a few milliseconds of T1 can be told from its prior."""
    data = noise_free(phantom, protocol)
    told = dataclasses.replace(data, t1_tissue=data.t1_tissue + 0.15)
    mask = phantom.mask
    errors = [
        np.median(np.abs(fit(told, model).cbf[mask] / phantom.cbf[mask] - 1.0)) for model in MODELS
    ]
    assert errors[1] < 0.2 * errors[0]


def test_t1_map_readout_delay_and_averages_are_used(phantom, protocol):
    """Each is simulated, then told to the fit; without it the maps would be off."""
    delay = np.broadcast_to(np.array([0.0, 0.3]), phantom.mask.shape)
    later = dataclasses.replace(protocol, pld=protocol.pld + 0.3)
    delta_m = noise_free(phantom, protocol).delta_m
    delta_m[:, :, 1] = noise_free(phantom, later).delta_m[:, :, 1]
    spoiled = delta_m.copy()
    spoiled[..., 0] *= 1.5
    weights = np.array([1e-12, 1, 1, 1, 1, 1, 1], np.float32)
    told = dataclasses.replace(
        noise_free(phantom, protocol),
        delta_m=spoiled,
        readout_delay=delay.astype(np.float32),
        n_averages=weights,
    )
    mask = phantom.mask

    def worst_error(data):
        return np.abs(fit(data, f_scale=1e3).cbf[mask] / phantom.cbf[mask] - 1.0).max()

    assert worst_error(told) < 0.002
    flat_t1 = dataclasses.replace(told, t1_tissue=np.full(mask.shape, 1.33, np.float32))
    for wrong in (
        flat_t1,
        dataclasses.replace(told, readout_delay=np.zeros(mask.shape, np.float32)),
        dataclasses.replace(told, n_averages=np.ones(7, np.float32)),
    ):
        assert worst_error(wrong) > 0.1


def test_standard_deviations_are_those_of_the_estimates_over_the_noise(phantom, protocol):
    runs = [fit(simulate(phantom, protocol, tsnr=8.0, seed=seed)) for seed in range(24)]
    mask = phantom.mask
    for name in ("cbf", "att"):
        scatter = np.std([run[name][mask] for run in runs], axis=0)
        stated = np.mean([run.sd[name][mask] for run in runs], axis=0)
        assert np.median(stated / scatter) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tsnr", [0.5, 1.5, 10.0])
def test_noise_is_estimated_from_the_data(phantom, protocol, model, tsnr):
    """A parameter under a prior that is knowledge takes no degree of freedom."""
    data = simulate(phantom, protocol, tsnr=tsnr, seed=5)
    expected = noise_sd(noise_free(phantom, protocol), phantom, tsnr)
    assert fit(data, model).noise_sd == pytest.approx(expected, rel=0.1)


def test_voxels_that_end_on_a_bound_or_run_out_of_steps_are_flagged(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    mask = phantom.mask
    low = fit(data, with_bounds(Buxton(), cbf=(0.0, 40.0)))
    assert (low.status[low.cbf == 40.0] == Status.ON_BOUND).all()
    assert (low.status[mask] == Status.ON_BOUND).mean() > 0.3
    assert low.cbf.max() == 40.0
    hurried = fit(data, max_steps=1, xtol=1e-7, ftol=1e-9)
    assert (hurried.status[mask] == Status.NOT_CONVERGED).mean() > 0.5


def test_one_outlier_among_the_delays_does_less_harm_than_to_least_squares(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=10.0, seed=0)
    spoiled = data.delta_m.copy()
    spoiled[..., 2] += 8.0 * noise_sd(noise_free(phantom, protocol), phantom, 10.0)
    data = dataclasses.replace(data, delta_m=spoiled)
    errors = [
        np.median(np.abs(fit(data, f_scale=f_scale).cbf - phantom.cbf)[phantom.mask])
        for f_scale in (0.2, 1e3)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_a_prior_pulls_its_parameter_towards_its_mean(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=0.5, seed=0)
    distances = []
    for sd in (10.0, 1.0, 0.1):
        att = fit(data, with_priors(Buxton(), att=(1.2, sd))).att[phantom.mask]
        distances.append(np.sqrt(np.mean((att - 1.2) ** 2)))
    assert distances[0] > distances[1] > distances[2]


def test_chunks_do_not_change_the_maps(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    whole, parts = fit(data), fit(data, chunk_size=37)
    assert np.allclose(parts.cbf, whole.cbf, rtol=1e-3, atol=0.05)
    assert np.allclose(parts.att, whole.att, rtol=1e-3, atol=5e-3)


TRACED = []


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Watched(Buxton):
    """Tells how often its curve is traced, and so compiled."""

    def signal(self, values, timing, tissue, blood):
        TRACED.append(self)
        return super().signal(values, timing, tissue, blood)


def test_one_compilation_serves_other_volumes_bounds_and_priors(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    options = {"chunk_size": 16, "max_steps": 8}
    fit(data, Watched(), **options)
    traced = len(TRACED)
    assert traced
    smaller = data.mask.copy()
    smaller[:5] = False
    fit(dataclasses.replace(data, mask=smaller), Watched(), **options)
    bounded = with_bounds(Watched(), att=(0.1, 3.0), cbf=(0.0, 150.0))
    fit(data, with_priors(bounded, att=(1.0, 0.5)), f_scale=2.0, **options)
    assert len(TRACED) == traced


def test_work_grows_in_proportion_to_the_voxels(phantom, protocol, monkeypatch):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    options = NllsOptions(chunk_size=16)
    problem = make_problem(data, Buxton(), np.float32)
    problem = with_noise(problem, initial_noise(problem, options))
    starts = grid_posterior(problem, options).x
    inner, n_steps = nlls.map_voxels, []

    def counted(function, part, arrays, constants, **rest):
        n_steps.append(-(-part.n_voxels // options.chunk_size) * constants[2])
        return inner(function, part, arrays, constants, **rest)

    monkeypatch.setattr(nlls, "map_voxels", counted)
    work = []
    for copies in (1, 2, 4):
        n_steps.clear()
        many = dataclasses.replace(
            problem,
            measured=np.tile(problem.measured, copies),
            tissue=problem.tissue._replace(
                m0=np.tile(problem.tissue.m0, copies),
                t1_tissue=np.tile(problem.tissue.t1_tissue, copies),
            ),
            timing=problem.timing._replace(
                readout_delay=np.tile(problem.timing.readout_delay, copies)
            ),
        )
        nlls.solve_voxels(many, np.tile(starts, copies), options)
        work.append(sum(n_steps))
    # One chunk of each round may be filled up, and the rounds have no more steps than this.
    steps_of_rounds = 1.1 * options.max_steps
    for copies, steps in zip((2, 4), work[1:], strict=True):
        assert abs(steps - copies * work[0]) <= copies * steps_of_rounds


@pytest.mark.parametrize("estimator", [nlls.NLLS, nlls_scipy.NLLS_SCIPY])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"f_scale": 0.0}, "--f_scale"),
        ({"xtol": float("nan")}, "--xtol"),
        ({"ftol": -1.0}, "--ftol"),
        ({"grid": 1}, "--grid"),
        ({"max_steps": 0}, "--max_steps"),
        ({"chunk_size": 0}, "--chunk_size"),
    ],
)
def test_options_out_of_order_are_refused(phantom, protocol, estimator, changes, message):
    with pytest.raises(InputError, match=message):
        fit(noise_free(phantom, protocol), estimator=estimator, **changes)


@pytest.mark.parametrize("model", MODELS)
def test_two_delays_are_too_few(phantom, protocol, model):
    data = noise_free(phantom, protocol)
    for _ in range(5):
        data = without_measurement(data, 2)
    with pytest.raises(InputError, match=r"2 delay.* at least 3: .*--fix=att=SECONDS"):
        fit(data, model)


def test_scipy_fits_any_model(phantom, protocol):
    """Of one slice; its curve of Buxton is written apart, those of other models are not."""
    data = simulate(phantom, protocol, tsnr=5.0, seed=2)
    mask = data.mask.copy()
    mask[:, :, 1] = False
    mask[::2] = False
    data = dataclasses.replace(data, mask=mask)
    for model in MODELS:
        theirs, ours = (fit(data, model, found) for found in (nlls_scipy.NLLS_SCIPY, nlls.NLLS))
        assert theirs.noise_sd == pytest.approx(ours.noise_sd, rel=1e-3)
        for p in theirs.model.parameters:
            difference = np.abs(theirs[p.name] - ours[p.name])[mask]
            assert np.median(difference) < 1e-3 * p.scale
            ratio = theirs.sd[p.name][mask] / ours.sd[p.name][mask]
            assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
