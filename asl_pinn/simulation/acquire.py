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
from asl_pinn.models.choice import check_labeling

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
        float32 volumes, 0 outside the mask, with the phantom's M0, T1, mask and fractions.

    Raises
    ------
    InputError
        If the phantom has no map of one of the model's parameters or no fractions of tissues
        that the model needs, or the model describes another kind of labelling than the protocol's.
    """
    check_labeling(model, protocol)

    mask, truth = phantom.mask, phantom.truth(model)
    gm, wm = (phantom.fractions.get(name) for name in ("gm", "wm"))

    def by_delay(volume: FloatArray) -> NDArray[np.float64]:
        return np.asarray(volume, np.float64)[mask][:, None]

    tissue = Tissue(
        by_delay(phantom.m0),
        by_delay(phantom.t1_tissue),
        protocol.partition_coefficient,
        t1_gm=protocol.t1_gm,
        t1_wm=protocol.t1_wm,
    )
    if model.needs_fractions:
        if gm is None or wm is None:
            raise InputError(
                f"model {model.name} needs the fractions of grey and white matter in each voxel, "
                "which the phantom does not have"
            )
        tissue = tissue._replace(gm=by_delay(gm), wm=by_delay(wm))
    # In float64, so that rounding is far below the noise of any simulation, tSNR of 1e6 included.
    with jax.enable_x64(True):
        signal = model.signal(
            [by_delay(volume) for volume in truth.values()],
            Timing(np.asarray(protocol.t), np.asarray(protocol.label_duration)),
            tissue,
            Blood(protocol.t1_blood, protocol.labeling_efficiency),
        )
        delta_m = np.zeros((*mask.shape, protocol.n_delays), np.float32)
        delta_m[mask] = np.asarray(signal, np.float32)
    return AslData(
        delta_m=delta_m,
        m0=phantom.m0.astype(np.float32),
        mask=mask,
        t1_tissue=phantom.t1_tissue.astype(np.float32),
        readout_delay=np.zeros(mask.shape, np.float32),
        n_averages=np.ones(protocol.n_delays, np.float32),
        protocol=protocol,
        affine=phantom.affine,
        gm=None if gm is None else gm.astype(np.float32),
        wm=None if wm is None else wm.astype(np.float32),
    )


def noise_sd(clean: AslData, phantom: Phantom, tsnr: float) -> float:
    """Standard deviation of the noise of one difference image.

    Parameters
    ----------
    clean : AslData
        From `noise_free`, without arterial blood.
    phantom : Phantom
        Whose grey matter sets the signal.
    tsnr : float
        Mean over grey matter and delays of the noise-free signal of tissue, over the noise.

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
    sd = _noise_of_tissue(clean, phantom, model, tsnr)
    noise = sd * _standard_normal(clean.delta_m.shape, seed)
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
    sd = _noise_of_tissue(clean, phantom, model, tsnr)
    before_decoding = sd * np.sqrt(len(matrix)) / 2.0
    noise = before_decoding * _standard_normal(images.shape, seed)
    return (images + noise).astype(np.float32)


def _noise_of_tissue(clean: AslData, phantom: Phantom, model: KineticModel, tsnr: float) -> float:
    """The noise that the phantom would have without arteries, so that they do not add to it."""
    sparse = [p.name for p in model.parameters if p.sparse]
    if sparse:
        absent = dict.fromkeys(sparse, np.zeros(phantom.mask.shape))
        bare = dataclasses.replace(phantom, values={**phantom.values, **absent})
        clean = noise_free(bare, clean.protocol, model)
    return noise_sd(clean, phantom, tsnr)


def _standard_normal(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.asarray(jax.random.normal(jax.random.key(seed), shape, np.float32))
