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
from absl import flags

from asl_pinn import kinetics
from asl_pinn.data import AslData, Phantom, Status
from asl_pinn.errors import InputError
from asl_pinn.estimators import get_estimator
from asl_pinn.estimators.pinn import PinnOptions, fit, losses, models
from asl_pinn.estimators.pinn.models import init_params, make_setting
from asl_pinn.estimators.pinn.scene import split, stack
from asl_pinn.execution import Execution
from asl_pinn.options import define_flags, options_from_flags, resolve
from asl_pinn.protocol import Protocol, label_durations, time_encoded_protocol
from asl_pinn.simulate import noise_free, simulate

PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 7, 4.0), 0.1)
UNEVEN = time_encoded_protocol([1.8, 0.8, 0.4, 0.15, 0.15, 0.1, 0.1], 0.17)
TINY = {
    "members": 2,
    "network_width": 8,
    "network_depth": 2,
    "signal_width": 8,
    "signal_depth": 2,
    "report_every": 10,
    "checkpoint_every": 10,
}
FAST = PinnOptions(**TINY, steps=30)
PAPER = PinnOptions(**TINY, preset="paper", steps=40, signal_steps=20, batch_size=20)


def phantom(n_slices: int = 1) -> Phantom:
    """A disc whose maps vary slowly."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 20)] * 2, np.arange(n_slices), indexing="ij")
    mask = x**2 + y**2 < 0.8
    return Phantom(
        cbf=np.where(mask, 50.0 + 15.0 * np.sin(2.0 * x + z) * np.cos(1.5 * y), 0.0),
        att=np.where(mask, 1.1 + 0.3 * np.cos(2.0 * y - x + z), 0.0),
        m0=np.where(mask, 1000.0 + 100.0 * x, 0.0),
        t1_tissue=np.full(mask.shape, 1.33),
        mask=mask,
        grey_matter=mask,
        affine=np.diag([6.0, 6.0, 6.0, 1.0]),
    )


def noisy(n_slices: int = 1, protocol: Protocol = PROTOCOL) -> AslData:
    """With a voxel in the mask that cannot be fitted."""
    data = simulate(phantom(n_slices), protocol, tsnr=2.0, seed=0)
    data.delta_m[10, 10] = np.nan
    return data


def test_smooth_maps_without_noise_are_recovered_to_a_few_percent():
    truth = phantom()
    options = PinnOptions(steps=300, members=2, learning_rate=3e-3)
    maps = fit(noise_free(truth, PROTOCOL), options, Execution())
    for estimate, true in ((maps.cbf, truth.cbf), (maps.att, truth.att)):
        error = np.abs(estimate - true)[truth.mask] / true[truth.mask]
        assert np.mean(error) < 0.02
        assert error.max() < 0.15


@pytest.mark.parametrize("options", [FAST, PAPER])
def test_maps_and_status_fill_the_valid_voxels(options):
    data = noisy()
    maps = fit(data, options, Execution())
    valid = data.valid
    assert maps.cbf.shape == maps.att.shape == maps.status.shape == data.mask.shape
    assert (maps.cbf[valid] > 0.0).all()
    assert (maps.att[valid] > 0.0).all()
    assert (maps.cbf[~valid] == 0.0).all()
    assert (maps.att[~valid] == 0.0).all()
    assert (maps.status[valid] == Status.FITTED).all()
    assert (maps.status[10, 10] == Status.SKIPPED).all()
    assert (maps.status[~data.mask] == Status.OUTSIDE).all()
    assert maps.cbf_sd is None
    assert maps.noise_sd > 0.0


@pytest.mark.parametrize("options", [FAST, PAPER])
def test_same_seed_same_bits_and_another_seed_other_bits(options):
    first, again, other = (fit(noisy(), options, Execution(seed=seed)) for seed in (3, 3, 4))
    assert first.cbf.tobytes() == again.cbf.tobytes()
    assert first.att.tobytes() == again.att.tobytes()
    assert first.cbf.tobytes() != other.cbf.tobytes()


@pytest.mark.parametrize("options", [FAST, PAPER])
def test_slices_side_by_side_equal_slices_alone(options):
    data = noisy(n_slices=2)
    together = fit(data, options, Execution())
    apart = fit(data, dataclasses.replace(options, slices_at_once=1), Execution())
    np.testing.assert_allclose(apart.cbf, together.cbf, rtol=1e-3)
    np.testing.assert_allclose(apart.att, together.att, rtol=1e-3)
    assert not np.allclose(apart.cbf[..., 0], apart.cbf[..., 1], rtol=0.1)


@pytest.mark.parametrize("options", [FAST, PAPER])
def test_padding_does_not_count(options):
    options = resolve(options)
    data = noisy()
    setting = make_setting(data, "auto")
    [part], _ = split(data, options, 0, np.dtype(np.float32))
    step, key = jnp.asarray(100), jax.random.key(0)
    values = []
    for length in (len(part.place), len(part.place) + 50):
        scene = jax.tree.map(lambda leaf: leaf[0], stack([part.scene], length))
        draw = jax.vmap(lambda key, scene=scene: init_params(options, key, scene, setting))
        params = jax.jit(draw)(jax.random.split(key, options.members))
        loss = jax.jit(losses.loss, static_argnums=0)
        values.append(float(loss(options, params, key, step, scene, setting)[0]))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_one_network_over_the_volume():
    data = noisy(n_slices=2)
    maps = fit(data, dataclasses.replace(FAST, spatial_dims=3), Execution())
    assert (maps.cbf[data.valid] > 0.0).all()
    assert not np.allclose(maps.cbf[..., 0], maps.cbf[..., 1], rtol=1e-2)


def test_resolution_does_not_change_the_coordinates():
    coarse, fine = phantom(), phantom()
    fine = dataclasses.replace(fine, affine=np.diag([3.0, 3.0, 6.0, 1.0]))
    extents = []
    for truth in (coarse, fine):
        data = noise_free(truth, PROTOCOL)
        [part], _ = split(data, resolve(PinnOptions()), 0, np.dtype(np.float32))
        extents.append(np.ptp(part.scene.position, axis=0))
        np.testing.assert_allclose(part.scene.position.max(axis=0), extents[-1] / 2.0)
    np.testing.assert_allclose(extents[0], 15 * 6.0 / 120.0, rtol=1e-6)
    np.testing.assert_allclose(extents[0], 2.0 * extents[1], rtol=1e-6)


def test_training_reduces_the_loss():
    data = noisy()
    truth = phantom()
    errors = []
    for steps in (1, 150):
        maps = fit(data, dataclasses.replace(FAST, steps=steps, held_out=0.0), Execution())
        errors.append(np.mean((maps.cbf - truth.cbf) ** 2))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("batch_size", [0, 50, 10_000])
def test_each_voxel_is_seen_in_turn_with_all_delays(batch_size):
    options = resolve(PinnOptions(batch_size=batch_size))
    [part], _ = split(noisy(), options, 0, np.dtype(np.float32))
    n_voxels, padding = len(part.place), 30
    scene = jax.tree.map(lambda leaf: leaf[0], stack([part.scene], n_voxels + padding))
    n_rows = batch_size if 0 < batch_size < n_voxels else n_voxels + padding
    seen = np.zeros(n_voxels)
    for step in range(-(-n_voxels // n_rows)):
        arguments = jax.random.key(0), jnp.asarray(0), jnp.asarray(step), scene
        batch = losses._draw(options, *arguments)
        assert batch.delta_m.shape == (n_rows, 7)
        np.testing.assert_array_equal(batch.delta_m, batch.voxels.delta_m)
        real = (batch.seen + batch.unseen > 0.0).all(axis=1)
        where = [np.flatnonzero((part.scene.position == row).all(axis=1)) for row in batch.position]
        np.add.at(seen, np.concatenate(where)[real], 1)
    assert seen.min() == 1.0
    assert seen.sum() == (n_voxels if n_rows > n_voxels else n_rows * -(-n_voxels // n_rows))


def test_slices_with_few_voxels_repeat_them_beside_a_large_one():
    options = resolve(PinnOptions(batch_size=50))
    [part], _ = split(noisy(), options, 0, np.dtype(np.float32))
    few = jax.tree.map(lambda leaf: leaf[:20] if np.ndim(leaf) else leaf, part.scene)
    few = dataclasses.replace(few, n_voxels=np.asarray(20, np.int32))
    scene = jax.tree.map(lambda leaf: leaf[1], stack([part.scene, few], len(part.place)))
    arguments = jax.random.key(0), jnp.asarray(0), jnp.asarray(3), scene
    batch = losses._draw(options, *arguments)
    assert (batch.seen + batch.unseen > 0.0).all()
    assert len(np.unique(batch.position, axis=0)) == 20


@pytest.mark.parametrize("collocation", ["data", "random"])
@pytest.mark.parametrize("bolus", ["spline5", "monotone", "per_bolus"])
def test_buxtons_curve_solves_the_physics(monkeypatch, bolus, collocation):
    """The residual is that of the curve's own slope, at other maps it is not small."""
    truth = phantom()
    data = noise_free(truth, PROTOCOL)
    with jax.enable_x64(True):
        options = resolve(
            PinnOptions(
                preset="paper",
                batch_size=0,
                batch_delays="all",
                slope_window=0.0,
                collocation=collocation,
            )
        )
        setting = make_setting(data, bolus)
        [part], _ = split(data, options, 0, np.dtype(np.float64))
        scene = jax.tree.map(lambda leaf: leaf[0], stack([part.scene], len(part.place)))
        true = [jnp.asarray(volume[truth.mask][part.place]) for volume in (truth.cbf, truth.att)]

        def curve(options, params, t, label_duration, position, setting):
            if setting.spline is not None:
                label_duration = losses.label_duration_at(setting.spline, t)[0]
            voxels = scene.voxels
            value = kinetics.delta_m(
                *(values[:, None] for values in true),
                t,
                label_duration,
                m0=voxels.m0[:, None],
                t1_tissue=voxels.t1_tissue[:, None],
            )
            return value / scene.signal_unit

        def both(options, params, t, slope_t, *rest):
            _, slope = jax.jvp(
                lambda t: curve(options, params, t, *rest), (slope_t,), (jnp.ones_like(t),)
            )
            return curve(options, params, t, *rest), slope

        monkeypatch.setattr(losses, "signal_and_slope", both)
        terms = {}
        for name, factor in (("exact", 1.0), ("wrong", 1.2)):
            maps = factor * true[0], true[1]
            monkeypatch.setattr(losses, "perfusion", lambda *_, maps=maps: maps)
            step, nothing = jnp.asarray(options.signal_steps), jnp.zeros((options.members, 1))
            _, metrics = losses.loss(options, nothing, jax.random.key(0), step, scene, setting)
            terms[name] = jax.tree.map(float, metrics)
    assert terms["exact"]["physics"] < 1e-12
    assert terms["exact"]["signal"] < 1e-8
    assert terms["wrong"]["physics"] > 1e-2


