import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.acquisition.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.options import ByParameter
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.estimators.spatial import SPATIAL_MAP, SpatialOptions
from asl_pinn.estimators.spatial.fields import make_field_problem
from asl_pinn.evaluation.metrics import coverage, scores
from asl_pinn.models import KineticModel, Parameter
from asl_pinn.problem import make_problem
from asl_pinn.simulation.acquire import simulate
from asl_pinn.simulation.artefacts import with_noisy_delay, with_outliers, with_wrong_t1
from asl_pinn.simulation.phantoms import add_lesions, mni_phantom, select_slices

PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 7, 4.0), 0.1)
QUICK = SpatialOptions(rounds=15)
SMALL = SpatialOptions(rounds=12, samples=8)
BUXTON = models.get("buxton")


def fit(data, options=QUICK, model=BUXTON):
    return estimate_maps(data, "spatial-map", SPATIAL_MAP, model, options, RunContext())


@pytest.fixture(scope="module")
def brain():
    return select_slices(mni_phantom(resolution=4), "22")


@pytest.fixture(scope="module")
def noisy(brain):
    return simulate(brain, PROTOCOL, tsnr=1.0, seed=100)


@pytest.fixture(scope="module")
def maps(noisy):
    return fit(noisy)


@pytest.fixture(scope="module")
def small(phantom, protocol):
    return simulate(phantom, protocol, tsnr=5.0, seed=0)


def nrmse(maps, brain):
    return [scores(maps[name], brain[name], brain.mask)["nrmse"] for name in maps.model.names]


def test_neighbours_make_both_maps_far_better_than_voxels_by_themselves(maps, noisy, brain):
    nlls = get_estimator("nlls")
    context = RunContext()
    alone = nrmse(estimate_maps(noisy, "nlls", nlls, BUXTON, nlls.options(), context), brain)
    together = nrmse(maps, brain)
    assert together[0] < 0.3 * alone[0]
    assert together[1] < 0.4 * alone[1]


def test_noise_and_precisions_are_found_from_the_data_alone(maps, noisy, brain):
    truth = noisy.delta_m - simulate(brain, PROTOCOL, tsnr=np.inf, seed=100).delta_m
    assert np.isclose(maps.noise_sd, truth[brain.mask].std(), rtol=0.05)


def test_intervals_cover_the_truth_and_not_much_more(maps, brain):
    for name, sd in maps.sd.items():
        assert 0.8 < coverage(maps[name], brain[name], sd, brain.mask) <= 1.0
        errors = (maps[name] - brain[name])[brain.mask] / sd[brain.mask]
        assert 0.5 < np.sqrt(np.mean(errors**2)) < 1.5


def test_a_large_focus_survives(brain):
    volume, where = add_lesions(mni_phantom(resolution=4), 22)
    ill = select_slices(volume, "22")
    focus = where["high 12 mm"][:, :, [22]]
    found = fit(simulate(ill, PROTOCOL, tsnr=5.0, seed=100))
    contrast = ill.cbf[focus].mean() - brain.cbf[focus].mean()
    assert found.cbf[focus].mean() - brain.cbf[focus].mean() > 0.8 * contrast


@pytest.mark.parametrize("spoil", [with_outliers, with_noisy_delay])
def test_outliers_and_a_noisy_delay_are_found_out(maps, noisy, brain, spoil):
    what = 0.03 if spoil is with_outliers else 2
    found = fit(spoil(noisy, what, maps.noise_sd, 7))
    for spoiled, clean in zip(nrmse(found, brain), nrmse(maps, brain), strict=True):
        assert spoiled < 1.35 * clean


def test_samples_spread_as_the_standard_deviations_say(maps, brain):
    for name, sd in maps.sd.items():
        draws = maps.samples[name]
        assert draws.shape == (QUICK.samples, *brain.mask.shape)
        deviation = (draws - maps[name])[:, brain.mask]
        ratio = np.sqrt(np.mean(deviation**2, axis=0)) / sd[brain.mask]
        assert 0.9 < np.median(ratio) < 1.1
        parameter = maps.model[name]
        assert draws[:, brain.mask].min() >= parameter.lower * 0.9999


def test_draws_of_neighbours_deviate_together(maps, brain):
    deviation = maps.samples["att"] - maps.att
    both = brain.mask[1:] & brain.mask[:-1]
    here, there = deviation[:, 1:][:, both], deviation[:, :-1][:, both]
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.5


