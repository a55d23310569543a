import jax
import numpy as np
import pytest

from asl_pinn.estimators import get_estimator, nlls
from asl_pinn.estimators.intervals import _population
from asl_pinn.estimators.nlls import NllsOptions
from asl_pinn.execution import Execution
from asl_pinn.metrics import coverage
from asl_pinn.simulate import noise_free, noise_sd, simulate
from asl_pinn.voxels import gather


def covered(maps, phantom, name):
    return coverage(
        getattr(maps, name), getattr(phantom, name), getattr(maps, f"{name}_sd"), phantom.mask
    )


@pytest.mark.parametrize("tsnr", [1.0, 1.5])
def test_intervals_cover_the_truth_where_the_curvature_does_not(phantom, protocol, tsnr):
    data = simulate(phantom, protocol, tsnr=tsnr, seed=3)
    by_population = nlls.fit(data, NllsOptions(), Execution())
    by_curvature = nlls.fit(data, NllsOptions(sd="curvature"), Execution())
    assert by_population.att.tobytes() == by_curvature.att.tobytes()
    for name in ("cbf", "att"):
        assert covered(by_population, phantom, name) >= 0.92
    assert covered(by_curvature, phantom, "att") < 0.9


def test_where_the_law_is_narrow_the_curvature_tells(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=100.0, seed=3)
    maps = [nlls.fit(data, NllsOptions(sd=sd), Execution()) for sd in ("population", "curvature")]
    assert np.array_equal(maps[0].cbf_sd, maps[1].cbf_sd)
    assert np.array_equal(maps[0].att_sd, maps[1].att_sd)


def test_law_of_the_voxels_is_found(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=3)
    sd = noise_sd(noise_free(phantom, protocol), phantom, 5.0)
    averages = np.asarray(data.n_averages, np.float32)
    found = _population(gather(data, np.float32), np.float32(sd), protocol, averages, NllsOptions())
    cbf, att = phantom.cbf[phantom.mask], phantom.att[phantom.mask]
    expected = cbf.mean(), cbf.std(), att.mean(), att.std()
    assert np.allclose(jax.device_get(found), expected, rtol=0.12)


def test_a_blur_counts_in_the_standard_deviations(phantom, protocol):
    data = simulate(phantom, protocol, tsnr=5.0, seed=3)
    smoothed = get_estimator("nlls-smoothed")
    maps = smoothed.fit(data, smoothed.options(smoothing_fwhm=15.0), Execution())
    error = (maps.cbf - phantom.cbf)[phantom.mask]
    stated = np.sqrt(np.mean(maps.cbf_sd[phantom.mask] ** 2))
    assert stated == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.3)
