import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from asl_pinn.errors import InputError
from asl_pinn.evaluation.metrics import coverage, pcc, percent_relative_error, scores, ssim


def reference_ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Wang's formula with SciPy's Gaussian filter, background 0 beyond the edge."""

    def smooth(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, mode="constant", truncate=5.0 / 1.5)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )


@pytest.fixture
def noisy(phantom):
    noise = np.random.default_rng(0).normal(size=phantom.cbf.shape)
    return np.where(phantom.mask, phantom.cbf + 8.0 * noise, 0.0)


def test_perfect_maps_score_perfectly(phantom):
    perfect = scores(phantom.cbf, phantom.cbf, phantom.mask)
    assert perfect == pytest.approx(
        {
            "ssim": 1.0,
            "ssim_masked": 1.0,
            "pcc": 1.0,
            "pcc_masked": 1.0,
            "nrmse": 0.0,
            "bias": 0.0,
            "pre_mean": 0.0,
            "pre_sd": 0.0,
        },
        abs=1e-6,
    )


def test_ssim_is_wangs(phantom, noisy):
    scale = phantom.cbf.max()
    expected = np.stack(
        [
            reference_ssim_map(noisy[..., k] / scale, phantom.cbf[..., k] / scale)
            for k in range(phantom.mask.shape[2])
        ],
        axis=-1,
    )
    whole, masked = ssim(noisy, phantom.cbf, phantom.mask)
    inside_the_slice = expected[5:-5, 5:-5]
    assert whole == pytest.approx(inside_the_slice.mean(), abs=1e-4)
    assert masked == pytest.approx(expected[phantom.mask].mean(), abs=1e-4)


def test_known_errors_give_known_scores(phantom):
    scored = scores(1.1 * phantom.cbf, phantom.cbf, phantom.mask)
    inside = phantom.cbf[phantom.mask]
    assert scored["pre_mean"] == pytest.approx(10.0)
    assert scored["pre_sd"] == pytest.approx(0.0, abs=1e-9)
    assert scored["bias"] == pytest.approx(0.1)
    assert scored["nrmse"] == pytest.approx(0.1 * np.sqrt(np.mean(inside**2)) / inside.mean())
    assert scored["pcc_masked"] == pytest.approx(1.0)


def test_what_lies_outside_the_mask_does_not_count(phantom, noisy):
    spoiled = np.where(phantom.mask, noisy, 1e6)
    assert scores(spoiled, phantom.cbf, phantom.mask) == scores(noisy, phantom.cbf, phantom.mask)


def test_empty_slices_do_not_raise_the_scores(phantom, noisy):
    padding = [(0, 0), (0, 0), (2, 3)]
    padded = (np.pad(volume, padding) for volume in (noisy, phantom.cbf, phantom.mask))
    assert scores(*padded) == pytest.approx(scores(noisy, phantom.cbf, phantom.mask))


@given(st.floats(0.1, 10.0), st.floats(-5.0, 5.0), st.integers(0, 1000))
def test_correlation_is_numpys_and_ignores_scale_and_offset(scale, offset, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 50))
    assert pcc(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert pcc(scale * a + offset, b) == pytest.approx(pcc(a, b), abs=1e-9)


def test_a_constant_estimate_has_no_correlation():
    assert pcc(np.ones(5), np.arange(5.0)) == 0.0


def test_percent_relative_error_is_signed():
    assert percent_relative_error(np.array([50.0, 90.0]), np.array([100.0, 60.0])) == pytest.approx(
        [-50.0, 50.0]
    )


def test_maps_that_cannot_be_scored_are_refused(phantom):
    cbf, mask = phantom.cbf, phantom.mask
    broken = np.where(mask, np.nan, cbf)
    for arguments, message in (
        ((cbf[1:], cbf, mask), "one shape"),
        ((cbf, cbf, np.zeros_like(mask)), "mask is empty"),
        ((broken, cbf, mask), "NaN"),
        ((cbf, broken, mask), "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            scores(*arguments)


def test_coverage_of_calibrated_normal_errors_is_the_level():
    rng = np.random.default_rng(0)
    sd = rng.uniform(0.5, 2.0, (60, 60, 10))
    truth = rng.uniform(size=sd.shape)
    mask = rng.random(sd.shape) < 0.5
    estimate = truth + sd * rng.standard_normal(sd.shape)
    for level in (0.5, 0.95):
        assert np.isclose(coverage(estimate, truth, sd, mask, level), level, atol=0.01)
        assert coverage(estimate, truth, 0.5 * sd, mask, level) < level - 0.1
