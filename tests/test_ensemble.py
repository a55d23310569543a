"""What both network methods do: slices, members, seeds, checkpoints, status."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from neural_cases import (
    BOTH,
    BUXTON,
    FIELD,
    PROTOCOL,
    SMALL_PINN,
    WITH_T1,
    maps,
    noisy,
    phantom,
    problem,
)

from asl_pinn.data import Status
from asl_pinn.errors import InputError
from asl_pinn.estimators.covariates import tissue_covariates
from asl_pinn.estimators.neural import field, pinn
from asl_pinn.estimators.neural.domains import (
    batch_of,
    prepared,
    rows_in_turn,
    split_domains,
    stack,
)
from asl_pinn.estimators.neural.outputs import init_params
from asl_pinn.estimators.neural.signal_network import make_time_axis
from asl_pinn.estimators.options import ByParameter
from asl_pinn.models import fix, with_bounds, with_priors
from asl_pinn.problem import split
from asl_pinn.simulation.acquire import noise_free

both = pytest.mark.parametrize("options", BOTH)
LAYOUT = {
    "seed": 0,
    "spatial_dims": 2,
    "coordinate_mm": 120.0,
    "covariates": "tissue",
    "output_scale": ByParameter(1.0),
    "n_folds": 8,
}


def domains(data, model=BUXTON):
    return [part.domain for part in split_domains(problem(data, model), **LAYOUT)]


def one(stacked, number=0):
    return jax.tree.map(lambda leaf: leaf[number], stacked)


@both
def test_maps_and_status_fill_the_valid_voxels(options):
    data = noisy()
    found = maps(data, options)
    valid = data.valid
    for name in ("cbf", "att"):
        assert found[name].shape == data.mask.shape
        assert (found[name][valid] > 0.0).all()
        assert (found[name][~valid] == 0.0).all()
    assert (found.status[valid] == Status.FITTED).all()
    assert (found.status[10, 10] == Status.SKIPPED).all()
    assert (found.status[~data.mask] == Status.OUTSIDE).all()
    assert found.sd == {}
    assert found.noise_sd > 0.0


@both
def test_t1_of_tissue_is_inferred_about_its_prior(options):
    data = noisy()
    data.t1_tissue[:10] = 1.2
    found = maps(data, options, WITH_T1)
    away = (found.t1_tissue - data.t1_tissue)[data.valid]
    assert 0.0 < np.abs(away).max() < 0.5
    assert np.std(away) < 0.2
    assert np.isfinite(found.history["prior"][-1])
    assert "prior" not in maps(data, options).history


@both
def test_a_tight_prior_holds_its_parameter(options):
    model = with_priors(WITH_T1, t1_tissue=(1.5, 1e-3))
    found = maps(noisy(), options, model)
    np.testing.assert_allclose(found.t1_tissue[noisy().valid], 1.5, atol=0.01)


@both
def test_a_held_parameter_has_no_network(options):
    found = maps(noisy(), options, fix(BUXTON, att=1.1))
    assert set(found.values) == {"cbf"}
    assert (found.cbf[noisy().valid] > 0.0).all()


@both
def test_maps_beyond_a_bound_are_told_from_others(options):
    """The networks know no bounds; of a CBF that no brain has, the user must hear."""
    data = noisy()
    low = with_bounds(BUXTON, cbf=(0.0, 50.0))
    found = maps(data, options, low)
    beyond = found.cbf[data.valid] >= 50.0
    assert 0 < beyond.sum() < beyond.size
    np.testing.assert_array_equal(found.status[data.valid] == Status.ON_BOUND, beyond)


def test_networks_start_inside_the_bounds():
    """At their centres; an amplitude never at 0, from where its logarithm could not move."""
    model = with_bounds(BUXTON, att=(0.05, 0.6), cbf=(0.0, 20.0))
    [domain] = domains(noisy(), model)
    cbf, att = domain.outputs.centre.T
    assert (cbf <= 20.0).all()
    assert (att <= 0.6).all()
    empty = dataclasses.replace(noisy(), delta_m=-np.abs(noisy().delta_m))
    [domain] = domains(empty)
    assert (domain.outputs.centre > 0.0).all()


def test_a_prior_sets_the_centre_and_the_scale_of_its_network():
    data = noisy()
    data.t1_tissue[:10] = 1.2
    [domain] = domains(data, WITH_T1)
    np.testing.assert_array_equal(domain.outputs.centre[:, 2], domain.per_voxel.t1_tissue)
    np.testing.assert_allclose(domain.outputs.step[:, 2] * domain.outputs.centre[:, 2], 0.1)
    np.testing.assert_array_equal(domain.outputs.step[:, :2], 1.0)


@both
def test_same_seed_same_bits_and_another_seed_other_bits(options):
    first, again, other = (maps(noisy(), options, seed=seed) for seed in (3, 3, 4))
    assert first.cbf.tobytes() == again.cbf.tobytes()
    assert first.att.tobytes() == again.att.tobytes()
    assert first.cbf.tobytes() != other.cbf.tobytes()


@both
def test_slices_side_by_side_equal_slices_alone(options):
    data = noisy(n_slices=2)
    together = maps(data, options)
    apart = maps(data, dataclasses.replace(options, slices_at_once=1))
    for name in ("cbf", "att"):
        np.testing.assert_allclose(apart[name], together[name], rtol=1e-3)
    np.testing.assert_allclose(apart.history["loss"], together.history["loss"], rtol=1e-3)
    assert not np.allclose(apart.cbf[..., 0], apart.cbf[..., 1], rtol=0.1)


def test_one_network_over_the_volume():
    data = noisy(n_slices=2)
    found = maps(data, dataclasses.replace(FIELD, spatial_dims=3))
    assert (found.cbf[data.valid] > 0.0).all()
    assert not np.allclose(found.cbf[..., 0], found.cbf[..., 1], rtol=1e-2)


def test_four_members_give_standard_deviations():
    data = noisy()
    found = maps(data, dataclasses.replace(FIELD, members=4))
    assert set(found.sd) == {"cbf", "att"}
    for name, sd in found.sd.items():
        relative = sd[data.valid] / found[name][data.valid]
        assert relative.min() > 0.0
        assert relative.max() < 10.0
        assert (sd[~data.valid] == 0.0).all()


def loss_of(options, domain, rest, key):
    if options is FIELD:
        n_inputs = domain.position.shape[1], domain.covariates.shape[1]
        networks = field.parameter_networks(options, rest.model, *n_inputs)
        setup = field.FieldSetup(networks, options.members, 0, options.n_folds, 1e-3, 3.0)
        modules, loss, shared = dict(networks.modules), field.loss, rest
    else:
        axis = make_time_axis(problem(noisy()), "auto")
        resolved = dataclasses.replace(pinn.resolve(options), batch_size=20)
        setup = pinn.make_setup(resolved, rest.model, domain.position.shape[1], axis)
        modules = dict(setup.networks.modules) | {"signal": setup.signal}
        loss, shared = pinn.loss, pinn.Shared(rest, axis)
    draw = jax.vmap(lambda key: init_params(modules, key, jnp.float32))
    params = jax.jit(draw)(jax.random.split(key, options.members))
    return float(jax.jit(loss, static_argnums=0)(setup, params, key, 100, domain, shared)[0])


@both
def test_padding_does_not_count(options):
    whole = prepared(problem(noisy()))
    [part] = split_domains(whole, **LAYOUT)
    lengths = len(part.place), len(part.place) + 50
    first, padded = (
        loss_of(options, one(stack([part.domain], n)), split(whole)[1], jax.random.key(0))
        for n in lengths
    )
    assert first == pytest.approx(padded, rel=1e-5)


def test_resolution_does_not_change_the_coordinates():
    coarse, fine = phantom(), dataclasses.replace(phantom(), affine=np.diag([3.0, 3.0, 6.0, 1.0]))
    extents = []
    for truth in (coarse, fine):
        [domain] = domains(noise_free(truth, PROTOCOL))
        extents.append(np.ptp(domain.position, axis=0))
        np.testing.assert_allclose(domain.position.max(axis=0), extents[-1] / 2.0)
    np.testing.assert_allclose(extents[0], 15 * 6.0 / 120.0, rtol=1e-6)
    np.testing.assert_allclose(extents[0], 2.0 * extents[1], rtol=1e-6)


def test_covariates_are_those_of_the_whole_problem_in_the_order_of_the_voxels():
    whole = problem(noisy())
    [part] = split_domains(whole, **LAYOUT)
    maps_of_tissue = tissue_covariates(whole.tissue, "tissue")
    np.testing.assert_array_equal(part.domain.covariates.T, maps_of_tissue[:, part.place])
    np.testing.assert_array_equal(part.domain.per_voxel.measured.T, whole.measured[:, part.place])


@pytest.mark.parametrize("batch_size", [0, 50, 10_000])
def test_each_voxel_is_seen_in_turn_with_all_measurements(batch_size):
    whole = problem(noisy())
    [part] = split_domains(whole, **LAYOUT)
    n_voxels, padding = len(part.place), 30
    domain = one(stack([part.domain], n_voxels + padding))
    n_rows = batch_size if 0 < batch_size < n_voxels else n_voxels + padding
    seen = np.zeros(n_voxels)
    for step in range(-(-n_voxels // n_rows)):
        batch = batch_of(domain, split(whole)[1], rows_in_turn(domain, batch_size, step))
        assert batch.problem.measured.shape == (7, n_rows)
        real = np.asarray((batch.weight > 0.0).all(axis=0))
        for position in np.asarray(batch.position)[real]:
            seen[(part.domain.position == position).all(axis=1)] += 1
    assert seen.min() == 1.0
    assert seen.sum() == (n_voxels if n_rows > n_voxels else n_rows * -(-n_voxels // n_rows))


def test_slices_with_few_voxels_repeat_them_beside_a_large_one():
    [domain] = domains(noisy())
    few = jax.tree.map(lambda leaf: leaf[:20] if np.ndim(leaf) else leaf, domain)
    few = dataclasses.replace(few, n_voxels=np.asarray(20, np.int32))
    second = one(stack([domain, few], len(domain.position)), 1)
    batch = batch_of(second, split(problem(noisy()))[1], rows_in_turn(second, 50, 3))
    assert (batch.weight > 0.0).all()
    assert len(np.unique(batch.position, axis=0)) == 20


def test_double_precision_on_request():
    with jax.enable_x64(True):
        double = maps(noisy(), FIELD, dtype="float64")
    assert double.cbf.dtype == double.att.dtype == np.float64
    assert maps(noisy(), FIELD).cbf.dtype == np.float32


@both
def test_the_history_has_every_step(options):
    history = maps(noisy(), options).history
    assert {values.shape for values in history.values()} == {(options.steps,)}
    assert np.isfinite(history["loss"]).all()
    if options is SMALL_PINN:
        np.testing.assert_array_equal(np.isnan(history["physics"]), np.arange(40) < 20)


@both
def test_epochs_set_the_number_of_steps(options):
    n_voxels = int(noisy().valid.sum())
    per_epoch = 1 if options is FIELD else -(-n_voxels * 7 // options.batch_size)
    found = maps(noisy(), dataclasses.replace(options, epochs=2, steps=1))
    assert len(found.history["loss"]) == 2 * per_epoch


@both
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"learning_rate": -1.0}, "--learning_rate must be positive"),
        ({"output_scale": ByParameter.of(1.0, att=0.0)}, "--output_scale must be positive"),
        ({"spatial_dims": 1}, "--spatial_dims must be 2 or 3"),
    ],
)
def test_bad_options_are_named(options, wrong, message):
    with pytest.raises(InputError, match=message):
        maps(noisy(), dataclasses.replace(options, **wrong))


def test_a_training_that_diverges_is_named():
    with pytest.raises(InputError, match="neural-field diverged at step"):
        maps(noisy(), dataclasses.replace(FIELD, learning_rate=1e6))


@both
def test_too_few_delays_are_refused(options):
    data = noisy()
    protocol = dataclasses.replace(
        data.protocol, label_duration=data.protocol.label_duration[:2], pld=data.protocol.pld[:2]
    )
    short = dataclasses.replace(
        data, delta_m=data.delta_m[..., :2], n_averages=data.n_averages[:2], protocol=protocol
    )
    with pytest.raises(InputError, match=r"2 delay\(s\)"):
        maps(short, options)


def test_no_files_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    maps(noisy(), FIELD)
    assert list(tmp_path.iterdir()) == []


def test_other_options_or_data_do_not_resume(tmp_path):
    maps(noisy(), FIELD, checkpoint_dir=tmp_path)
    other = dataclasses.replace(FIELD, learning_rate=3e-3)
    resumed = maps(noisy(), other, checkpoint_dir=tmp_path)
    assert resumed.cbf.tobytes() == maps(noisy(), other).cbf.tobytes()
    assert len(list(tmp_path.iterdir())) == 2
    maps(noisy(), FIELD, with_bounds(BUXTON, att=(0.1, 3.0)), checkpoint_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


KILLED = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
from neural_cases import maps, noisy
from test_ensemble import LONG
found = maps(noisy(), LONG, checkpoint_dir=Path({folder!r}))
np.savez({output!r}, cbf=found.cbf, att=found.att)
"""
LONG = dataclasses.replace(FIELD, steps=200, patience=100.0, checkpoint_every=20)


