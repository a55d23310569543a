import dataclasses

import numpy as np
import pytest

from asl_pinn.errors import InputError
from asl_pinn.estimators import get_estimator, nlls
from asl_pinn.estimators.nlls_smoothed import SmoothedOptions, _own_noise, best_fwhm, fit, smooth
from asl_pinn.execution import Execution
from asl_pinn.holdout import prediction_error, without_delay
from asl_pinn.simulate import noise_free, simulate

SLICES = SmoothedOptions(spatial_dims=2)


def test_constants_stay_and_nothing_leaks_through_the_mask(phantom, protocol):
    data = noise_free(phantom, protocol)
    marked = np.where(data.mask[..., None], 2.0, 1e6).astype(np.float32)
    blurred = smooth(dataclasses.replace(data, delta_m=marked), 8.0, 3).delta_m
    assert np.allclose(blurred[data.mask], 2.0, rtol=1e-6)
    assert (blurred[~data.mask] == 1e6).all()


def test_no_width_leaves_the_voxel_wise_fit(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=3.0, seed=0)
    plain = get_estimator("nlls")
    maps = fit(data, SmoothedOptions(smoothing_fwhm=0.0), Execution())
    expected = plain.fit(data, plain.options(), Execution())
    assert maps.cbf.tobytes() == expected.cbf.tobytes()


def test_noise_calls_for_more_smoothing(phantom, protocol):
    widths = [
        best_fwhm(simulate(phantom, protocol, tsnr=tsnr, seed=1), SLICES, Execution())
        for tsnr in (200.0, 0.7)
    ]
    assert widths[0] < widths[1]


def test_too_few_delays_to_choose_a_width_is_an_error(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=3.0, seed=0)
    for _ in range(4):
        data = without_delay(data, 0)
    with pytest.raises(InputError, match="--smoothing_fwhm"):
        fit(data, SmoothedOptions(), Execution())


def test_held_out_delay_is_predicted_exactly_without_noise(phantom, protocol):
    data = noise_free(phantom, protocol)
    fitted = nlls.fit(without_delay(data, 6), SmoothedOptions(), Execution())
    assert prediction_error(fitted, data, 6) < 1e-3 * np.abs(data.delta_m).max()
    zero = dataclasses.replace(fitted, cbf=np.zeros_like(fitted.cbf))
    expected = np.sqrt(np.mean(data.delta_m[data.mask][:, 6] ** 2))
    assert np.isclose(prediction_error(zero, data, 6), expected, rtol=1e-5)


@pytest.mark.parametrize("n_axes", [2, 3])
def test_share_of_its_own_noise_in_a_blurred_voxel(phantom, protocol, n_axes):
    data = noise_free(phantom, protocol)
    noise = np.random.default_rng(0).standard_normal((40, 40, 40, 8)).astype(np.float32)
    inside = np.ones(noise.shape[:3], bool)
    field = dataclasses.replace(
        data, delta_m=noise, mask=inside, m0=inside + 0.0, t1_tissue=1.0 + inside
    )
    left = noise - smooth(field, 7.0, n_axes).delta_m
    assert 1.0 - _own_noise(field, 7.0, n_axes) == pytest.approx(left.var(), rel=0.02)
