import dataclasses

import jax
import numpy as np
import pytest

from asl_pinn import chunked
from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.estimators import nlls, nlls_scipy, voxelwise
from asl_pinn.estimators.survey import rough_noise, survey
from asl_pinn.estimators.voxelwise import NllsOptions
from asl_pinn.execution import Execution
from asl_pinn.least_squares import soft_l1_cost
from asl_pinn.simulate import noise_free, noise_sd, simulate
from asl_pinn.voxels import gather

SOLVERS = ["dogleg", "lm"]
TIGHT = {"xtol": 1e-9, "ftol": 1e-12, "max_steps": 300}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tsnr", [1.5, 0.5])
@pytest.mark.parametrize("solver", SOLVERS)
def test_solutions_are_scipys_from_the_same_start(phantom, protocol, solver, tsnr):
    data = simulate(phantom, protocol, tsnr=tsnr, seed=7)
    options = NllsOptions(solver=solver, **TIGHT)
    voxels = gather(data, np.float64)
    sd = rough_noise(voxels, data, options)
    starts = survey(voxels, sd, data, options).x
    found = nlls.solve_voxels(voxels, starts, sd, data, options)

    def cost(x, voxel):
        residual = voxelwise.residuals(x, voxel, sd, protocol, data.n_averages, options)
        return soft_l1_cost(residual, options.loss_scale)

    chosen = slice(0, len(starts), 2)
    costs = np.asarray(jax.vmap(cost)(found.x, voxels))[chosen]
    theirs = [
        nlls_scipy.solve_voxel(*row, protocol, data.n_averages, options)
        for row in zip(
            voxels.delta_m[chosen],
            starts[chosen],
            np.full(len(costs), sd),
            voxels.m0[chosen],
            voxels.t1_tissue[chosen],
            voxels.readout_delay[chosen],
            strict=True,
        )
    ]
    expected = np.array([result.cost for result in theirs])
    assert (costs <= expected * (1.0 + 1e-6)).all()

    same_minimum = costs >= expected * (1.0 - 1e-6)
    at_a_kink = np.abs(found.x[chosen, 1:] - np.append(protocol.t, protocol.pld)).min(axis=1) < 1e-2
    determined = same_minimum & ~at_a_kink & (found.x[chosen, 0] > 0.1)
    assert determined.sum() > len(costs) / 4
    parameters = np.stack([result.x for result in theirs])
    assert np.abs(found.x[chosen] - parameters)[determined].max() < 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_noise_free_maps_are_recovered_to_a_thousandth(phantom, protocol, solver):
    maps = nlls.fit(noise_free(phantom, protocol), NllsOptions(solver=solver), Execution())
    mask = phantom.mask
    assert maps.cbf[mask] == pytest.approx(phantom.cbf[mask], rel=1e-3)
    assert maps.att[mask] == pytest.approx(phantom.att[mask], rel=1e-3)
    assert (maps.status[mask] == Status.FITTED).all()


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
        cbf = nlls.fit(data, NllsOptions(loss_scale=1e3), Execution()).cbf[mask]
        return np.abs(cbf / phantom.cbf[mask] - 1.0).max()

    assert worst_error(told) < 0.002
    flat_t1 = dataclasses.replace(told, t1_tissue=np.full(mask.shape, 1.33, np.float32))
    for wrong in (
        flat_t1,
        dataclasses.replace(told, readout_delay=np.zeros(mask.shape, np.float32)),
        dataclasses.replace(told, n_averages=np.ones(7, np.float32)),
    ):
        assert worst_error(wrong) > 0.1


def test_standard_deviations_are_the_spread_of_the_estimates(phantom, protocol):
    runs = [
        nlls.fit(simulate(phantom, protocol, tsnr=8.0, seed=seed), NllsOptions(), Execution())
        for seed in range(24)
    ]
    mask = phantom.mask
    for name in ("cbf", "att"):
        spread = np.std([getattr(run, name)[mask] for run in runs], axis=0)
        stated = np.mean([getattr(run, f"{name}_sd")[mask] for run in runs], axis=0)
        assert np.median(stated / spread) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("tsnr", [0.5, 1.5, 10.0])
def test_noise_is_estimated_from_the_data(phantom, protocol, tsnr):
    data = simulate(phantom, protocol, tsnr=tsnr, seed=5)
    expected = noise_sd(noise_free(phantom, protocol), phantom, tsnr)
    found = nlls.fit(data, NllsOptions(), Execution()).noise_sd
    assert found == pytest.approx(expected, rel=0.1)


