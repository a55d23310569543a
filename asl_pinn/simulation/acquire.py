"""From a phantom and a protocol to noisy acquisitions."""

import dataclasses

import jax
import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition import encoding
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Phantom
from asl_pinn.errors import InputError
from asl_pinn.models.base import Blood, KineticModel, Timing, Tissue
from asl_pinn.models.buxton import Buxton

STATIC_SIGNAL = 0.3
"""Signal of a control image over M0, background suppression at work."""


_BUXTON = Buxton()


def noise_free(phantom: Phantom, protocol: Protocol, model: KineticModel = _BUXTON) -> AslData:
    """Difference images of a phantom without noise.

    Parameters
    ----------
    phantom : Phantom
        The truth.
    protocol : Protocol
        Timing and constants.
    model : KineticModel
        Whose signal the phantom has; it must know all parameters of the model.

    Returns
    -------
    AslData
        float32 volumes, 0 outside the mask, with the phantom's M0, T1 and mask.

    Raises
    ------
    InputError
        If the phantom has no map of one of the model's parameters.
    """

    def by_delay(volume: FloatArray) -> NDArray[np.float64]:
        return np.asarray(volume, np.float64)[..., None]

    # In float64, so that rounding is far below the noise of any simulation, tSNR of 1e6 included.
    with jax.enable_x64(True):
        signal = model.signal(
            [by_delay(volume) for volume in phantom.truth(model).values()],
            Timing(np.asarray(protocol.t), np.asarray(protocol.label_duration)),
            Tissue(
                by_delay(phantom.m0), by_delay(phantom.t1_tissue), protocol.partition_coefficient
            ),
            Blood(protocol.t1_blood, protocol.labeling_efficiency),
        )
        delta_m = np.where(phantom.mask[..., None], np.asarray(signal), 0.0)
    return AslData(
        delta_m=delta_m.astype(np.float32),
        m0=phantom.m0.astype(np.float32),
        mask=phantom.mask,
        t1_tissue=phantom.t1_tissue.astype(np.float32),
        readout_delay=np.zeros(phantom.mask.shape, np.float32),
        n_averages=np.ones(protocol.n_delays, np.float32),
        protocol=protocol,
        affine=phantom.affine,
    )


def noise_sd(clean: AslData, phantom: Phantom, tsnr: float) -> float:
    """Standard deviation of the noise of one difference image.

    Parameters
    ----------
    clean : AslData
        From `noise_free`.
    phantom : Phantom
        Whose grey matter sets the signal.
    tsnr : float
        Mean over grey matter and delays of the noise-free signal, over the noise.

    Returns
    -------
    float
        In the unit of the phantom's M0.

    Raises
    ------
    InputError
        If `tsnr` is not positive or the phantom holds no grey matter.
    """
    if not tsnr > 0.0:
        raise InputError(f"tSNR must be positive, it is {tsnr}")
    if not phantom.grey_matter.any():
        raise InputError("the phantom holds no grey matter, so that tSNR is not defined")
    return float(clean.delta_m[phantom.grey_matter].mean(dtype=np.float64) / tsnr)


def simulate(
    phantom: Phantom,
    protocol: Protocol,
    *,
    tsnr: float,
    seed: int,
    model: KineticModel = _BUXTON,
) -> AslData:
    """Decoded acquisition of a phantom, with Gaussian noise in every voxel.

    Parameters
    ----------
    phantom : Phantom
        The truth.
    protocol : Protocol
        Timing and constants.
    tsnr : float
        As in `noise_sd`; infinity for no noise.
    seed : int
        Of the noise; the same seed gives the same bits.
    model : KineticModel
        As in `noise_free`.

    Returns
    -------
    AslData

    Raises
    ------
    InputError
        As `noise_free` and `noise_sd`.
    """
    clean = noise_free(phantom, protocol, model)
    noise = noise_sd(clean, phantom, tsnr) * _standard_normal(clean.delta_m.shape, seed)
    return dataclasses.replace(clean, delta_m=(clean.delta_m + noise).astype(np.float32))


def simulate_encoded(
    phantom: Phantom,
    protocol: Protocol,
    matrix: FloatArray,
    *,
    tsnr: float,
    seed: int,
    model: KineticModel = _BUXTON,
) -> NDArray[np.float32]:
    """Images of a time-encoded acquisition, before decoding.

    The noise is such that it has the stated tSNR after decoding.

    Parameters
    ----------
    phantom : Phantom
        The truth.
    protocol : Protocol
        Of the decoded acquisition, one delay per column of the matrix.
    matrix : ndarray, shape (N, N - 1)
        From `asl_pinn.acquisition.encoding`.
    tsnr, seed, model
        As in `simulate`.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, N)
        In the unit of the phantom's M0.

    Raises
    ------
    InputError
        As `noise_free` and `noise_sd`.
    """
    clean = noise_free(phantom, protocol, model)
    images = encoding.encode(clean.delta_m, STATIC_SIGNAL * clean.m0, matrix)
    # dM_j = (2/N) sum_k H_kj S_k: noise of SD s in the N images becomes 2 s / sqrt(N) in dM_j.
    before_decoding = noise_sd(clean, phantom, tsnr) * np.sqrt(len(matrix)) / 2.0
    noise = before_decoding * _standard_normal(images.shape, seed)
    return (images + noise).astype(np.float32)


def _standard_normal(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.asarray(jax.random.normal(jax.random.key(seed), shape, np.float32))