@pytest.mark.parametrize("bolus", ["spline5", "per_bolus"])
def test_slopes_in_one_pass_are_those_of_forward_differentiation(bolus):
    data = noise_free(phantom(), PROTOCOL)
    options = resolve(PinnOptions(preset="paper", signal_width=16, signal_depth=3))
    with jax.enable_x64(True):
        setting = make_setting(data, bolus)
        [part], _ = split(data, options, 0, np.dtype(np.float64))
        params = init_params(options, jax.random.key(0), part.scene, setting)
        position = jnp.asarray(part.scene.position[:5])
        draws = jax.random.uniform(jax.random.key(1), (3, 5, 2), jnp.float64, 0.5, 2.5)
        t, slope_t, label_duration = draws

        def value(t):
            return models.signal(options, params, t, label_duration, position, setting)

        _, slope = jax.jvp(value, (slope_t,), (jnp.ones_like(t),))
        times = t, slope_t, label_duration
        found = models.signal_and_slope(options, params, *times, position, setting)
        np.testing.assert_allclose(found[0], value(t), rtol=1e-12)
        np.testing.assert_allclose(found[1], slope, rtol=1e-10)


@pytest.mark.parametrize("bolus", ["spline5", "per_bolus"])
def test_windowed_slope_is_the_mean_of_the_slope(bolus):
    data = noise_free(phantom(), PROTOCOL)
    options = resolve(PinnOptions(preset="paper", slope_window=0.4))
    with jax.enable_x64(True):
        setting = make_setting(data, bolus)
        [part], _ = split(data, options, 0, np.dtype(np.float64))
        voxel = jax.tree.map(lambda leaf: leaf[:1], part.scene.voxels)
        cbf, att, label_duration = (jnp.asarray([value]) for value in (60.0, 1.2, 0.4))

        def slope(window, t):
            windowed = dataclasses.replace(options, slope_window=window)
            return losses._expected_slope(
                windowed, cbf, att, t[None], label_duration[:, None], voxel, setting
            )[0]

        t = jnp.linspace(0.8, 2.5, 18)
        shifts = 0.4 * ((np.arange(4000) + 0.5) / 4000 - 0.5)
        mean = slope(0.0, (t[:, None] + shifts).ravel()).reshape(18, 4000).mean(axis=1)
        np.testing.assert_allclose(slope(0.4, t), mean, atol=1e-3 * float(jnp.abs(mean).max()))


