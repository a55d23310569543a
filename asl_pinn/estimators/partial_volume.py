"""Partial-volume correction by regression, which serves every voxel-wise method."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from asl_pinn.arrays import FloatArray
from asl_pinn.data import Status, to_volume
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import Estimate, Fit, RunContext
from asl_pinn.models.base import KineticModel
from asl_pinn.models.partial_volume import (
    TISSUE_LABELS,
    fraction_of,
    mean_partition_coefficient,
    pure_model,
    pure_tissue,
)
from asl_pinn.problem import Geometry, Problem, take

# Of a tissue that is nowhere in the kernel, the difference image is then 0.
_RIDGE = 1e-6


class PureImages(NamedTuple):
    """Difference images as they would be if voxels held one tissue alone.

    Attributes
    ----------
    signal : ndarray, shape (2, D, V)
        Of grey and white matter, over the M0 of blood.
    precision : ndarray, shape (2, V)
        One over the variance of either, for noise of unit variance in the images [M0 squared].
    """

    signal: NDArray[np.float64]
    precision: NDArray[np.float64]


def by_tissue(fit: Fit, *, weighted: bool = True) -> Fit:
    """Let a voxel-wise fit serve models of mixed voxels, one tissue after the other.

    The difference images are regressed on the fractions of grey and white matter, times the M0 of
    blood, over a kernel about each voxel; the slopes are the images of pure tissue, to which the
    curve of the tissue is fitted where there is some of it.

    Parameters
    ----------
    fit : callable
        Of one voxel's curve, whose options have `pv_kernel` and `min_fraction`.
    weighted : bool
        Whether images of pure tissue are scaled to the same noise in every voxel, as fits of single
        voxels want it; those that are smoothed need the same scale in every voxel instead.

    Returns
    -------
    callable
        The fit itself, for models of a single tissue.

    References
    ----------
    Asllani et al., Magn Reson Med 60:1362-1371 (2008).
    """

    @functools.wraps(fit)
    def fit_each(problem: Problem, options: Any, context: RunContext) -> Estimate:
        if not problem.model.needs_fractions:
            return fit(problem, options, context)
        models = [pure_model(problem.model, label) for label in TISSUE_LABELS]
        images = pure_images(problem, kernel_edges(options.pv_kernel))
        found = {}
        for number, (label, model) in enumerate(zip(TISSUE_LABELS, models, strict=True)):
            present = _present(problem, label, options.min_fraction)
            pure = _pure_problem(problem, model, images, number, present, weighted)
            found[label] = fit(pure, options, context), present
        return _together(problem, found)

    return fit_each


def kernel_edges(text: str) -> tuple[int, int, int]:
    """Edges of a kernel in voxels, from '5x5x1'.

    Parameters
    ----------
    text : str
        Three odd numbers.

    Returns
    -------
    tuple of int

    Raises
    ------
    InputError
        If it is something else, or there is one voxel in all, which cannot tell two tissues apart.

    Examples
    --------
    >>> kernel_edges("5x5x1")
    (5, 5, 1)
    """
    parts = text.lower().split("x")
    edges = [int(part) if part.isdecimal() else 0 for part in parts]
    if len(edges) != 3 or not all(edge % 2 == 1 for edge in edges) or max(edges) == 1:
        raise InputError(f"--pv_kernel is three odd numbers of voxels such as 5x5x1, not {text}")
    return edges[0], edges[1], edges[2]


def pure_images(problem: Problem, kernel: tuple[int, int, int]) -> PureImages:
    """Regress difference images on the tissues of the voxels about each voxel.

    In the kernel of a voxel, dM = m g S_GM + m w S_WM with the M0 of blood m and the fractions g
    and w, by least squares in S.

    Parameters
    ----------
    problem : Problem
        On the host, with fractions and geometry.
    kernel : tuple of int
        Its edges in voxels; it is cut off at the edge of the problem.

    Returns
    -------
    PureImages

    Raises
    ------
    ValueError
        If the problem has no geometry.
    """
    if problem.geometry is None:
        raise ValueError("the regression needs to know where the voxels of a problem lie")
    where = problem.geometry.where

    def about(values: FloatArray) -> NDArray[np.float64]:
        """Sum over the kernel about each voxel."""
        volume = to_volume(np.asarray(values, np.float64), where)
        for axis, edge in enumerate(kernel):
            volume = convolve1d(volume, np.ones(edge), axis=axis, mode="constant")
        summed: NDArray[np.float64] = volume[where]
        return summed

    arterial_m0 = _arterial_m0(problem)
    parts = [arterial_m0 * fraction_of(problem.tissue, label) for label in TISSUE_LABELS]
    (a, b), c = (about(part * part) for part in parts), about(parts[0] * parts[1])
    ridge = _RIDGE * (a + b) + np.finfo(np.float64).tiny
    a, b = a + ridge, b + ridge
    determinant = a * b - c * c
    signal = np.empty((2, *problem.measured.shape))
    for number, image in enumerate(np.asarray(problem.measured, np.float64)):
        to_grey, to_white = (about(part * image) for part in parts)
        signal[0, number] = (b * to_grey - c * to_white) / determinant
        signal[1, number] = (a * to_white - c * to_grey) / determinant
    return PureImages(signal, np.stack([determinant / b, determinant / a]))


def _present(problem: Problem, label: str, min_fraction: float) -> NDArray[np.bool_]:
    present = fraction_of(problem.tissue, label) >= min_fraction
    if not present.any():
        raise InputError(
            f"no voxel has {min_fraction:g} of {label}: check --{label.lower()}, or lower "
            "--min_fraction"
        )
    return present


def _arterial_m0(problem: Problem) -> NDArray[np.float64]:
    coefficient = np.asarray(mean_partition_coefficient(problem.tissue), np.float64)
    return np.asarray(problem.tissue.m0, np.float64) / coefficient


def _pure_problem(
    problem: Problem,
    model: KineticModel,
    images: PureImages,
    number: int,
    present: NDArray[np.bool_],
    weighted: bool,
) -> Problem:
    """The voxels with enough of a tissue, as if they held nothing else.

    Images and M0 are multiplied by a factor that does not change the fit but for the noise: the
    root of the precision leaves it as it is in the images that were measured.
    """
    assert problem.geometry is not None  # or there were no images
    index = np.flatnonzero(present)
    factor = np.sqrt(images.precision[number, index])
    if not weighted:
        factor = np.full_like(factor, np.median(factor))
    where = np.zeros_like(problem.geometry.where)
    where[problem.geometry.where] = present
    few = take(problem, index)
    dtype = problem.dtype
    tissue = pure_tissue(few.tissue, TISSUE_LABELS[number], factor.astype(dtype))
    ones = np.ones(len(index), dtype)
    return dataclasses.replace(
        few,
        measured=(factor * images.signal[number][:, index]).astype(dtype),
        tissue=tissue._replace(
            m0=np.asarray(tissue.m0, dtype), t1_tissue=ones * np.asarray(tissue.t1_tissue, dtype)
        ),
        model=model,
        geometry=Geometry(where, problem.geometry.affine),
    )


def _together(problem: Problem, found: dict[Any, tuple[Estimate, NDArray[np.bool_]]]) -> Estimate:
    """Estimates of the tissues as one, 0 and no status of its own where one was not fitted."""
    n_voxels = problem.n_voxels

    def rows(kind: Callable[[Estimate], Any]) -> Any:
        by_name = {}
        for label, (estimate, present) in found.items():
            values = kind(estimate)
            if values is None:
                return None
            for p, row in zip(pure_model(problem.model, label).parameters, values, strict=True):
                by_name[p.name] = np.zeros(n_voxels, problem.dtype)
                by_name[p.name][present] = row
        return np.stack([by_name[name] for name in problem.model.names])

    status = np.full(n_voxels, Status.OUTSIDE)
    noise = [estimate.noise_sd for estimate, _ in found.values()]
    for estimate, present in found.values():
        # The worse of two, which has the greater number: on a bound, not converged.
        status[present] = np.maximum(status[present], estimate.status)
    return Estimate(
        rows(lambda estimate: estimate.values),
        np.where(status == Status.OUTSIDE, Status.SKIPPED, status),
        rows(lambda estimate: estimate.sd),
        None if None in noise else float(np.sqrt(np.mean(np.square(np.array(noise, float))))),
    )
