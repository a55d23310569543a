"""The voxel-wise fit of smoothed difference images, the width chosen by cross-validation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.data import to_volume
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import Estimate, Estimator, RunContext
from asl_pinn.estimators.checks import require_spatial_dims
from asl_pinn.estimators.options import option
from asl_pinn.estimators.partial_volume import by_tissue
from asl_pinn.estimators.voxelwise import nlls
from asl_pinn.estimators.voxelwise.objective import (
    NllsOptions,
    check,
    n_determined,
)
from asl_pinn.estimators.voxelwise.sparse import noise as sparse_noise
from asl_pinn.estimators.voxelwise.sparse import plain
from asl_pinn.evaluation.cross_validation import mean_squared_error, without_measurement
from asl_pinn.models.compose import components, without_sparse
from asl_pinn.numerics.progress import progress_bar
from asl_pinn.numerics.smoothing import blur_inside, blur_kernel, blur_widths
from asl_pinn.problem import Geometry, Problem, predict

_WIDTHS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SmoothedOptions(NllsOptions):
    """Options of `nlls-smoothed`."""

    smoothing_fwhm: float = option(
        -1.0,
        "Full width at half maximum of the Gaussian [mm]; negative to choose it by leaving "
        "each delay out and predicting it.",
    )
    spatial_dims: int = option(3, "2 to smooth within slices alone, 3 to smooth volumes.")


def fit(problem: Problem, options: SmoothedOptions, context: RunContext) -> Estimate:
    """Smooth the difference images inside the mask, and fit every voxel by itself.

    The width is the one, of ten from 0 to 8 voxel edges, with which the fits of all delays
    but one predict the images of that one best, as they were measured. It is chosen without the
    model's sparse components.

    Parameters
    ----------
    problem : Problem
        As many measurements as `nlls` needs, and one more to choose the width.
    options : SmoothedOptions
        Width, and those of `nlls`.
    context : RunContext
        Progress bar.

    Returns
    -------
    Estimate
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
    check(problem, options)
    require_spatial_dims(options)
    fwhm = options.smoothing_fwhm
    if fwhm < 0.0:
        found, model = problem.n_measurements, without_sparse(problem.model)
        needed = n_determined(model) + bool(model.kinked) + 1
        if found < needed:
            raise InputError(
                f"{found} delay(s) in the data; choosing the width needs {needed}: "
                "give --smoothing_fwhm"
            )
        fwhm = best_fwhm(problem, options, context)
    estimate = nlls.fit(smooth(problem, fwhm, options.spatial_dims), options, context)
    return _with_blur(estimate, problem, fwhm, options)


def best_fwhm(problem: Problem, options: SmoothedOptions, context: RunContext) -> float:
    """Width with which delays that were left out are predicted best.

    Sparse components of the model, which few voxels have and which take most of the time, are left
    out.

    Parameters
    ----------
    problem : Problem
        With one measurement more than a fit needs.
    options : SmoothedOptions
        Of the fits.
    context : RunContext
        Progress bar.

    Returns
    -------
    float
        Full width at half maximum [mm].
    """
    from nibabel.affines import voxel_sizes  # takes a while, for which --help should not wait

    widths = voxel_sizes(_geometry(problem).affine).min() * np.asarray(_WIDTHS)
    quick = dataclasses.replace(options, sd="curvature")
    problem = plain(problem)

    def error(fwhm: float) -> float:
        smoothed = smooth(problem, fwhm, options.spatial_dims)
        return sum(
            # Against the images as they were measured: their noise is independent of the fit,
            # that of the smoothed ones would reward wide blurs.
            mean_squared_error(
                problem, nlls.fit(without_measurement(smoothed, i), quick, context).values, i
            )
            for i in range(problem.n_measurements)
        )

    errors = []
    with progress_bar(len(widths), "nlls-smoothed", shown=context.progress) as bar:
        for fwhm in widths:
            errors.append(error(fwhm))
            bar.update()
    return float(widths[np.argmin(errors)])