@pytest.mark.parametrize(
    ("protocol", "bolus", "kind"),
    [
        (PROTOCOL, "auto", "spline5"),
        (UNEVEN, "auto", "monotone"),
        (PROTOCOL, "monotone", "monotone"),
        (PROTOCOL, "per_bolus", None),
    ],
)
def test_bolus_kind_suits_the_protocol(protocol, bolus, kind):
    spline = make_setting(noisy(protocol=protocol), bolus).spline
    assert (None if spline is None else spline.kind) == kind


def test_a_spline_that_swings_is_refused():
    with pytest.raises(InputError, match="per_bolus"):
        make_setting(noisy(protocol=UNEVEN), "spline5")


def test_per_bolus_training_runs_where_the_spline_is_refused():
    options = dataclasses.replace(PAPER, bolus="per_bolus")
    maps = fit(noisy(protocol=UNEVEN), options, Execution())
    assert (maps.cbf[noisy().valid] > 0.0).all()


def test_double_precision_on_request():
    with jax.enable_x64(True):
        maps = fit(noisy(), FAST, Execution(dtype=np.dtype(np.float64)))
    assert maps.cbf.dtype == maps.att.dtype == np.float64
    assert fit(noisy(), FAST, Execution()).cbf.dtype == np.float32


def test_presets_give_way_to_what_the_user_set():
    paper = resolve(PinnOptions(preset="paper"))
    assert (paper.steps, paper.batch_size, paper.learning_rate) == (30000, 150, 1e-4)
    assert (paper.signal_depth, paper.signal_width) == (7, 256)
    assert (paper.network_depth, paper.network_width) == (4, 128)
    assert resolve(PinnOptions(preset="paper", steps=7, held_out=0.0)).steps == 7
    assert resolve(PinnOptions(held_out=0.0)).held_out == 0.0
    assert None not in dataclasses.astuple(resolve(PinnOptions()))