def test_voxels_that_end_on_a_bound_or_run_out_of_steps_are_flagged(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    mask = phantom.mask
    low = nlls.fit(data, NllsOptions(cbf_max=40.0), Execution())
    assert (low.status[low.cbf == 40.0] == Status.ON_BOUND).all()
    assert (low.status[mask] == Status.ON_BOUND).mean() > 0.3
    assert low.cbf.max() == 40.0
    hurried = nlls.fit(data, NllsOptions(max_steps=1, xtol=1e-7, ftol=1e-9), Execution())
    assert (hurried.status[mask] == Status.NOT_CONVERGED).mean() > 0.5


def test_one_outlier_among_the_delays_does_less_harm_than_to_least_squares(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=10.0, seed=0)
    spoiled = data.delta_m.copy()
    spoiled[..., 2] += 8.0 * noise_sd(noise_free(phantom, protocol), phantom, 10.0)
    data = dataclasses.replace(data, delta_m=spoiled)
    errors = [
        np.median(np.abs(nlls.fit(data, options, Execution()).cbf - phantom.cbf)[phantom.mask])
        for options in (NllsOptions(loss_scale=0.2), NllsOptions(loss_scale=1e3))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_penalty_pulls_att_towards_its_guess(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=0.5, seed=0)
    spreads = []
    for guess_sd in (10.0, 1.0, 0.1):
        options = NllsOptions(att_guess=1.2, att_guess_sd=guess_sd)
        att = nlls.fit(data, options, Execution()).att[phantom.mask]
        spreads.append(np.sqrt(np.mean((att - 1.2) ** 2)))
    assert spreads[0] > spreads[1] > spreads[2]


def test_chunks_do_not_change_the_maps(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    whole = nlls.fit(data, NllsOptions(), Execution())
    parts = nlls.fit(data, NllsOptions(chunk_size=37), Execution())
    assert np.allclose(parts.cbf, whole.cbf, rtol=1e-3, atol=0.05)
    assert np.allclose(parts.att, whole.att, rtol=1e-3, atol=5e-3)


def test_one_compilation_serves_volumes_of_different_size(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    options = NllsOptions(chunk_size=16, max_steps=8)
    nlls.fit(data, options, Execution())
    compiled = chunked._tiles._cache_size()
    smaller = data.mask.copy()
    smaller[:5] = False
    nlls.fit(dataclasses.replace(data, mask=smaller), options, Execution())
    assert chunked._tiles._cache_size() == compiled


def test_work_grows_in_proportion_to_the_voxels(phantom, protocol, monkeypatch):
    data = simulate(phantom, protocol, tsnr=1.5, seed=0)
    options = NllsOptions(chunk_size=16)
    voxels = gather(data, np.float32)
    sd = rough_noise(voxels, data, options)
    starts = survey(voxels, sd, data, options).x
    inner, n_steps = nlls.map_chunked, []

    def counted(function, arrays, size, constants):
        n_chunks = -(-len(arrays[1]) // size)
        n_steps.append(n_chunks * constants[-2])
        return inner(function, arrays, size, constants)

    monkeypatch.setattr(nlls, "map_chunked", counted)
    work = []
    for copies in (1, 2, 4):
        n_steps.clear()
        many, begin = jax.tree.map(lambda x, n=copies: np.concatenate([x] * n), (voxels, starts))
        nlls.solve_voxels(many, begin, sd, data, options)
        work.append(sum(n_steps))
    one_chunk_of_each_round = options.max_steps + nlls._POLISH
    for copies, steps in zip((2, 4), work[1:], strict=True):
        assert abs(steps - copies * work[0]) <= copies * one_chunk_of_each_round


@pytest.mark.parametrize("method", [nlls.fit, nlls_scipy.fit])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"att_min": 2.0, "att_max": 1.0}, "--att_min=2.0"),
        ({"att_min": 0.0}, "--att_min=0.0"),
        ({"cbf_max": 0.0}, "--cbf_max"),
        ({"att_guess_sd": float("nan")}, "--att_guess_sd"),
        ({"att_grid": 1}, "--att_grid"),
        ({"max_steps": 0}, "--max_steps"),
        ({"chunk_size": 0}, "--chunk_size"),
    ],
)
def test_options_out_of_order_are_refused(phantom, protocol, method, changes, message):
    with pytest.raises(InputError, match=message):
        method(noise_free(phantom, protocol), NllsOptions(**changes), Execution())


def test_two_delays_are_too_few(phantom, protocol):
    data = noise_free(phantom, protocol)
    short = dataclasses.replace(
        data,
        delta_m=data.delta_m[..., :2],
        n_averages=data.n_averages[:2],
        protocol=dataclasses.replace(
            protocol, label_duration=protocol.label_duration[:2], pld=protocol.pld[:2]
        ),
    )
    with pytest.raises(InputError, match="2 delay"):
        nlls.fit(short, NllsOptions(), Execution())