def test_resuming_in_the_second_stage_ends_in_the_same_bits(tmp_path):
    uninterrupted = maps(noisy(), SMALL_PINN, checkpoint_dir=tmp_path)
    (last,) = tmp_path.glob("*/group-1/40")
    shutil.rmtree(last)
    assert sorted(path.name for path in last.parent.iterdir()) == ["30"]
    resumed = maps(noisy(), SMALL_PINN, checkpoint_dir=tmp_path)
    assert resumed.cbf.tobytes() == uninterrupted.cbf.tobytes()
    np.testing.assert_array_equal(np.isnan(resumed.history["loss"]), np.arange(40) < 30)


def test_killed_and_resumed_training_ends_in_the_same_bits(tmp_path):
    folder, output = tmp_path / "state", tmp_path / "maps.npz"
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), output=str(output))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, env=environment)
    while not any(step.name.isdecimal() for step in folder.glob("*/group-1/*")):
        assert process.poll() is None, "ended before its first checkpoint"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    subprocess.run(command, env=environment, check=True)
    resumed = np.load(output)
    uninterrupted = maps(noisy(), LONG)
    assert resumed["cbf"].tobytes() == uninterrupted.cbf.tobytes()
    assert resumed["att"].tobytes() == uninterrupted.att.tobytes()
