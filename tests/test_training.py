import io
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asl_pinn.errors import InputError
from asl_pinn.estimators.neural.training import Objective, advance, start, train
from asl_pinn.io.checkpoints import Checkpoints, fingerprint

N_REPLICAS = 3
KEYS = jax.random.split(jax.random.key(7), N_REPLICAS)
TARGETS = jnp.arange(12.0).reshape(N_REPLICAS, 4)


def noisy_squares(setup, params, key, step, target, shared):
    """Squares about a target that is seen through noise, as with drawn batches."""
    seen = target + 0.1 * jax.random.normal(key, target.shape)
    return jnp.sum((params["x"] - seen) ** 2), {"held_out": jnp.abs(params["x"] - shared).max()}


def exploding(setup, params, key, step, target, shared):
    bad = jnp.where(step == 12, setup, 1.0)
    return bad * (1.0 + jnp.sum((params["x"] - target) ** 2)), {}


def adam(setup):
    return optax.adam(0.1)


SQUARES = Objective(noisy_squares, adam, None)
WATCHED = SQUARES._replace(monitor="held_out", memory=1)


def zeros():
    return {"x": jnp.zeros_like(TARGETS)}


def run(objective=SQUARES, steps=200, **kwargs):
    keywords = {"shared": 0.0, "steps": steps, "report_every": 25, **kwargs}
    return train(objective, start(objective, zeros()), KEYS, TARGETS, **keywords)[0]


def bits(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def test_it_finds_the_minimum():
    np.testing.assert_allclose(run(steps=400).best["x"], TARGETS, atol=0.2)


def test_same_keys_same_bits_and_other_keys_other_bits():
    assert bits(run()) == bits(run())
    keys = jax.random.split(jax.random.key(8), N_REPLICAS)
    other, _ = train(SQUARES, start(SQUARES, zeros()), keys, TARGETS, shared=0.0, steps=200)
    assert bits(other) != bits(run())


@pytest.mark.parametrize("report_every", [1, 7, 300])
def test_reports_do_not_change_the_result(report_every):
    assert bits(run(report_every=report_every)) == bits(run())


def test_replicas_do_not_mix():
    alone, _ = train(
        SQUARES,
        start(SQUARES, {"x": jnp.zeros((1, 4))}),
        KEYS[1:2],
        TARGETS[1:2],
        shared=0.0,
        steps=200,
    )
    np.testing.assert_allclose(alone.best["x"][0], run().best["x"][1], rtol=1e-6)


def test_it_compiles_once_for_all_steps():
    traced = []

    def counting(setup, *arguments):
        traced.append(setup)
        return noisy_squares(setup, *arguments)

    counted = SQUARES._replace(loss=counting)
    run(counted, steps=130)
    once = len(traced)
    run(counted, steps=170)
    run(counted._replace(setup=None), steps=20)
    assert 0 < len(traced) == once


def test_nothing_passes_to_or_from_the_host_between_two_reports():
    state = start(SQUARES, zeros())
    arguments = jax.device_put((state, KEYS, TARGETS, 0.0, 25))
    program = advance.lower(SQUARES, *arguments, length=25)
    assert not re.search("callback|infeed|outfeed|send|recv", program.as_text())
    with jax.transfer_guard("disallow"):
        state, _ = advance(SQUARES, *arguments, length=25)
        jax.block_until_ready(state)


def test_monitored_parameters_are_those_of_the_lowest_value():
    """The metric is lowest at the start, from where the parameters run away from 0."""
    watched, unwatched = run(WATCHED), run()
    assert (np.asarray(watched.lowest_step) <= 1).all()
    assert np.abs(watched.best["x"]).max() <= 0.11
    assert np.abs(unwatched.best["x"]).max() > 5.0
    np.testing.assert_array_equal(watched.params["x"], unwatched.params["x"])


def test_kept_parameters_are_a_running_mean():
    def falling(setup, params, key, step, target, shared):
        loss, _ = noisy_squares(setup, params, key, step, target, shared)
        return loss, {"held_out": 100.0 - step}

    memory, steps = 4, 9
    mean = zeros()["x"]
    for count in range(1, steps + 1):
        mean += (run(steps=count).params["x"] - mean) / memory
    state = run(WATCHED._replace(loss=falling, memory=memory), steps=steps)
    np.testing.assert_allclose(state.best["x"], mean, rtol=1e-6)


@pytest.mark.parametrize("report_every", [1, 10])
def test_patience_ends_a_training_early(report_every):
    patient = WATCHED._replace(patience=4.0, memory=5)
    state = run(patient, report_every=report_every)
    assert (np.asarray(state.step) < 60).all()
    assert bits(state.best) == bits(run(patient, report_every=25).best)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
@pytest.mark.parametrize("report_every", [5, 100])
def test_a_bad_loss_names_its_step(bad, report_every):
    objective = Objective(exploding, adam, bad)
    with pytest.raises(InputError, match="fit of slices diverged at step 13"):
        run(objective, label="fit of slices", report_every=report_every)


@pytest.mark.parametrize("report_every", [7, 300])
def test_the_history_has_each_step_once(report_every):
    _, history = train(
        WATCHED,
        start(WATCHED, zeros()),
        KEYS,
        TARGETS,
        shared=0.0,
        steps=40,
        report_every=report_every,
    )
    assert {name: values.shape for name, values in history.items()} == {
        "loss": (40, N_REPLICAS),
        "held_out": (40, N_REPLICAS),
    }
    np.testing.assert_allclose(history["held_out"][1], 0.1, rtol=1e-4)  # after one step of 0.1
    assert (np.diff(history["loss"], axis=0).mean(axis=0) < 0.0).all()


def test_an_interrupted_run_ends_in_the_same_bits(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", every=50)
    run(WATCHED, steps=70, checkpoints=checkpoints)
    resumed = run(WATCHED, steps=200, checkpoints=checkpoints)
    assert bits(resumed) == bits(run(WATCHED))


def test_a_finished_run_is_read_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, every=50)
    finished = run(checkpoints=checkpoints)
    again, _ = train(
        SQUARES,
        start(SQUARES, {"x": jnp.full_like(TARGETS, 99.0)}),
        KEYS,
        TARGETS,
        shared=0.0,
        steps=200,
        checkpoints=checkpoints,
    )
    assert bits(again) == bits(finished)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("progress", "drawn"), [(True, True), (False, False)])
def test_progress_bar_shows_the_losses_on_a_terminal(monkeypatch, progress, drawn):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(progress=progress, label="some fit")
    assert ("some fit" in terminal.getvalue() and "loss=" in terminal.getvalue()) == drawn


def test_no_progress_bar_without_a_terminal(capsys):
    run(progress=True)
    assert capsys.readouterr() == ("", "")


def test_fingerprints_tell_values_types_and_order():
    values = np.arange(3.0)
    distinct = [
        (values, 1),
        (values, 2),
        (1, values),
        (values.astype(np.float32), 1),
        (values[::-1], 1),
        (values + 1e-15, 1),
        ({"a": values}, 1),
    ]
    names = [fingerprint(*parts) for parts in distinct]
    assert len(set(names)) == len(names)
    assert fingerprint(values.copy(), 1) == fingerprint(values, 1)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        run(checkpoints=Checkpoints(tmp_path / "file" / "run", every=50))
