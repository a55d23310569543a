import numpy as np
import pytest

from asl_pinn.estimators.covariates import tissue_covariates
from asl_pinn.models import Tissue

RNG = np.random.default_rng(0)
M0 = RNG.uniform(500.0, 1500.0, 200).astype(np.float32)
T1 = RNG.uniform(0.8, 2.0, 200).astype(np.float32)


@pytest.mark.parametrize("squares", [False, True])
def test_covariates_are_standardised_m0_and_relaxation_rate(squares):
    found = tissue_covariates(Tissue(M0, T1), "tissue", squares=squares)
    assert found.shape == ((4 if squares else 2), 200)
    assert found.dtype == np.float32
    assert np.allclose(found.mean(axis=1), 0.0, atol=1e-5)
    linear = found[:: 2 if squares else 1]
    assert np.allclose(linear.std(axis=1), 1.0, atol=1e-5)
    for row, values in zip(linear, (M0, 1.0 / T1), strict=True):
        assert np.corrcoef(row, values)[0, 1] > 0.9999


def test_maps_that_say_nothing_are_left_out():
    flat = np.full(200, 1.33, np.float32)
    assert tissue_covariates(Tissue(M0, flat), "tissue", squares=True).shape == (2, 200)
    assert tissue_covariates(Tissue(flat, flat), "tissue").shape == (0, 200)
    assert tissue_covariates(Tissue(M0, T1), "none").shape == (0, 200)