def test_the_history_has_the_hyperparameters_of_each_round(maps):
    history = maps.history
    hyperparameters = {"cbf_precision", "att_precision", "noise_sd", "outlier_fraction"}
    assert set(history) == hyperparameters | {"att_order"}
    assert {len(values) for values in history.values()} <= {*range(2, QUICK.rounds + 1)}
    assert history["noise_sd"][-1] == np.float32(maps.noise_sd)
    first, *_, before, last = np.log(history["cbf_precision"])
    assert abs(last - before) < 0.1 * abs(last - first)


@pytest.mark.parametrize(
    ("model", "at_most"),
    [
        (models.with_bounds(BUXTON, att=(0.05, 0.7)), 0.7),
        (models.with_priors(BUXTON, att=(0.2, 0.01)), 0.5),
    ],
    ids=["bounds", "prior"],
)
def test_bounds_and_priors_of_the_model_reach_the_start(small, model, at_most):
    def centre(chosen):
        known = make_field_problem(make_problem(small, chosen, np.float32), SMALL)
        return float(known.centres[chosen.names.index("att")])

    assert centre(BUXTON) > 1.0
    assert centre(model) <= at_most * 1.0001


def test_bounds_of_other_parameters_hold_in_every_voxel(small, phantom):
    found = fit(small, SMALL, models.with_bounds(BUXTON, att=(0.05, 1.0)))
    assert found.att[phantom.mask].max() <= 1.0001
    beyond = phantom.mask & (phantom.att > 1.2)
    assert (found.status[beyond] == Status.ON_BOUND).mean() > 0.9


def test_an_amplitude_beyond_its_bound_is_told_and_not_clipped(small, phantom):
    found = fit(small, SMALL, models.with_bounds(BUXTON, cbf=(0.0, 40.0)))
    beyond = found.cbf > 40.0
    assert beyond.sum() > 20
    assert (found.status[beyond] == Status.ON_BOUND).all()
    assert (found.status[phantom.mask & ~beyond & (found.cbf > 1.0)] == Status.FITTED).mean() > 0.95


def test_voxels_that_still_move_at_the_last_round_are_told(small, phantom):
    inside = phantom.mask
    early = fit(small, dataclasses.replace(SMALL, rounds=2)).status[inside]
    assert (early == Status.NOT_CONVERGED).mean() > 0.1
    settled = fit(small, dataclasses.replace(SMALL, rounds=2, rtol=1e6)).status[inside]
    assert not (settled == Status.NOT_CONVERGED).any()
    late = fit(small, dataclasses.replace(SMALL, rounds=30, rtol=1e-9)).status[inside]
    assert (late == Status.NOT_CONVERGED).mean() < 0.1


def test_a_stated_distribution_is_kept_beside_smoothness(small, phantom):
    model = models.get("buxton+t1")
    inside = phantom.mask
    found = fit(small, SMALL, model)
    shift = np.abs(found["t1_tissue"] - small.t1_tissue)[inside]
    assert 0.001 < np.median(shift) < 0.05
    sd = found.sd["t1_tissue"][inside]
    assert 0.04 < np.median(sd) < 0.12


def test_data_without_noise_correct_a_wrong_t1(phantom, protocol):
    told = with_wrong_t1(simulate(phantom, protocol, tsnr=100.0, seed=0), 1.1)
    inside = phantom.mask
    found = fit(told, SMALL, models.get("buxton+t1"))
    before = np.abs(told.t1_tissue - phantom.t1_tissue)[inside].mean()
    after = np.abs(found["t1_tissue"] - phantom.t1_tissue)[inside].mean()
    assert after < 0.5 * before
    assert nrmse(found, _with_t1(phantom))[0] < 0.7 * nrmse(fit(told, SMALL), phantom)[0]


def _with_t1(phantom):
    values = {**phantom.values, "t1_tissue": np.where(phantom.mask, phantom.t1_tissue, 0.0)}
    return dataclasses.replace(phantom, values=values)


