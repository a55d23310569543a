import numpy as np
import pytest

from asl_pinn.estimators.nlls_scipy import _delta_m
from asl_pinn.estimators.survey import Population, att_grid, survey
from asl_pinn.estimators.voxelwise import NllsOptions
from asl_pinn.simulate import noise_free, noise_sd, simulate
from asl_pinn.voxels import gather

QUADRATIC = 1e4
CBF = np.linspace(-600.0, 900.0, 6001)
POPULATION = Population(*(np.float64(value) for value in (55.0, 20.0, 1.3, 0.4)))


@pytest.fixture
def seen(phantom, protocol):
    """A noisy brain, its voxels and the noise."""
    data = simulate(phantom, protocol, tsnr=1.5, seed=4)
    return data, gather(data, np.float64), noise_sd(noise_free(phantom, protocol), phantom, 1.5)


def squares(voxels, which, att, protocol, sd):
    """Half the squared misfits of one voxel over CBF, with the curve as linear in CBF."""
    t = protocol.t + voxels.readout_delay[which]
    constants = voxels.m0[which], voxels.t1_tissue[which], protocol
    unit = _delta_m(40.0, att, t, *constants) / 40.0
    return 0.5 * np.sum(((CBF[:, None] * unit - voxels.delta_m[which]) / sd) ** 2, axis=1)


@pytest.mark.usefixtures("float64")
def test_law_is_that_of_a_sum_over_cbf_and_att(seen, protocol):
    data, voxels, sd = seen
    options = NllsOptions(loss_scale=QUADRATIC, att_grid=24)
    found = survey(voxels, sd, data, options, POPULATION)
    np.testing.assert_allclose(found.share.sum(axis=1), 1.0, rtol=1e-12)
    grid = np.asarray(att_grid(options, np.float64))
    cbf_mean, cbf_sd, att_mean, att_sd = POPULATION
    prior = -0.5 * ((CBF - cbf_mean) / cbf_sd) ** 2
    for which in range(0, len(voxels.m0), 29):
        log = np.stack([prior - squares(voxels, which, att, protocol, sd) for att in grid])
        log -= 0.5 * ((grid[:, None] - att_mean) / att_sd) ** 2
        joint = np.exp(log - log.max())
        joint /= joint.sum()
        np.testing.assert_allclose(found.share[which], joint.sum(axis=1), rtol=1e-6, atol=1e-9)
        mean = joint.sum(axis=0) @ CBF
        variance = joint.sum(axis=0) @ (CBF - mean) ** 2
        assert found.cbf_mean[which] == pytest.approx(mean, rel=1e-6)
        assert found.cbf_variance[which] == pytest.approx(variance, rel=1e-6)


@pytest.mark.usefixtures("float64")
def test_least_cost_is_that_of_all_cbf_and_att(seen, protocol):
    data, voxels, sd = seen
    options = NllsOptions(loss_scale=QUADRATIC, att_grid=24)
    found = survey(voxels, sd, data, options)
    grid = np.asarray(att_grid(options, np.float64))
    allowed = np.clip(CBF, 0.0, options.cbf_max) == CBF
    pull = 0.5 * ((grid - options.att_guess) / options.att_guess_sd) ** 2
    for which in range(0, len(voxels.m0), 29):
        costs = np.stack([squares(voxels, which, att, protocol, sd) for att in grid])
        costs = costs[:, allowed] + pull[:, None]
        best = np.unravel_index(np.argmin(costs), costs.shape)
        assert found.cost[which] == pytest.approx(costs[best], rel=1e-3)
        assert found.cost[which] <= costs[best] + 1e-9
        assert found.x[which, 1] == pytest.approx(grid[best[0]])
        assert 50.0 * found.x[which, 0] == pytest.approx(CBF[allowed][best[1]], abs=0.2)
