"""The contract that every estimator keeps, with every model."""

import dataclasses

import jax
import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator, method_names
from asl_pinn.simulation.acquire import simulate

QUICK: dict[str, dict[str, object]] = {
    "neural-field": {"members": 4, "width": 32, "steps": 300, "learning_rate": 3e-3},
    "pinn": {
        "steps": 100,
        "signal_steps": 40,
        "batch_size": 64,
        "ode_width": 16,
        "signal_width": 16,
    },
    "nlls-smoothed": {"spatial_dims": 2, "smoothing_fwhm": 1.0},
    "spatial-map": {"samples": 8, "rounds": 12},
}
"""Options that make a method quick enough for a test, or suit its phantom."""

MODELS = ("buxton", "buxton+t1")

COARSE = ("pinn",)
"""Methods that need more steps than a test has to come near the truth."""


def fit(method, data, model="buxton", context=None):
    estimator = get_estimator(method)
    options = estimator.options(**QUICK.get(method, {}))
    chosen = models.get(model)
    return estimate_maps(data, method, estimator, chosen, options, context or RunContext())


def methods(*names):
    """Tests of one method after another, so that they share its maps."""
    return pytest.mark.parametrize("method", names or method_names(), scope="module")


every_model = pytest.mark.parametrize("model", MODELS, scope="module")


@pytest.fixture(scope="module")
def quiet(phantom, protocol):
    return simulate(phantom, protocol, tsnr=20.0, seed=0)


@pytest.fixture(scope="module")
def maps(method, model, quiet):
    return fit(method, quiet, model)


@methods()
@every_model
def test_maps_are_complete_and_zero_outside_the_mask(maps, quiet):
    outside = ~quiet.mask
    assert tuple(maps.values) == maps.model.names
    for volume in (*maps.values.values(), *maps.sd.values()):
        assert volume.shape == quiet.mask.shape
        assert volume.dtype == np.float32
        assert np.isfinite(volume).all()
        assert (volume[outside] == 0.0).all()
    assert (maps.status[outside] == Status.OUTSIDE).all()
    assert (maps.status[quiet.mask] != Status.OUTSIDE).all()
    for name in maps.model.names:
        assert (maps[name][quiet.mask] >= 0.0).all()


@methods(*(name for name in method_names() if name not in COARSE))
@every_model
def test_truth_is_recovered_where_noise_is_low(maps, phantom):
    mask = phantom.mask
    for name, true in phantom.truth(maps.model).items():
        assert np.median(np.abs(maps[name][mask] / true[mask] - 1.0)) < 0.05


@methods(*(name for name in method_names() if name not in COARSE))
@every_model
def test_every_parameter_has_a_standard_deviation_of_the_size_of_its_errors(maps, phantom):
    """SDs ten times too small or too large fail."""
    mask = phantom.mask & (maps.status == Status.FITTED)
    for name, true in phantom.truth(maps.model).items():
        sd = maps.sd[name][mask]
        assert (sd > 0.0).all()
        if maps.model[name].prior is None or maps.model[name].prior.weak:
            errors = np.abs(maps[name][mask] - true[mask])
            assert 0.1 < np.median(errors) / (0.674 * np.median(sd)) < 4.0


@methods()
@every_model
def test_voxels_without_valid_data_are_skipped_and_change_nothing_else(method, model, maps, quiet):
    unusable = (1, 1, 0), (12, 11, 1)
    delta_m, m0, mask = quiet.delta_m.copy(), quiet.m0.copy(), quiet.mask.copy()
    for voxel in unusable:
        assert not mask[voxel]
        mask[voxel], delta_m[voxel], m0[voxel] = True, 1.0, 1000.0
    delta_m[unusable[0]][2] = np.nan
    m0[unusable[1]] = 0.0
    again = fit(method, dataclasses.replace(quiet, delta_m=delta_m, m0=m0, mask=mask), model)
    for voxel in unusable:
        assert again.status[voxel] == Status.SKIPPED
    assert (again.status == Status.SKIPPED).sum() == 2
    for name in maps.model.names:
        assert again[name].tobytes() == maps[name].tobytes()


@methods()
@pytest.mark.parametrize("model", MODELS[:1], scope="module")
def test_same_seed_gives_the_same_bits(method, model, maps, quiet):
    again = fit(method, quiet, model)
    for a, b in zip(jax.tree.leaves(maps), jax.tree.leaves(again), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@methods()
@pytest.mark.parametrize("model", MODELS[:1], scope="module")
def test_unit_of_the_signal_does_not_matter(method, model, maps, quiet):
    scaled = dataclasses.replace(quiet, delta_m=64 * quiet.delta_m, m0=64 * quiet.m0)
    again = fit(method, scaled, model)
    for name in maps.model.names:
        assert np.allclose(again[name], maps[name], rtol=1e-3, atol=1e-2 * maps.model[name].scale)


@methods()
def test_float64_is_refused_unless_jax_has_it_and_is_kept_where_it_has(method, quiet):
    wide = RunContext(dtype="float64")
    with pytest.raises(InputError, match="64-bit"):
        fit(method, quiet, context=wide)
    with jax.enable_x64(True):
        maps = fit(method, quiet, context=wide)
    assert maps.cbf.dtype == np.float64


@methods()
def test_nothing_to_fit_is_an_error(method, quiet):
    empty = dataclasses.replace(quiet, mask=np.zeros_like(quiet.mask))
    with pytest.raises(InputError, match="no voxel can be fitted"):
        fit(method, empty)


@methods()
def test_bounds_of_the_model_reach_every_method(method, quiet):
    """Values beyond a bound are on it or flagged, never fitted in silence."""
    narrow = models.with_bounds(models.get("buxton"), att=(1.1, 1.3), cbf=(0.0, 50.0))
    estimator = get_estimator(method)
    options = estimator.options(**QUICK.get(method, {}))
    maps = estimate_maps(quiet, method, estimator, narrow, options, RunContext())
    fitted = maps.status == Status.FITTED
    assert method in COARSE or (maps.status == Status.ON_BOUND).any()
    for p in narrow.parameters:
        assert (maps[p.name][fitted] >= p.lower).all()
        assert (maps[p.name][fitted] <= p.upper).all()


def test_unknown_methods_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="nlls"):
        get_estimator("magic")