def test_held_parameters_leave_a_field_for_each_other(small, phantom):
    model = models.fix(BUXTON, att=1.2)
    found = fit(small, SMALL, model)
    assert set(found.values) == set(found.sd) == {"cbf"}
    near = phantom.mask & (np.abs(phantom.att - 1.2) < 0.05)
    assert np.median(np.abs(found.cbf[near] / phantom.cbf[near] - 1.0)) < 0.1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Artery(KineticModel):
    """Blood in transit: another amplitude with a kinked arrival time of its own."""

    parameters: tuple[Parameter, ...] = (
        dataclasses.replace(BUXTON["cbf"], name="abv", typical=0.01, upper=0.2, scale=0.01),
        dataclasses.replace(BUXTON["att"], name="abat", typical=0.6, prior=None),
    )
    name = "artery"
    description = "arterial blood"

    def signal(self, values, timing, tissue, blood):
        volume, arrival = values
        t = timing.t + timing.readout_delay
        rise = jax.nn.sigmoid((t - arrival) / 0.05)
        fall = jax.nn.sigmoid((t - arrival - timing.label_duration) / 0.05)
        delivered = 2.0 * blood.labeling_efficiency * tissue.m0 * volume
        return delivered * jnp.exp(-jnp.asarray(arrival) / blood.t1_blood) * (rise - fall)


def test_a_model_with_two_kinked_parameters_is_fitted(phantom):
    model = models.with_bounds(BUXTON + Artery(), att=(1.0, 2.0), abat=(0.4, 1.3))
    along = np.linspace(-1, 1, 14)[:, None, None] * np.ones_like(phantom.m0)
    values = {
        "cbf": phantom.cbf,
        "att": 1.5 + 0.5 * (phantom.att - 1.2),
        "abv": 0.01 + 0.005 * along,
        "abat": 0.8 + 0.2 * along,
    }
    inside = phantom.mask
    truth = dataclasses.replace(
        phantom, values={name: np.where(inside, value, 0.0) for name, value in values.items()}
    )
    delays = Protocol(np.full(12, 1.5), np.linspace(0.1, 3.2, 12))
    data = simulate(truth, delays, tsnr=20.0, seed=0, model=model)
    found = fit(data, dataclasses.replace(SMALL, rounds=10), model)
    for name in model.names:
        error = np.abs(found[name][inside] / truth[name][inside] - 1.0)
        assert np.median(error) < 0.04
        ratios = (found[name] - truth[name])[inside] / found.sd[name][inside]
        assert 0.3 < np.sqrt(np.mean(ratios**2)) < 3.0


def test_arteries_are_told_from_tissue(phantom):
    """In a corner of one slice, whose blood arrives before that of the tissue."""
    phantom = dataclasses.replace(phantom, mask=phantom.mask & (np.arange(2) == 0))
    x, y = np.indices(phantom.mask.shape)[:2]
    abv = np.where(phantom.mask & (x + y < 10), 0.02, 0.0)
    arrival = {"abv": abv, "abat": np.where(abv > 0.0, phantom.att - 0.45, 0.0)}
    truth = dataclasses.replace(phantom, values={**phantom.values, **arrival})
    model = models.get("buxton+arterial")
    data = simulate(truth, PROTOCOL, tsnr=5.0, seed=0, model=model)
    bounded = models.with_bounds(model, att=(0.3, 1.8), abat=(0.3, 1.8))
    found = fit(data, dataclasses.replace(SMALL, rounds=8), bounded)
    arterial, elsewhere = abv > 0.0, phantom.mask & (abv == 0.0)
    assert np.median(found["abv"][arterial]) == pytest.approx(0.02, rel=0.15)
    assert np.mean(found["abv"][elsewhere]) < 0.001
    assert np.median(np.abs(found["abat"] - truth["abat"])[arterial]) < 0.1
    for name, most in (("cbf", 0.06), ("att", 0.06)):
        error = (found[name] / np.where(phantom.mask, truth[name], 1.0) - 1.0)[phantom.mask]
        assert np.median(np.abs(error)) < most
    for sd in found.sd.values():
        assert np.isfinite(sd).all()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("order", ByParameter.of(other=2, cbf=3)),
        ("order", ByParameter.of(other=2, att=-1)),
        ("order", ByParameter.of(other=1.5)),
        ("spatial_dims", 1),
        ("samples", 2),
        ("rounds", 0),
        ("edge_dof", ByParameter.of(other=3, cbf=-1.0)),
        ("rtol", 0.0),
        ("f_scale", -1.0),
    ],
)
def test_options_out_of_range_are_named(small, option, value):
    with pytest.raises(InputError, match=f"--{option}"):
        fit(small, dataclasses.replace(SMALL, **{option: value}))


def test_too_few_delays_are_refused(small):
    few = time_encoded_protocol(label_durations("equal", 2, 4.0), 0.1)
    short = dataclasses.replace(
        small, delta_m=small.delta_m[..., :2], protocol=few, n_averages=small.n_averages[:2]
    )
    with pytest.raises(InputError, match="2 delay"):
        fit(short, SMALL)
