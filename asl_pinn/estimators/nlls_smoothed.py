"""The voxel-wise fit of smoothed difference images, the width chosen by held-out delays."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from nibabel.affines import voxel_sizes
from tqdm import tqdm

from asl_pinn.arrays import FloatArray
from asl_pinn.blur import blur_inside, blur_kernel, blur_widths
from asl_pinn.data import AslData, PerfusionMaps
from asl_pinn.errors import InputError
from asl_pinn.estimators import nlls, voxelwise
from asl_pinn.execution import Execution
from asl_pinn.holdout import prediction_error, without_delay
from asl_pinn.options import option
from asl_pinn.voxels import gather, predict

_WIDTHS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SmoothedOptions(voxelwise.NllsOptions):
    """Options of `nlls-smoothed`."""

    smoothing_fwhm: float = option(
        -1.0,
        "Full width at half maximum of the Gaussian [mm]; negative to choose it by leaving "
        "each delay out and predicting it.",
    )
    spatial_dims: int = option(3, "2 to smooth within slices alone, 3 to smooth volumes.")


def fit(data: AslData, options: SmoothedOptions, execution: Execution) -> PerfusionMaps:
    """Smooth the difference images inside the mask, and fit every voxel by itself.

    The width is the one, of ten from 0 to 8 voxel edges, with which the fits of all delays
    but one predict the images of that one best, as they were measured.

    Parameters
    ----------
    data : AslData
        At least 3 delays; at least 4 to choose the width.
    options : SmoothedOptions
        Width, and those of `nlls`.
    execution : Execution
        As for `nlls`.

    Returns
    -------
    PerfusionMaps
        Standard deviations are those of the noise that smoothing leaves, and what the images
        as they were measured show of the blur, on average over the voxels.

    Raises
    ------
    InputError
        As for `nlls`, or if there are too few delays to choose the width.

    References
    ----------
    Stone, J R Stat Soc B 36:111-147 (1974), for the choice of the width.
    """
    voxelwise.check(data, options)
    if options.spatial_dims not in (2, 3):
        raise InputError(f"--spatial_dims must be 2 or 3, it is {options.spatial_dims}")
    fwhm = options.smoothing_fwhm
    if fwhm < 0.0:
        if data.protocol.n_delays < 4:
            raise InputError(
                f"{data.protocol.n_delays} delays in the data; choosing the width needs 4: "
                "give --smoothing_fwhm"
            )
        fwhm = best_fwhm(data, options, execution)
    maps = nlls.fit(smooth(data, fwhm, options.spatial_dims), options, execution)
    return _with_blur(maps, data, fwhm, options, execution)


def best_fwhm(data: AslData, options: SmoothedOptions, execution: Execution) -> float:
    """Width with which held-out delays are predicted best.

    Parameters
    ----------
    data : AslData
        At least 4 delays.
    options : SmoothedOptions
        Of the fits.
    execution : Execution
        Floating-point type and progress bar.

    Returns
    -------
    float
        Full width at half maximum [mm].
    """
    widths = voxel_sizes(data.affine).min() * np.asarray(_WIDTHS)
    hidden = None if execution.progress else True
    quick = dataclasses.replace(options, sd="curvature")

    def error(fwhm: float) -> float:
        smoothed = smooth(data, fwhm, options.spatial_dims)
        maps = [
            nlls.fit(without_delay(smoothed, delay), quick, execution)
            for delay in range(data.protocol.n_delays)
        ]
        return sum(prediction_error(fitted, data, delay) ** 2 for delay, fitted in enumerate(maps))

    bar = tqdm(widths, desc="nlls-smoothed", disable=hidden, file=sys.stderr)
    return float(widths[np.argmin([error(fwhm) for fwhm in bar])])


def smooth(data: AslData, fwhm: float, n_axes: int) -> AslData:
    """Blur the difference images, each voxel by its valid neighbours alone.

    Parameters
    ----------
    data : AslData
        Volumes.
    fwhm : float
        Full width at half maximum [mm]; 0 leaves the data as they are.
    n_axes : int
        2 to blur within slices, 3 to blur volumes.

    Returns
    -------
    AslData
        Changed inside `data.valid` alone.
    """
    if fwhm == 0.0:
        return data
    widths = blur_widths(fwhm, data.affine, data.mask.shape, n_axes)
    images = np.moveaxis(data.delta_m, -1, 0)
    blurred = [blur_inside(image, data.valid, widths) for image in images]
    return dataclasses.replace(data, delta_m=np.stack(blurred, axis=-1))


def _with_blur(
    maps: PerfusionMaps,
    data: AslData,
    fwhm: float,
    options: SmoothedOptions,
    execution: Execution,
) -> PerfusionMaps:
    """Add to the standard deviations what the blur hides.

    A Gauss-Newton step from the maps towards the images as they were measured has the
    variance that noise gives it, and beside it the square of what the blur took away. The
    latter's mean over the voxels is added to the variances.
    """
    if fwhm == 0.0:
        return maps
    valid = data.valid
    voxels = gather(data, execution.dtype)
    noise_sd = nlls.noise(voxels, data, options)
    weights = np.sqrt(data.n_averages) / noise_sd
    cbf, att = (jnp.asarray(volume[valid], execution.dtype) for volume in (maps.cbf, maps.att))

    def curves(cbf: Array, att: Array) -> Array:
        return predict(cbf, att, voxels, data.protocol).T * weights

    misfit = voxels.delta_m * weights - curves(cbf, att)
    left = 1.0 - _own_noise(data, fwhm, options.spatial_dims)

    def widened(sd: FloatArray, along: tuple[Array, Array]) -> FloatArray:
        slopes = np.asarray(jax.jvp(curves, (cbf, att), along)[1], np.float64)
        information = np.sum(slopes**2, axis=1)
        pull = np.sum(slopes * np.asarray(misfit, np.float64), axis=1)
        hidden = np.sum(pull**2 - left * information) / np.sum(information**2)
        variance = sd**2 + np.where(valid, max(hidden, 0.0), 0.0)
        return np.sqrt(variance).astype(sd.dtype)

    one, none = jnp.ones_like(cbf), jnp.zeros_like(cbf)
    return dataclasses.replace(
        maps,
        cbf_sd=widened(np.asarray(maps.cbf_sd), (one, none)),
        att_sd=widened(np.asarray(maps.att_sd), (none, one)),
    )


def _own_noise(data: AslData, fwhm: float, n_axes: int) -> float:
    """Share of its own noise that the blur leaves out of a voxel's misfit: 2 s₀ - Σ s²."""
    kernel = blur_kernel(blur_widths(fwhm, data.affine, data.mask.shape, n_axes))
    return float(2.0 * kernel.max() - np.sum(kernel**2))
