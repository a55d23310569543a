"""Errors that real data have and the kinetic model does not: wrong constants, outliers, motion."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData


def with_wrong_t1(data: AslData, factor: float) -> AslData:
    """Tell the estimator a T1 of tissue that is `factor` times the true one.

    Parameters
    ----------
    data : AslData
        Volumes.
    factor : float
        Of the T1 that is told.

    Returns
    -------
    AslData
        The same images with another `t1_tissue` [s].
    """
    return dataclasses.replace(data, t1_tissue=data.t1_tissue * np.float32(factor))


def with_wrong_efficiency(data: AslData, factor: float) -> AslData:
    """Tell the estimator a labelling efficiency that is `factor` times the true one.

    Parameters
    ----------
    data : AslData
        Volumes.
    factor : float
        Of the efficiency that is told.

    Returns
    -------
    AslData
        The same images with another protocol.
    """
    efficiency = data.protocol.labeling_efficiency * factor
    protocol = dataclasses.replace(data.protocol, labeling_efficiency=efficiency)
    return dataclasses.replace(data, protocol=protocol)


def with_outliers(data: AslData, fraction: float, noise_sd: float, seed: int) -> AslData:
    """Put large errors into some voxels, in every delay.

    Parameters
    ----------
    data : AslData
        Volumes.
    fraction : float
        Of the mask's voxels.
    noise_sd : float
        The errors are normal, with ten times this standard deviation [unit of delta_m].
    seed : int
        Of the voxels and the errors.

    Returns
    -------
    AslData
    """
    rng = np.random.default_rng(seed)
    chosen = (rng.random(data.mask.shape) < fraction) & data.mask
    errors = 10.0 * noise_sd * rng.standard_normal(data.delta_m.shape)
    delta_m = data.delta_m + np.where(chosen[..., None], errors, 0.0)
    return dataclasses.replace(data, delta_m=delta_m.astype(np.float32))


def with_noisy_delay(data: AslData, delay: int, noise_sd: float, seed: int) -> AslData:
    """Add noise of three times the standard deviation to one delay, as motion would.

    Parameters
    ----------
    data : AslData
        Volumes.
    delay : int
        Index of the delay.
    noise_sd : float
        Standard deviation of one difference image [unit of delta_m].
    seed : int
        Of the noise.

    Returns
    -------
    AslData
        Changed inside the mask, at that delay alone.
    """
    rng = np.random.default_rng(seed)
    delta_m = data.delta_m.copy()
    extra = 3.0 * noise_sd * rng.standard_normal(data.mask.shape)
    delta_m[..., delay] += np.where(data.mask, extra, 0.0).astype(np.float32)
    return dataclasses.replace(data, delta_m=delta_m)


def rician(images: FloatArray, noise_sd: float, seed: int) -> NDArray[np.float32]:
    """Magnitudes of images with complex noise of this standard deviation in each part.

    Parameters
    ----------
    images : ndarray
        Magnitudes without noise, of any shape [a.u.].
    noise_sd : float
        Standard deviation in the unit of `images`.
    seed : int
        Of the noise.

    Returns
    -------
    ndarray of float32
        Of the shape and unit of `images`.

    References
    ----------
    Gudbjartsson and Patz, Magn Reson Med 34:910-914 (1995).
    """
    rng = np.random.default_rng(seed)
    real, imaginary = noise_sd * rng.standard_normal((2, *images.shape))
    return np.hypot(images + real, imaginary).astype(np.float32)
