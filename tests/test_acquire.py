import dataclasses

import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.acquisition.encoding import decode, encoding_matrix
from asl_pinn.errors import InputError
from asl_pinn.simulation.acquire import noise_free, noise_sd, simulate, simulate_encoded


def buxtons_curve(phantom, protocol, voxel) -> np.ndarray:
    """The published equations, by branches."""
    rate = 1.0 / phantom.t1_tissue[voxel] + phantom.cbf[voxel] / 6000.0 / 0.9
    since_arrival = protocol.t - phantom.att[voxel]
    tau = protocol.label_duration
    delivered = 2.0 * 0.85 * phantom.m0[voxel] / 0.9 * phantom.cbf[voxel] / 6000.0 / rate
    inflow = 1.0 - np.exp(-np.clip(since_arrival, 0.0, tau) * rate)
    outflow = np.exp(-np.clip(since_arrival - tau, 0.0, None) * rate)
    return delivered * np.exp(-phantom.att[voxel] / 1.65) * inflow * outflow


def test_noise_free_signal_is_buxtons(phantom, protocol):
    clean = noise_free(phantom, protocol)
    for voxel in [(7, 6, 0), (3, 5, 1), (10, 8, 0)]:
        expected = buxtons_curve(phantom, protocol, voxel)
        assert clean.delta_m[voxel] == pytest.approx(expected, rel=1e-6)
    assert clean.delta_m.dtype == np.float32
    assert (clean.delta_m[~phantom.mask] == 0.0).all()
    assert np.array_equal(clean.valid, phantom.mask)


def test_signal_is_that_of_the_model(phantom, protocol):
    buxton = noise_free(phantom, protocol)
    assert np.allclose(
        noise_free(phantom, protocol, models.get("buxton+t1")).delta_m, buxton.delta_m, rtol=1e-6
    )
    held = models.fix(models.Buxton(), att=1.0)
    late = dataclasses.replace(
        phantom, values={"cbf": phantom.cbf, "att": np.full_like(phantom.att, 1.0)}
    )
    expected = noise_free(late, protocol).delta_m
    assert np.allclose(noise_free(phantom, protocol, held).delta_m, expected, rtol=1e-6)
    noisy = simulate(phantom, protocol, tsnr=np.inf, seed=0, model=held)
    assert np.allclose(noisy.delta_m, expected, rtol=1e-6)
    matrix = encoding_matrix(8)
    images = simulate_encoded(phantom, protocol, matrix, tsnr=np.inf, seed=0, model=held)
    assert np.allclose(decode(images, matrix), expected, atol=1e-3)


def test_a_model_that_the_phantom_does_not_know_is_refused(phantom, protocol):
    unknown = dataclasses.replace(phantom, values={"cbf": phantom.cbf})
    with pytest.raises(InputError, match="the phantom has no map of att"):
        simulate(unknown, protocol, tsnr=1.0, seed=0)


def test_arteries_add_their_signal_and_no_noise(phantom, protocol):
    model = models.get("buxton+arterial")
    abv = np.where(phantom.mask & (phantom.cbf > 50.0), 0.01, 0.0)
    values = {**phantom.values, "abv": abv, "abat": 0.5 * phantom.att}
    arterial = dataclasses.replace(phantom, values=values)
    clean, tissue = noise_free(arterial, protocol, model), noise_free(phantom, protocol)
    added = clean.delta_m - tissue.delta_m
    assert np.allclose(added[abv == 0.0], 0.0, atol=1e-5)
    assert added[abv > 0.0].max() > 0.5 * tissue.delta_m.max()
    noisy, noisy_tissue = (
        simulate(brain, protocol, tsnr=1.5, seed=2, model=each).delta_m
        for brain, each in ((arterial, model), (phantom, models.Buxton()))
    )
    assert np.allclose(noisy - clean.delta_m, noisy_tissue - tissue.delta_m, atol=1e-4)
    matrix = encoding_matrix(8)
    images = simulate_encoded(arterial, protocol, matrix, tsnr=1.0, seed=0, model=model)
    noise = decode(images, matrix) - clean.delta_m
    assert noise.std() == pytest.approx(noise_sd(tissue, phantom, 1.0), rel=0.05)


def test_signal_of_two_tissues_needs_their_fractions(phantom, protocol):
    model = models.get("partial-volume")
    values = {"cbf_gm": phantom.cbf, "att_gm": phantom.att}
    values |= {"cbf_wm": 0.5 * phantom.cbf, "att_wm": phantom.att + 0.2}
    brain = dataclasses.replace(phantom, values=values)
    with pytest.raises(InputError, match="needs the fractions"):
        noise_free(brain, protocol, model)
    half = np.where(phantom.mask, 0.5, 0.0)
    mixed, grey, white = (
        noise_free(dataclasses.replace(brain, fractions={"gm": gm, "wm": wm}), protocol, model)
        for gm, wm in ((half, half), (2.0 * half, 0.0 * half), (0.0 * half, 2.0 * half))
    )
    assert np.array_equal(mixed.gm, half)
    between = mixed.delta_m[phantom.mask].sum(axis=-1)
    assert (between < grey.delta_m[phantom.mask].sum(axis=-1)).all()
    assert (between > white.delta_m[phantom.mask].sum(axis=-1)).all()


@pytest.mark.parametrize("tsnr", [0.5, 1.5])
def test_noise_has_the_stated_size(phantom, protocol, tsnr):
    clean = noise_free(phantom, protocol)
    expected = float(clean.delta_m[phantom.grey_matter].mean()) / tsnr
    assert noise_sd(clean, phantom, tsnr) == pytest.approx(expected, rel=1e-6)
    noise = simulate(phantom, protocol, tsnr=tsnr, seed=1).delta_m - clean.delta_m
    assert noise.std() == pytest.approx(expected, rel=0.05)
    assert noise.mean() == pytest.approx(0.0, abs=0.1 * expected)


def test_encoded_images_decode_to_the_same_signal_and_noise(phantom, protocol):
    matrix = encoding_matrix(8, "walsh")
    clean = noise_free(phantom, protocol)
    quiet = simulate_encoded(phantom, protocol, matrix, tsnr=np.inf, seed=0)
    assert np.allclose(decode(quiet, matrix), clean.delta_m, atol=1e-3)
    noisy = simulate_encoded(phantom, protocol, matrix, tsnr=1.0, seed=0)
    noise = decode(noisy, matrix) - clean.delta_m
    assert noise.std() == pytest.approx(noise_sd(clean, phantom, 1.0), rel=0.05)


def test_seed_fixes_every_bit(phantom, protocol):
    first, again, other = (
        simulate(phantom, protocol, tsnr=1.5, seed=seed).delta_m for seed in (3, 3, 4)
    )
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


def test_noise_that_is_not_defined_is_refused(phantom, protocol):
    for tsnr in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="tSNR must be positive"):
            simulate(phantom, protocol, tsnr=tsnr, seed=0)
    white = dataclasses.replace(phantom, grey_matter=np.zeros_like(phantom.mask))
    with pytest.raises(InputError, match="no grey matter"):
        simulate(white, protocol, tsnr=1.0, seed=0)
