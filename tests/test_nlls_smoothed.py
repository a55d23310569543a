import dataclasses

import numpy as np
import pytest

from asl_pinn.data import AslData, to_volume
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.estimators.voxelwise.nlls_smoothed import (
    SmoothedOptions,
    best_fwhm,
    noise_left_by_blur,
    smooth,
)
from asl_pinn.evaluation.cross_validation import (
    mean_squared_error,
    prediction_error,
    without_measurement,
)
from asl_pinn.models import Buxton, get
from asl_pinn.problem import make_problem
from asl_pinn.simulation.acquire import noise_free, simulate

SLICES = SmoothedOptions(spatial_dims=2)


def fit(data, model="buxton", method="nlls-smoothed", **options):
    estimator = get_estimator(method)
    return estimate_maps(
        data, method, estimator, get(model), estimator.options(**options), RunContext()
    )


def problem_of(data):
    return make_problem(data, Buxton(), np.float32)


def test_constants_stay_and_nothing_leaks_through_the_mask(phantom, protocol):
    data = noise_free(phantom, protocol)
    marked = np.where(data.mask[..., None], 2.0, 1e6).astype(np.float32)
    problem = problem_of(dataclasses.replace(data, delta_m=marked))
    assert np.allclose(smooth(problem, 8.0, 3).measured, 2.0, rtol=1e-6)


def test_slices_are_mixed_only_in_three_dimensions(phantom, protocol):
    data = noise_free(phantom, protocol)
    marked = np.zeros_like(data.delta_m)
    marked[:, :, 1] = 1.0
    problem = problem_of(dataclasses.replace(data, delta_m=marked))
    for n_axes, mixed in ((2, False), (3, True)):
        volume = to_volume(smooth(problem, 8.0, n_axes).measured[0], data.mask)
        assert (volume[:, :, 0] > 0.0).any() == mixed


def test_no_width_leaves_the_voxel_wise_fit(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=3.0, seed=0)
    maps, expected = fit(data, smoothing_fwhm=0.0), fit(data, method="nlls")
    assert maps.cbf.tobytes() == expected.cbf.tobytes()


def test_noise_calls_for_more_smoothing(phantom, protocol):
    widths = [
        best_fwhm(problem_of(simulate(phantom, protocol, tsnr=tsnr, seed=1)), SLICES, RunContext())
        for tsnr in (200.0, 0.7)
    ]
    assert widths[0] < widths[1]


def test_smoothing_lowers_errors_and_standard_deviations(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=1.0, seed=1)
    rough, smoothed = (fit(data, "buxton+t1", smoothing_fwhm=fwhm) for fwhm in (0.0, 6.0))
    mask = phantom.mask
    for name in ("cbf", "att"):
        errors = [np.std((maps[name] - phantom[name])[mask]) for maps in (rough, smoothed)]
        assert errors[1] < errors[0]
        assert np.median(smoothed.sd[name][mask]) < np.median(rough.sd[name][mask])
    assert (smoothed.sd["t1_tissue"][mask] < 0.101).all()


def test_too_few_delays_to_choose_a_width_is_an_error(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=3.0, seed=0)
    for delay in (6, 4, 2, 0):
        data = without_measurement(data, delay)
    with pytest.raises(InputError, match="--smoothing_fwhm"):
        fit(data)


def test_a_measurement_left_out_is_predicted_exactly_without_noise(phantom, protocol):
    data = noise_free(phantom, protocol)
    fitted = fit(without_measurement(data, 6), method="nlls")
    assert prediction_error(fitted, data, 6) < 1e-3 * np.abs(data.delta_m).max()
    zero = {name: np.zeros_like(values) for name, values in fitted.values.items()}
    expected = np.sqrt(np.mean(data.delta_m[data.mask][:, 6] ** 2))
    nothing = dataclasses.replace(fitted, values=zero)
    assert prediction_error(nothing, data, 6) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("index", [0, 3, 6])
def test_problems_and_data_lose_the_same_measurement(phantom, protocol, index):
    data = dataclasses.replace(
        simulate(phantom, protocol, tsnr=3.0, seed=0), n_averages=np.arange(1.0, 8.0)
    )
    of_data = problem_of(without_measurement(data, index))
    of_problem = without_measurement(problem_of(data), index)
    for a, b in (
        (of_data.measured, of_problem.measured),
        (of_data.weights, of_problem.weights),
        (of_data.timing.t, of_problem.timing.t),
        (of_data.timing.label_duration, of_problem.timing.label_duration),
    ):
        assert np.array_equal(a, b)
    values = np.zeros((2, of_data.n_voxels), np.float32)
    expected = np.mean(data.delta_m[data.mask][:, index] ** 2)
    assert mean_squared_error(problem_of(data), values, index) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n_axes", [2, 3])
def test_noise_that_is_left_when_its_blur_is_taken_away(n_axes):
    noise = np.random.default_rng(0).standard_normal((40, 40, 40, 8))
    data = AslData.from_arrays(
        noise, 1.0, label_duration=1.0, pld=np.arange(8.0), affine=np.diag([3.0, 3.0, 3.0, 1.0])
    )
    problem = make_problem(data, Buxton(), np.float32)
    left = problem.measured - smooth(problem, 7.0, n_axes).measured
    expected = noise_left_by_blur(problem.geometry, 7.0, n_axes)
    assert expected == pytest.approx(left.var(), rel=0.02)
