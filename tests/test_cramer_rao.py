import dataclasses

import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.evaluation.cramer_rao import cramer_rao_sd
from asl_pinn.problem import make_problem, predict, take
from asl_pinn.simulation.acquire import noise_free, noise_sd, simulate


def noiseless(phantom, protocol, model="buxton", sd=1.0):
    """A problem with its noise, and its truth."""
    data = noise_free(phantom, protocol)
    chosen = models.get(model)
    problem = dataclasses.replace(make_problem(data, chosen, "float32"), noise_sd=sd)
    return problem, np.stack([row[data.valid] for row in phantom.truth(chosen).values()])


def differences(problem, values, steps) -> np.ndarray:
    """Jacobian by central differences in float64, shape (V, D, P)."""
    columns = []
    for p, step in enumerate(steps):
        shift = step * np.eye(len(steps))[p][:, None]
        above, below = (predict(problem, tuple(values + sign * shift)) for sign in (1.0, -1.0))
        columns.append((np.asarray(above) - np.asarray(below)) / (2.0 * step))
    return np.stack(columns, axis=-1).transpose(1, 0, 2)


def test_voxel_wise_fits_reach_the_bound_where_noise_is_low(phantom, protocol):
    sd = noise_sd(noise_free(phantom, protocol), phantom, 60.0)
    problem, truth = noiseless(phantom, protocol, sd=sd)
    bounds = cramer_rao_sd(problem, truth)
    nlls = get_estimator("nlls")
    flat = models.with_priors(models.Buxton(), att=(1.2, 1e3))
    options = nlls.options(f_scale=1e3)
    fits = [
        nlls.fit(
            make_problem(simulate(phantom, protocol, tsnr=60.0, seed=seed), flat, "float32"),
            options,
            RunContext(),
        ).values
        for seed in range(24)
    ]
    for p, name in enumerate(problem.model.names):
        found = np.std([fit[p] for fit in fits], axis=0, ddof=1)
        assert np.isclose(np.median(found / bounds[p]), 1.0, atol=0.06), name
        assert np.median(np.abs(fits[0][p] - truth[p]) / bounds[p]) < 1.0


@pytest.mark.parametrize("model", ["buxton", "buxton+t1"])
def test_bound_is_the_inverse_of_fishers_information(phantom, protocol, model, float64):
    problem, truth = noiseless(phantom, protocol, model, sd=2.0)
    some = dataclasses.replace(take(problem, slice(0, 40, 3)), measured=np.zeros((7, 14)))
    values = truth[:, :40:3]
    weights = np.linspace(1.0, 3.0, 7)
    some = dataclasses.replace(some, weights=weights)
    jacobian = differences(some, values, [1e-3, 1e-6, 1e-6][: len(values)])
    information = np.einsum("d,vdp,vdq->vpq", weights / 4.0, jacobian, jacobian)
    if model == "buxton+t1":
        information[:, 2, 2] += 1.0 / 0.1**2
    expected = np.sqrt(np.linalg.inv(information).diagonal(axis1=1, axis2=2)).T
    assert np.allclose(cramer_rao_sd(some, values), expected, rtol=1e-4)


def test_bound_falls_with_averages(phantom, protocol):
    problem, truth = noiseless(phantom, protocol)
    some = take(problem, slice(0, 5))
    once = cramer_rao_sd(some, truth[:, :5])
    often = cramer_rao_sd(dataclasses.replace(some, weights=4.0 * some.weights), truth[:, :5])
    assert np.allclose(once / often, 2.0, rtol=1e-4)


def test_what_the_data_do_not_tell_has_an_infinite_bound(phantom, protocol):
    problem, truth = noiseless(phantom, protocol)
    some = take(problem, slice(0, 3))
    without_flow, too_late = truth[:, :3].copy(), truth[:, :3].copy()
    without_flow[0, 1] = 0.0
    too_late[1, 2] = 9.0
    cbf_sd, att_sd = cramer_rao_sd(some, without_flow)
    assert np.isfinite(cbf_sd).all()
    assert np.isfinite(att_sd).tolist() == [True, False, True]
    assert np.isfinite(cramer_rao_sd(some, too_late)).tolist() == [[True, True, False]] * 2
    one_delay = dataclasses.replace(some, weights=np.float32([1, 0, 0, 0, 0, 0, 0]))
    assert np.isinf(cramer_rao_sd(one_delay, truth[:, :3])).all()


def test_a_prior_is_the_bound_where_the_data_say_nothing(phantom, protocol):
    problem, truth = noiseless(phantom, protocol, "buxton+t1")
    some = take(problem, slice(0, 3))
    without_flow = truth[:, :3].copy()
    without_flow[0] = 0.0
    assert np.allclose(cramer_rao_sd(some, without_flow)[2], 0.1)
    other = models.with_priors(some.model, t1_tissue=(1.3, 0.02))
    known = cramer_rao_sd(dataclasses.replace(some, model=other), truth[:, :3])
    assert (known[0] < cramer_rao_sd(some, truth[:, :3])[0]).all()


def test_a_bound_without_noise_is_refused(phantom, protocol):
    problem, truth = noiseless(phantom, protocol, sd=None)
    with pytest.raises(InputError, match="noise"):
        cramer_rao_sd(problem, truth)
