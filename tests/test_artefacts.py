import numpy as np

from asl_pinn.simulation import artefacts
from asl_pinn.simulation.acquire import noise_free


def test_outliers_are_as_many_and_as_large_as_asked_for(phantom, protocol):
    data = noise_free(phantom, protocol)
    changed = artefacts.with_outliers(data, 0.3, 0.5, seed=0).delta_m - data.delta_m
    hit = (changed != 0.0).any(axis=-1)
    assert not hit[~data.mask].any()
    assert np.isclose(hit[data.mask].mean(), 0.3, atol=0.08)
    assert np.isclose(changed[hit].std(), 5.0, rtol=0.1)


def test_motion_hits_one_delay(phantom, protocol):
    data = noise_free(phantom, protocol)
    changed = artefacts.with_noisy_delay(data, 2, 0.5, seed=0).delta_m - data.delta_m
    assert np.isclose(changed[data.mask][:, 2].std(), 1.5, rtol=0.15)
    assert (np.delete(changed, 2, axis=-1) == 0.0).all()


def test_wrong_constants_are_what_the_estimator_sees(phantom, protocol):
    data = noise_free(phantom, protocol)
    assert np.allclose(artefacts.with_wrong_t1(data, 1.1).t1_tissue, 1.1 * data.t1_tissue)
    wrong = artefacts.with_wrong_efficiency(data, 1.1).protocol.labeling_efficiency
    assert np.isclose(wrong, 1.1 * protocol.labeling_efficiency)


def test_rician_images_have_the_noise_and_the_bias_of_a_magnitude():
    images = np.full(200_000, 3.0)
    noisy = artefacts.rician(images, 1.0, seed=0)
    assert np.isclose(np.mean(noisy.astype(float) ** 2), 3.0**2 + 2.0, rtol=0.01)
    assert noisy.min() >= 0.0
