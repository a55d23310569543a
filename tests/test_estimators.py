"""The contract that every estimator keeps."""

import dataclasses

import jax
import numpy as np
import pytest

from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.estimators import ESTIMATORS, get_estimator
from asl_pinn.execution import Execution
from asl_pinn.simulate import simulate

QUICK: dict[str, dict[str, object]] = {
    "pinn": {"members": 2, "network_width": 32, "steps": 300, "learning_rate": 3e-3},
    "nlls-smoothed": {"spatial_dims": 2, "smoothing_fwhm": 1.0},
    "spatial-map": {"samples": 8, "rounds": 12},
}
"""Options that make a method quick enough for a test, or suit its phantom."""


def fit(method, data, execution=None):
    estimator = get_estimator(method)
    options = estimator.options(**QUICK.get(method, {}))
    return estimator.fit(data, options, execution or Execution())


def methods(*names):
    """Tests of one method after another, so that they share its maps."""
    return pytest.mark.parametrize("method", names or ESTIMATORS, scope="module")


@pytest.fixture(scope="module")
def quiet(phantom, protocol):
    return simulate(phantom, protocol, tsnr=20.0, seed=0)


@pytest.fixture(scope="module")
def maps(method, quiet):
    return fit(method, quiet)


@methods()
def test_maps_are_complete_and_zero_outside_the_mask(maps, quiet):
    outside = ~quiet.mask
    for volume in (maps.cbf, maps.att, maps.cbf_sd, maps.att_sd):
        if volume is not None:
            assert volume.shape == quiet.mask.shape
            assert volume.dtype == np.float32
            assert np.isfinite(volume).all()
            assert (volume[outside] == 0.0).all()
    assert (maps.status[outside] == Status.OUTSIDE).all()
    assert (maps.status[quiet.mask] != Status.OUTSIDE).all()
    assert (maps.att[quiet.mask] > 0.0).all()
    assert (maps.cbf[quiet.mask] >= 0.0).all()


@methods(*(name for name in ESTIMATORS if name != "fixed-att"))
def test_truth_is_recovered_where_noise_is_low(maps, phantom):
    mask = phantom.mask
    for name in ("cbf", "att"):
        found, true = getattr(maps, name)[mask], getattr(phantom, name)[mask]
        assert np.median(np.abs(found / true - 1.0)) < 0.05


@methods()
def test_voxels_without_valid_data_are_skipped_and_change_nothing_else(method, maps, quiet):
    unusable = (1, 1, 0), (12, 11, 1)
    delta_m, m0, mask = quiet.delta_m.copy(), quiet.m0.copy(), quiet.mask.copy()
    for voxel in unusable:
        assert not mask[voxel]
        mask[voxel], delta_m[voxel], m0[voxel] = True, 1.0, 1000.0
    delta_m[unusable[0]][2] = np.nan
    m0[unusable[1]] = 0.0
    again = fit(method, dataclasses.replace(quiet, delta_m=delta_m, m0=m0, mask=mask))
    for voxel in unusable:
        assert again.status[voxel] == Status.SKIPPED
    assert (again.status == Status.SKIPPED).sum() == 2
    assert again.cbf.tobytes() == maps.cbf.tobytes()
    assert again.att.tobytes() == maps.att.tobytes()


@methods()
def test_same_seed_gives_the_same_bits(method, maps, quiet):
    again = fit(method, quiet)
    for a, b in zip(jax.tree.leaves(maps), jax.tree.leaves(again), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@methods()
def test_unit_of_the_signal_does_not_matter(method, maps, quiet):
    scaled = fit(method, dataclasses.replace(quiet, delta_m=64 * quiet.delta_m, m0=64 * quiet.m0))
    assert np.allclose(scaled.cbf, maps.cbf, rtol=1e-3, atol=1e-2)
    assert np.allclose(scaled.att, maps.att, rtol=1e-3, atol=1e-3)


@methods()
def test_float64_is_refused_unless_jax_has_it_and_is_kept_where_it_has(method, quiet):
    with pytest.raises(InputError, match="64-bit"):
        Execution(dtype=np.dtype(np.float64))
    with jax.enable_x64(True):
        maps = fit(method, quiet, Execution(dtype=np.dtype(np.float64)))
    assert maps.cbf.dtype == np.float64


@methods()
def test_nothing_to_fit_is_an_error(method, quiet):
    empty = dataclasses.replace(quiet, mask=np.zeros_like(quiet.mask))
    with pytest.raises(InputError, match="no voxel can be fitted"):
        fit(method, empty)


def test_unknown_methods_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="nlls"):
        get_estimator("magic")
