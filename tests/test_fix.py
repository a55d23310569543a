"""Parameters that are held: the single-delay case."""

import dataclasses

import numpy as np
import pytest

from asl_pinn.acquisition.constants import T1_TISSUE
from asl_pinn.data import AslData, Status
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator, method_names
from asl_pinn.models import Buxton, Timing, Tissue, fix, get, with_bounds
from asl_pinn.models.base import Blood
from asl_pinn.simulation.acquire import noise_free, noise_sd, simulate

CBF = np.linspace(5.0, 120.0, 24, dtype=np.float32).reshape(4, 3, 2)
METHODS = ("nlls", "nlls-scipy", "nlls-smoothed")
OPTIONS = {"nlls-smoothed": {"smoothing_fwhm": 0.0}}


def single_delay(att: float = 1.2, **changes) -> AslData:
    """White-paper timing, noise-free, from a transit time that all voxels share."""
    readout_delay = np.zeros(CBF.shape, np.float32) + np.array([0.0, 0.04], np.float32)
    delta_m = Buxton().signal(
        (CBF, att), Timing(3.6 + readout_delay, 1.8), Tissue(100.0, T1_TISSUE), Blood()
    )
    data = AslData.from_arrays(
        np.asarray(delta_m)[..., None],
        100.0,
        label_duration=1.8,
        pld=1.8,
        readout_delay=readout_delay,
        n_averages=30.0,
    )
    return dataclasses.replace(data, **changes)


def fit(data: AslData, model=None, method="nlls", **options):
    estimator = get_estimator(method)
    chosen = estimator.options(**{**OPTIONS.get(method, {}), **options})
    held = fix(Buxton(), att=1.2) if model is None else model
    return estimate_maps(data, method, estimator, held, chosen, RunContext())


@pytest.mark.parametrize("method", METHODS)
def test_one_delay_gives_cbf_where_att_is_known(method):
    maps = fit(single_delay(), method=method)
    np.testing.assert_allclose(maps.cbf, CBF, rtol=1e-4)
    assert tuple(maps.values) == ("cbf",)
    assert (maps.status == Status.FITTED).all()
    assert not maps.sd
    assert maps.noise_sd is None


def test_error_of_a_wrong_att_is_its_decay():
    """Label that has arrived decays with T1 of tissue instead of blood, whatever CBF is."""
    maps = fit(single_delay(att=0.8))
    expected = np.exp(0.4 / 1.65 - 0.4 / T1_TISSUE)
    np.testing.assert_allclose(maps.cbf / CBF, expected, rtol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_negative_and_excessive_differences_end_on_a_bound(method):
    data = single_delay()
    delta_m = data.delta_m.copy()
    delta_m[0, 0, 0], delta_m[1, 0, 0] = -1.0, 50.0
    maps = fit(dataclasses.replace(data, delta_m=delta_m), method=method)
    assert maps.status[0, 0, 0] == maps.status[1, 0, 0] == Status.ON_BOUND
    assert (maps.cbf[0, 0, 0], maps.cbf[1, 0, 0]) == (0.0, 200.0)
    assert (maps.status == Status.FITTED).sum() == CBF.size - 2


def test_a_prior_lets_one_delay_do_for_two_parameters():
    """T1 stays at its prior, as one delay cannot tell it from CBF."""
    maps = fit(single_delay(), fix(get("buxton+t1"), att=1.2))
    np.testing.assert_allclose(maps.cbf, CBF, rtol=1e-3)
    np.testing.assert_allclose(maps.t1_tissue, T1_TISSUE, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_transit_times_after_the_last_readout_are_refused(method):
    held = fix(with_bounds(Buxton(), att=(0.05, 5.0)), att=3.6)
    with pytest.raises(InputError, match=r"--fix=att=3\.6: at readout, 3\.6 s .*nothing would"):
        fit(single_delay(), held, method)


@pytest.mark.parametrize("method", METHODS)
def test_more_delays_tell_noise_and_standard_deviations_too(phantom, protocol, method):
    mask = phantom.mask.copy()
    mask[::2] = method != "nlls-scipy"
    mask &= phantom.mask
    same = {"cbf": np.where(mask, phantom.cbf, 0.0), "att": np.where(mask, 1.2, 0.0)}
    known = dataclasses.replace(
        phantom, values=same, mask=mask, grey_matter=phantom.grey_matter & mask
    )
    tsnr = 3.0
    maps = fit(simulate(known, protocol, tsnr=tsnr, seed=2), method=method)
    expected = noise_sd(noise_free(known, protocol), known, tsnr)
    assert maps.noise_sd == pytest.approx(expected, rel=0.1)
    errors = (maps.cbf - known.cbf)[mask] / maps.sd["cbf"][mask]
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("method", method_names())
def test_methods_refuse_one_delay_and_tell_what_to_hold(method):
    estimator = get_estimator(method)
    with pytest.raises(InputError, match=r"1 delay.*--method=nlls --fix=att=SECONDS"):
        estimate_maps(
            single_delay(), method, estimator, Buxton(), estimator.options(), RunContext()
        )
