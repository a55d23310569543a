"""Scores of an estimated map against the truth."""

import dm_pix
import jax.numpy as jnp
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError

_WINDOW = 11
_WINDOW_SIGMA = 1.5


def scores(estimate: FloatArray, truth: FloatArray, mask: NDArray[np.bool_]) -> dict[str, float]:
    """All scores of one map.

    Parameters
    ----------
    estimate, truth : ndarray, shape (X, Y, Z)
        Maps in the same unit; what lies outside the mask is taken as 0.
    mask : ndarray of bool, shape (X, Y, Z)
        The brain.

    Returns
    -------
    dict of str to float
        `ssim` and `pcc` over whole slices, `ssim_masked` and `pcc_masked` inside the mask,
        and inside the mask `nrmse` (root mean square error over the truth's mean),
        `pre_mean` and `pre_sd` (percent relative error), and `bias` (mean error over the
        truth's mean).

    Raises
    ------
    InputError
        If shapes differ, the mask is empty, or a value inside the mask is not finite.

    Examples
    --------
    >>> truth = np.full((16, 16, 1), 50.0)
    >>> truth[4:8] = 20.0
    >>> found = scores(1.1 * truth, truth, truth > 0.0)
    >>> {name: round(found[name], 3) for name in ("ssim", "pcc", "nrmse", "bias")}
    {'ssim': 0.991, 'pcc': 1.0, 'nrmse': 0.105, 'bias': 0.1}
    """
    if not estimate.shape == truth.shape == mask.shape or estimate.ndim != 3:
        raise InputError(
            f"estimate {estimate.shape}, truth {truth.shape} and mask {mask.shape} must be "
            "volumes of one shape"
        )
    mask = np.asarray(mask, dtype=bool)
    if not mask.any():
        raise InputError("the mask is empty: nothing to score")
    estimate, truth = (
        np.where(mask, volume, 0.0).astype(np.float64) for volume in (estimate, truth)
    )
    if not np.isfinite(estimate).all() or not np.isfinite(truth).all():
        raise InputError("a map holds NaN or Inf inside the mask: it cannot be scored")
    inside, true_inside = estimate[mask], truth[mask]
    error = inside - true_inside
    relative = percent_relative_error(inside, true_inside)
    similarity, similarity_masked = ssim(estimate, truth, mask)
    slices = mask.any(axis=(0, 1))
    return {
        "ssim": similarity,
        "ssim_masked": similarity_masked,
        "pcc": pcc(estimate[..., slices], truth[..., slices]),
        "pcc_masked": pcc(inside, true_inside),
        "nrmse": float(np.sqrt(np.mean(error**2)) / np.mean(true_inside)),
        "bias": float(np.mean(error) / np.mean(true_inside)),
        "pre_mean": float(np.mean(relative)),
        "pre_sd": float(np.std(relative)),
    }


def ssim(estimate: FloatArray, truth: FloatArray, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Structural similarity over whole slices and inside the mask.

    Parameters
    ----------
    estimate, truth : ndarray, shape (X, Y, Z)
        Maps, 0 outside the mask; both are divided by the truth's maximum.
    mask : ndarray of bool, shape (X, Y, Z)
        The brain; slices without any are left out.

    Returns
    -------
    whole, masked : float
        Mean over all windows that lie inside the slice, and over those centred in the mask;
        slices are padded with background so that every voxel of the mask has a window.

    References
    ----------
    Wang et al., IEEE Trans Image Process 13:600-612 (2004); window 11, sigma 1.5.
    """
    slices = np.flatnonzero(mask.any(axis=(0, 1)))
    scale = np.max(truth)
    margin = _WINDOW // 2

    def images(volume: FloatArray) -> jnp.ndarray:
        stacked = np.moveaxis(volume[..., slices], -1, 0)[..., None] / scale
        padding = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
        return jnp.asarray(np.pad(stacked, padding), jnp.float32)

    similarity = np.asarray(
        dm_pix.ssim(
            images(estimate),
            images(truth),
            filter_size=_WINDOW,
            filter_sigma=_WINDOW_SIGMA,
            return_map=True,
        )
    )[..., 0]
    whole = similarity[:, margin:-margin, margin:-margin]
    masked = similarity[np.moveaxis(mask[..., slices], -1, 0)]
    return float(whole.mean(dtype=np.float64)), float(masked.mean(dtype=np.float64))


def pcc(estimate: FloatArray, truth: FloatArray) -> float:
    """Pearson correlation coefficient over all elements; 0 where the estimate is constant.

    Parameters
    ----------
    estimate, truth : ndarray
        Maps of one shape, in any unit.

    Returns
    -------
    float
        In [-1, 1].

    Examples
    --------
    >>> round(pcc(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0])), 4)
    0.9934
    """
    a, b = np.ravel(estimate) - np.mean(estimate), np.ravel(truth) - np.mean(truth)
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0.0 else 0.0


def percent_relative_error(estimate: FloatArray, truth: FloatArray) -> FloatArray:
    """100 (estimate - truth) / truth, element by element [%].

    Parameters
    ----------
    estimate, truth : ndarray
        Maps of one shape and unit; no zeros in the truth.

    Returns
    -------
    ndarray
        Of that shape [%].

    Examples
    --------
    >>> percent_relative_error(np.array([55.0, 45.0]), np.array([50.0, 50.0]))
    array([ 10., -10.])
    """
    return 100.0 * (estimate - truth) / truth


def coverage(
    estimate: FloatArray,
    truth: FloatArray,
    sd: FloatArray,
    mask: NDArray[np.bool_],
    level: float = 0.95,
) -> float:
    """Fraction of voxels whose truth lies in the interval that their standard deviation gives.

    Parameters
    ----------
    estimate, truth, sd : ndarray, shape (X, Y, Z)
        Maps in the same unit.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to count.
    level : float
        Probability of the central normal interval.

    Returns
    -------
    float
        `level` where the standard deviations are calibrated.

    Examples
    --------
    Two of three values lie within 1.96 standard deviations of the truth.

    >>> estimate, truth = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[1.5, 2.5, 9.0]]])
    >>> round(coverage(estimate, truth, np.full((1, 1, 3), 0.5), estimate > 0.0), 3)
    0.667
    """
    width = scipy.stats.norm.ppf(0.5 + level / 2.0)
    return float(np.mean(np.abs(estimate - truth)[mask] <= width * sd[mask]))