def smooth(problem: Problem, fwhm: float, n_axes: int) -> Problem:
    """Blur the difference images, each voxel by its neighbours in the problem alone.

    Parameters
    ----------
    problem : Problem
        With its geometry.
    fwhm : float
        Full width at half maximum [mm]; 0 leaves the data as they are.
    n_axes : int
        2 to blur within slices, 3 to blur volumes.

    Returns
    -------
    Problem
    """
    if fwhm == 0.0:
        return problem
    where, affine = _geometry(problem)
    widths = blur_widths(fwhm, affine, where.shape, n_axes)
    blurred = [
        blur_inside(to_volume(image, where), where, widths)[where] for image in problem.measured
    ]
    return dataclasses.replace(problem, measured=np.stack(blurred))


def noise_left_by_blur(geometry: Geometry, fwhm: float, n_axes: int) -> float:
    """Variance of unit white noise less its own blur.

    Parameters
    ----------
    geometry : Geometry
        Of the voxels.
    fwhm : float
        Full width at half maximum of the blur [mm].
    n_axes : int
        As in `smooth`.

    Returns
    -------
    float
        Of n0 - sum(s n) with the weights s of the blur: 1 - 2 s0 + sum(s^2).
    """
    kernel = blur_kernel(blur_widths(fwhm, geometry.affine, geometry.where.shape, n_axes))
    return float(1.0 - 2.0 * kernel.max() + np.sum(kernel**2))


def _with_blur(
    estimate: Estimate, problem: Problem, fwhm: float, options: SmoothedOptions
) -> Estimate:
    """Add to the standard deviations what the blur hides.

    A Gauss-Newton step from the maps towards the images as they were measured has the
    variance that noise gives it, and beside it the square of what the blur took away. The
    latter's mean over the voxels is added to the variances. Each parameter is charged with all of
    it, so one that a prior knows well would seem less certain than the prior is: no variance grows
    beyond that. Variances of a component stay where it is absent, as there is nothing to step from.
    """
    if fwhm == 0.0 or estimate.sd is None:
        return estimate
    model = problem.model
    known = (sparse_noise if components(model) else nlls.noise)(problem, options)
    weights = jnp.sqrt(problem.weights)[:, None] / known
    values = tuple(map(jnp.asarray, estimate.values))

    def curves(*values: Array) -> Array:
        return predict(problem, values) * weights

    misfit = np.asarray(problem.measured * weights - curves(*values), np.float64)
    left = noise_left_by_blur(_geometry(problem), fwhm, options.spatial_dims)
    amplitude_of = {
        name: amplitude
        for amplitude, others in components(model).items()
        for name in (amplitude, *others)
    }

    def widened(sd: FloatArray, number: int) -> FloatArray:
        along = tuple(jnp.full_like(at, i == number) for i, at in enumerate(values))
        slopes = np.asarray(jax.jvp(curves, values, along)[1], np.float64)
        information = np.sum(slopes**2, axis=0)
        pull = np.sum(slopes * misfit, axis=0)
        amplitude = amplitude_of.get(model.names[number])
        if amplitude is not None:
            present = estimate.values[model.names.index(amplitude)] > 0.0
            if not present.any():
                return sd
            information, pull = present * information, present * pull
        # The step is pull / information. Summed over the voxels, pull^2 is expected to be
        # left * information + hidden * information^2.
        hidden = np.sum(pull**2 - left * information) / np.sum(information**2)
        added = max(hidden, 0.0) * (1.0 if amplitude is None else present)
        variance = sd**2 + added
        prior = model.parameters[number].knowledge
        if prior is not None:
            variance = np.minimum(variance, np.maximum(sd, prior.sd) ** 2)
        return np.sqrt(variance).astype(sd.dtype)

    return estimate._replace(sd=np.stack([widened(sd, i) for i, sd in enumerate(estimate.sd)]))


def _geometry(problem: Problem) -> Geometry:
    if problem.geometry is None:
        raise ValueError("smoothing needs to know where the voxels of a problem lie")
    return problem.geometry


def _width(fwhm: float) -> str:
    if fwhm < 0.0:
        return "of the width that best predicted delays left out of the fit"
    return f"of {fwhm:g} mm full width at half maximum"


NLLS_SMOOTHED = Estimator(
    by_tissue(fit, weighted=False),
    SmoothedOptions,
    "the same of smoothed images",
    "The difference images were smoothed inside the mask with a Gaussian {smoothing_fwhm}. "
    f"{nlls.METHODS_SENTENCE}.",
    words={"smoothing_fwhm": _width},
)