def test_flags_leave_to_the_preset_what_the_user_did_not_set():
    values = flags.FlagValues()
    define_flags({"pinn": PinnOptions}, values)
    values(["program", "--preset=paper", "--steps=7", "--noseparate_networks"])
    options = options_from_flags(PinnOptions, values)
    assert options == PinnOptions(preset="paper", steps=7, separate_networks=False)
    assert "1200 with --preset=fast, 30000 with --preset=paper" in values["steps"].help


def test_epochs_set_the_number_of_steps():
    once = dataclasses.replace(FAST, epochs=30, steps=7)
    assert (
        fit(noisy(), once, Execution()).cbf.tobytes()
        == fit(noisy(), FAST, Execution()).cbf.tobytes()
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"learning_rate": -1.0}, "--learning_rate must be positive"),
        ({"held_out": 0.9}, "--held_out must be at most"),
        ({"spatial_dims": 1}, "--spatial_dims must be 2 or 3"),
        ({"data_weight": 0.0}, "nothing ties CBF and ATT to the data"),
        ({"learning_rate": 1e6}, "pinn diverged at step"),
    ],
)
def test_bad_options_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        fit(noisy(), dataclasses.replace(FAST, **wrong), Execution())


def test_registered():
    assert get_estimator("pinn").options is PinnOptions


def test_no_files_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(noisy(), FAST, Execution())
    assert list(tmp_path.iterdir()) == []


def test_other_options_or_data_do_not_resume(tmp_path):
    execution = Execution(checkpoint_dir=tmp_path)
    fit(noisy(), FAST, execution)
    other = dataclasses.replace(FAST, learning_rate=3e-3)
    resumed = fit(noisy(), other, execution)
    assert resumed.cbf.tobytes() == fit(noisy(), other, Execution()).cbf.tobytes()
    assert len(list(tmp_path.iterdir())) == 2


KILLED = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
from test_pinn import LONG, noisy
from asl_pinn.estimators.pinn import fit
from asl_pinn.execution import Execution
maps = fit(noisy(), LONG, Execution(checkpoint_dir=Path({folder!r})))
np.savez({output!r}, cbf=maps.cbf, att=maps.att)
"""
LONG = dataclasses.replace(FAST, steps=200, patience=100.0, checkpoint_every=20)


def test_resuming_in_the_second_stage_ends_in_the_same_bits(tmp_path):
    execution = Execution(checkpoint_dir=tmp_path)
    uninterrupted = fit(noisy(), PAPER, execution)
    (last,) = tmp_path.glob("*/group-1/40")
    shutil.rmtree(last)
    assert sorted(path.name for path in last.parent.iterdir()) == ["30"]
    assert fit(noisy(), PAPER, execution).cbf.tobytes() == uninterrupted.cbf.tobytes()


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
    uninterrupted = fit(noisy(), LONG, Execution())
    assert resumed["cbf"].tobytes() == uninterrupted.cbf.tobytes()
    assert resumed["att"].tobytes() == uninterrupted.att.tobytes()
