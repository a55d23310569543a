"""The grid posterior beside sums over fine grids of everything."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.voxelwise import curves
from asl_pinn.estimators.voxelwise.grid import (
    Normal,
    PopulationPrior,
    grid_posterior,
    initial_noise,
    mean_values,
)
from asl_pinn.estimators.voxelwise.nlls import NLLS, NllsOptions
from asl_pinn.estimators.voxelwise.objective import with_noise
from asl_pinn.models import Buxton, KineticModel, Parameter, fix, get
from asl_pinn.problem import make_problem, predict, take
from asl_pinn.simulation.acquire import noise_free, noise_sd, simulate

QUADRATIC = 1e4
CBF = np.linspace(-600.0, 900.0, 6001)
POPULATION = PopulationPrior(
    (Normal(np.float64(55.0), np.float64(20.0)),), (Normal(np.float64(1.3), np.float64(0.4)),)
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Artery(KineticModel):
    """A second amplitude and a second arrival: label on its way, with rounded edges."""

    parameters: tuple[Parameter, ...] = (
        Parameter(
            name="abv",
            label="arterial blood volume",
            symbol="aBV",
            unit="1",
            typical=0.01,
            lower=0.0,
            upper=0.2,
            scale=0.01,
            linear=True,
        ),
        Parameter(
            name="abat",
            label="arterial bolus arrival time",
            symbol="ABAT",
            unit="s",
            typical=0.7,
            lower=0.05,
            upper=4.0,
            scale=1.0,
            kinked=True,
        ),
    )
    name = "artery"
    description = "an arterial component"

    def signal(self, values, timing, tissue, blood):
        """Bolus that passes."""
        abv, abat = values
        since = timing.t + timing.readout_delay - jnp.asarray(abat)
        inside = jax.nn.sigmoid(since / 0.05) * jax.nn.sigmoid(
            (timing.label_duration - since) / 0.05
        )
        return (
            2.0
            * blood.labeling_efficiency
            * tissue.m0
            * abv
            * jnp.exp(-abat / blood.t1_blood)
            * inside
        )


@pytest.fixture
def problem(phantom, protocol):
    """A noisy brain in float64, whose noise is known."""
    data = simulate(phantom, protocol, tsnr=1.5, seed=4)
    sd = noise_sd(noise_free(phantom, protocol), phantom, 1.5)
    return with_noise(make_problem(data, Buxton(), np.float64), sd)


def squares(problem, which, att):
    """Half the squared misfits of one voxel over CBF, with the curve as linear in CBF."""
    one = take(problem, np.array([which]))
    unit = np.asarray(predict(one, (40.0, att)))[:, 0] / 40.0
    misfit = CBF[:, None] * unit - one.measured[:, 0]
    return 0.5 * np.sum((misfit / problem.noise_sd) ** 2, axis=1)


@pytest.mark.usefixtures("float64")
def test_posterior_is_that_of_a_sum_over_cbf_and_att(problem):
    found = grid_posterior(problem, NllsOptions(f_scale=QUADRATIC, grid=24), POPULATION)
    np.testing.assert_allclose(found.probability[0].sum(axis=0), 1.0, rtol=1e-12)
    grid = np.linspace(0.05, 4.0, 24)
    [(cbf_mean, cbf_sd)], [(att_mean, att_sd)] = POPULATION
    prior = -0.5 * ((CBF - cbf_mean) / cbf_sd) ** 2
    for which in range(0, problem.n_voxels, 29):
        log = np.stack([prior - squares(problem, which, att) for att in grid])
        log -= 0.5 * ((grid[:, None] - att_mean) / att_sd) ** 2
        joint = np.exp(log - log.max())
        joint /= joint.sum()
        np.testing.assert_allclose(
            found.probability[0][:, which], joint.sum(axis=1), rtol=1e-6, atol=1e-9
        )
        mean = joint.sum(axis=0) @ CBF
        variance = joint.sum(axis=0) @ (CBF - mean) ** 2
        assert found.mean[0][which] == pytest.approx(mean, rel=1e-6)
        assert found.variance[0][which] == pytest.approx(variance, rel=1e-6)


@pytest.mark.usefixtures("float64")
def test_least_cost_is_that_of_all_cbf_and_att(problem):
    found = grid_posterior(problem, NllsOptions(f_scale=QUADRATIC, grid=24))
    grid = np.linspace(0.05, 4.0, 24)
    cbf, att = problem.model.parameters
    allowed = np.clip(CBF, cbf.lower, cbf.upper) == CBF
    pull = 0.5 * ((grid - att.prior.mean) / att.prior.sd) ** 2
    for which in range(0, problem.n_voxels, 29):
        costs = np.stack([squares(problem, which, att) for att in grid])
        costs = costs[:, allowed] + pull[:, None]
        best = np.unravel_index(np.argmin(costs), costs.shape)
        assert found.cost[which] == pytest.approx(costs[best], rel=1e-3)
        assert found.cost[which] <= costs[best] + 1e-9
        assert found.x[1, which] == pytest.approx(grid[best[0]])
        assert 50.0 * found.x[0, which] == pytest.approx(CBF[allowed][best[1]], abs=0.2)


@pytest.mark.usefixtures("float64")
def test_posterior_of_two_amplitudes_and_two_times_is_that_of_a_sum(problem):
    """Over both amplitudes and all pairs of times; the signal is exactly linear in amplitudes."""
    model = Buxton() + Artery()
    few = dataclasses.replace(take(problem, np.arange(0, problem.n_voxels, 60)), model=model)
    normals = [(55.0, 20.0), (0.01, 0.02)], [(1.3, 0.4), (0.8, 0.5)]
    population = PopulationPrior(
        *(tuple(Normal(*map(np.float64, pair)) for pair in pairs) for pairs in normals)
    )
    found = grid_posterior(few, NllsOptions(f_scale=QUADRATIC, grid=6), population)
    times = np.linspace(0.05, 4.0, 6)
    cbf, abv = np.linspace(-150.0, 260.0, 700), np.linspace(-0.14, 0.16, 700)
    log_prior = -0.5 * ((cbf[:, None] - 55.0) / 20.0) ** 2 - 0.5 * ((abv - 0.01) / 0.02) ** 2
    for which in range(few.n_voxels):
        one = take(few, np.array([which]))
        measured = one.measured[:, 0] / few.noise_sd
        log = np.empty((6, 6, 700, 700))
        for (i, att), (k, abat) in itertools.product(enumerate(times), enumerate(times)):
            tissue = np.asarray(predict(one, (40.0, att, 0.0, abat)))[:, 0] / 40.0 / few.noise_sd
            artery = np.asarray(predict(one, (0.0, att, 1.0, abat)))[:, 0] / few.noise_sd
            quadratic = (
                0.5 * cbf[:, None] ** 2 * (tissue @ tissue)
                + 0.5 * abv**2 * (artery @ artery)
                + np.outer(cbf, abv) * (tissue @ artery)
                - cbf[:, None] * (tissue @ measured)
                - abv * (artery @ measured)
            )
            times_prior = -0.5 * ((att - 1.3) / 0.4) ** 2 - 0.5 * ((abat - 0.8) / 0.5) ** 2
            log[i, k] = log_prior - quadratic + times_prior
        joint = np.exp(log - log.max())
        joint /= joint.sum()
        for axis, other in ((0, (1, 2, 3)), (1, (0, 2, 3))):
            np.testing.assert_allclose(
                found.probability[axis][:, which], joint.sum(axis=other), rtol=1e-4, atol=1e-7
            )
        for number, (values, other) in enumerate(((cbf, (0, 1, 3)), (abv, (0, 1, 2)))):
            marginal = joint.sum(axis=other)
            mean = marginal @ values
            assert found.mean[number][which] == pytest.approx(mean, rel=1e-3)
            variance = marginal @ (values - mean) ** 2
            assert found.variance[number][which] == pytest.approx(variance, rel=1e-3)


def test_a_model_of_two_amplitudes_and_two_times_is_fitted(phantom, protocol):
    """Its grid is coarse, of 32 x 32 at most: the starts need only lie in the right valley."""
    known = dataclasses.replace(
        phantom,
        values={
            **phantom.values,
            "abv": np.where(phantom.mask, 0.01, 0.0),
            "abat": np.where(phantom.mask, phantom.att - 0.45, 0.0),
        },
    )
    model = Buxton() + Artery()
    data = simulate(known, protocol, tsnr=200.0, seed=1, model=model)
    maps = estimate_maps(data, "nlls", NLLS, model, NllsOptions(), RunContext())
    mask = phantom.mask
    for name, true in known.truth(model).items():
        error = np.abs(maps[name][mask] - true[mask])
        assert np.median(error) < 0.05 * np.median(true[mask])
        assert (maps.sd[name][mask] > 0.0).all()
        assert np.isfinite(maps.sd[name]).all()


@pytest.mark.parametrize(
    "model", [Buxton(), get("buxton+t1"), fix(Buxton(), att=1.2)], ids=["2", "3", "1"]
)
def test_initial_noise_is_near_the_noise(phantom, protocol, model):
    data = simulate(phantom, protocol, tsnr=1.5, seed=4)
    if "att" not in model.names:
        same = {**phantom.values, "att": np.where(phantom.mask, 1.2, 0.0)}
        phantom = dataclasses.replace(phantom, values=same)
        data = simulate(phantom, protocol, tsnr=1.5, seed=4)
    expected = noise_sd(noise_free(phantom, protocol), phantom, 1.5)
    found = initial_noise(make_problem(data, model, np.float32))
    assert found == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("name", ["buxton", "buxton+t1"])
def test_mean_values_are_those_of_a_uniform_brain(phantom, protocol, name):
    mask = phantom.mask
    uniform = dataclasses.replace(
        phantom,
        values={"cbf": np.where(mask, 48.0, 0.0), "att": np.where(mask, 1.4, 0.0)},
        m0=np.where(mask, 900.0, 0.0),
        t1_tissue=np.full(mask.shape, 1.25),
    )
    problem = make_problem(simulate(uniform, protocol, tsnr=5.0, seed=0), get(name), np.float32)
    cbf, att, *t1 = mean_values(problem)
    assert cbf == pytest.approx(48.0, rel=0.05)
    assert att == pytest.approx(1.4, abs=0.05)
    assert t1 == pytest.approx([1.25] if name == "buxton+t1" else [])


def test_voxels_of_many_kinds_are_those_of_their_own_curves(phantom, protocol, monkeypatch):
    """Tables hold no more kinds than they may; each voxel looks its own up."""
    data = simulate(phantom, protocol, tsnr=1.5, seed=4)
    t1 = np.where(phantom.mask, 1.2 + 0.2 * np.indices(phantom.mask.shape)[0] / 14, 0.0)
    problem = with_noise(make_problem(data, Buxton(), np.float32), 1.0)
    problem = take(problem, np.arange(40))
    rows = t1[phantom.mask][:40].astype(np.float32)
    mapped = dataclasses.replace(problem, tissue=problem.tissue._replace(t1_tissue=rows))
    options = NllsOptions(grid=12)
    assert len(np.unique(rows)) > 2
    whole = grid_posterior(mapped, options)
    for value in np.unique(rows):
        alike = np.flatnonzero(rows == value)
        one = grid_posterior(take(mapped, alike), options, n_voxels=40)
        np.testing.assert_allclose(whole.cost[alike], one.cost, rtol=1e-5)
    monkeypatch.setattr(curves, "_PADDED", (1, 2))
    np.testing.assert_allclose(grid_posterior(mapped, options).cost, whole.cost, rtol=1e-5)
