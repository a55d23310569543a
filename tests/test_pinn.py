import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from neural_cases import (
    ARTERIAL,
    BUXTON,
    PROTOCOL,
    SMALL_PINN,
    UNEVEN,
    WITH_T1,
    maps,
    noisy,
    phantom,
    problem,
    with_arteries,
)

from asl_pinn.acquisition.bolus import label_duration_at
from asl_pinn.errors import InputError
from asl_pinn.estimators.neural import PINN, NeuralFieldOptions, PinnOptions, pinn
from asl_pinn.estimators.neural.domains import prepared, split_domains, stack
from asl_pinn.estimators.neural.outputs import init_params
from asl_pinn.estimators.neural.signal_network import make_time_axis, signal, signal_and_slope
from asl_pinn.estimators.neural.siren import Siren
from asl_pinn.estimators.options import ByParameter, define_flags, options_from_flags, resolve
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.models.base import Timing
from asl_pinn.problem import split, take
from asl_pinn.simulation.acquire import noise_free, simulate

EXACT = resolve(PinnOptions(preset="paper", batch_size=0, batch_delays="all", slope_window=0.0))


def one_domain(whole):
    [part] = split_domains(
        whole,
        seed=0,
        spatial_dims=2,
        coordinate_mm=120.0,
        covariates="none",
        output_scale=ByParameter(1.0),
    )
    return part


@pytest.mark.parametrize(
    ("bolus", "collocation", "model"),
    [
        ("spline5", "data", BUXTON),
        ("spline5", "random", WITH_T1),
        ("monotone", "data", BUXTON),
        ("monotone", "random", BUXTON),
        ("per_bolus", "data", WITH_T1),
        ("per_bolus", "random", BUXTON),
        ("spline5", "random", ARTERIAL),
    ],
)
def test_the_models_curve_solves_the_physics(monkeypatch, bolus, collocation, model):
    """The residual is that of the curve's own slope, at other maps it is not small."""
    truth, seen = with_arteries(phantom()), ARTERIAL if model is ARTERIAL else BUXTON
    with jax.enable_x64(True):
        whole = prepared(problem(noise_free(truth, PROTOCOL, seen), model, "float64"))
        axis = make_time_axis(whole, bolus)
        part = one_domain(whole)
        domain = jax.tree.map(lambda leaf: leaf[0], stack([part.domain], len(part.place)))
        known = take(whole, part.place)
        true = np.stack([truth.truth(model)[name][truth.mask] for name in model.names])
        true = jnp.asarray(true[:, part.place])

        def curve(t, label_duration):
            if axis.spline is not None:
                label_duration = label_duration_at(axis.spline, t)[0]
            timing = Timing(t, label_duration)
            return model.signal(list(true), timing, known.tissue, known.blood) / domain.signal_unit

        def both(network, params, t, slope_t, label_duration, position, axis):
            ones = jnp.ones_like(t)
            _, slope = jax.jvp(lambda t: curve(t, label_duration), (slope_t,), (ones,))
            return curve(t, label_duration), slope

        monkeypatch.setattr(pinn, "signal_and_slope", both)
        setup = pinn.make_setup(dataclasses.replace(EXACT, collocation=collocation), model, 2, axis)
        shared = pinn.Shared(split(whole)[1], axis)
        nothing = {"signal": jnp.zeros((setup.members, 1))}
        terms = {}
        for name, factor in (("exact", 1.0), ("wrong", 1.2)):
            values = true.at[0].multiply(factor)
            known_maps = setup._replace(networks=lambda *_, values=values: values)
            arguments = jax.random.key(0), jnp.asarray(20_000), domain, shared
            terms[name] = jax.tree.map(float, pinn.loss(known_maps, nothing, *arguments)[1])
    assert terms["exact"]["physics"] < 1e-12
    assert terms["exact"]["signal"] < 1e-8
    assert terms["wrong"]["physics"] > 1e-2
    assert ("prior" in terms["exact"]) == (model is WITH_T1)


@pytest.mark.parametrize("bolus", ["spline5", "per_bolus"])
def test_slopes_in_one_pass_are_those_of_forward_differentiation(bolus):
    with jax.enable_x64(True):
        axis = make_time_axis(problem(noise_free(phantom(), PROTOCOL), dtype="float64"), bolus)
        network = Siren(16, 3, 1, (10.0,) * (axis.n_inputs + 2), 1.0)
        params = init_params({"signal": network}, jax.random.key(0), jnp.float64)["signal"]
        position = jax.random.uniform(jax.random.key(2), (5, 2), jnp.float64, -0.5, 0.5)
        draws = jax.random.uniform(jax.random.key(1), (3, 2, 5), jnp.float64, 0.5, 2.5)
        t, slope_t, label_duration = draws

        def value(t):
            return signal(network, params, t, label_duration, position, axis)

        _, slope = jax.jvp(value, (slope_t,), (jnp.ones_like(t),))
        found = signal_and_slope(network, params, t, slope_t, label_duration, position, axis)
        np.testing.assert_allclose(found[0], value(t), rtol=1e-12)
        np.testing.assert_allclose(found[1], slope, rtol=1e-10)


@pytest.mark.parametrize("bolus", ["spline5", "per_bolus"])
@pytest.mark.parametrize(
    ("model", "values"),
    [(BUXTON, (60.0, 1.2)), (ARTERIAL, (60.0, 1.2, 0.02, 0.9))],
    ids=["buxton", "arterial"],
)
def test_windowed_slope_is_the_mean_of_the_slope(bolus, model, values):
    with jax.enable_x64(True):
        whole = problem(noise_free(phantom(), PROTOCOL), model, dtype="float64")
        axis, voxel = make_time_axis(whole, bolus), take(whole, slice(0, 1))
        values = jnp.array(values)[:, None]

        def slope(window, t):
            durations = jnp.full((len(t), 1), 0.4)
            return pinn.model_slope(voxel, values, t[:, None], durations, axis, window)[:, 0]

        t = jnp.linspace(0.8, 2.5, 18)
        shifts = 0.4 * ((np.arange(4000) + 0.5) / 4000 - 0.5)
        mean = slope(0.0, (t[:, None] + shifts).ravel()).reshape(18, 4000).mean(axis=1)
        np.testing.assert_allclose(slope(0.4, t), mean, atol=1e-3 * float(jnp.abs(mean).max()))


def test_the_bolus_is_a_function_of_time_without_the_readout_delay():
    """A later slice is read later, but labelled no otherwise: its slope is the same, shifted."""
    with jax.enable_x64(True):
        whole = problem(noise_free(phantom(), PROTOCOL), dtype="float64")
        axis, voxel = make_time_axis(whole, "spline5"), take(whole, slice(0, 1))
        t, durations = jnp.linspace(1.0, 2.5, 7)[:, None], jnp.zeros((7, 1))
        late = dataclasses.replace(
            voxel, timing=voxel.timing._replace(readout_delay=voxel.timing.readout_delay + 0.3)
        )
        early_bolus = label_duration_at(axis.spline, t)[0]
        expected = BUXTON.time_derivative(
            [60.0, 1.2],
            Timing(t + 0.3, early_bolus),
            voxel.tissue,
            voxel.blood,
            label_duration_at(axis.spline, t)[1],
        )
        values = jnp.array([[60.0], [1.2]])
        found = pinn.model_slope(late, values, t + 0.3, durations, axis, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_maps_follow_the_physics_and_nothing_else():
    """Without the slopes' term the parameters stay where they began, whatever the data say."""
    only_signal = dataclasses.replace(SMALL_PINN, signal_steps=40)
    untrained = maps(noisy(), dataclasses.replace(SMALL_PINN, steps=1, signal_steps=1))
    assert maps(noisy(), only_signal).cbf.tobytes() == untrained.cbf.tobytes()
    assert maps(noisy(), SMALL_PINN).cbf.tobytes() != untrained.cbf.tobytes()


def test_the_quick_preset_does_not_collapse():
    """CBF and ATT of a smooth disc are found, roughly."""
    truth = phantom()
    options = PinnOptions(steps=1500, signal_steps=300, batch_size=256)
    found = maps(noisy(), options)
    valid = noisy().valid
    for name, least in (("cbf", 0.7), ("att", 0.7)):
        assert np.corrcoef(found[name][valid], truth[name][valid])[0, 1] > least
        assert np.median(found[name][valid]) == pytest.approx(
            np.median(truth[name][valid]), rel=0.25
        )
    assert found.history["signal"][-50:].mean() < 0.5 * found.history["signal"][:10].mean()
    assert found.history["physics"][-50:].mean() < 0.5 * found.history["physics"][300:310].mean()


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
    spline = make_time_axis(problem(noisy(protocol=protocol)), bolus).spline
    assert (None if spline is None else spline.kind) == kind


def test_a_spline_that_swings_is_refused():
    with pytest.raises(InputError, match="per_bolus"):
        maps(noisy(protocol=UNEVEN), dataclasses.replace(SMALL_PINN, bolus="spline5"))


@pytest.mark.parametrize("model", [BUXTON, WITH_T1], ids=lambda model: model.name)
def test_per_bolus_training_runs_where_the_spline_is_refused(model):
    found = maps(noisy(protocol=UNEVEN), dataclasses.replace(SMALL_PINN, bolus="per_bolus"), model)
    for name in model.names:
        assert (found[name][noisy().valid] > 0.0).all()


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_tissue_and_arteries_are_fitted_by_one_network(preset):
    """Gradients of the arterial input exist, although its slope is that of two edges."""
    data = simulate(with_arteries(phantom()), PROTOCOL, tsnr=5.0, seed=0, model=ARTERIAL)
    options = dataclasses.replace(SMALL_PINN, preset=preset)
    untrained, found = (
        maps(data, dataclasses.replace(options, steps=steps), ARTERIAL) for steps in (1, 40)
    )
    for name in ARTERIAL.names:
        inside = found[name][data.valid]
        assert (inside > 0.0).all()
        assert (inside < ARTERIAL[name].upper).all()
        assert (inside != untrained[name][data.valid]).mean() > 0.9


def test_all_delays_of_a_voxel_may_come_together():
    options = dataclasses.replace(SMALL_PINN, batch_delays="all", physics_ramp=5)
    assert (maps(noisy(), options).cbf[noisy().valid] > 0.0).all()


def test_presets_give_way_to_what_the_user_set():
    paper = resolve(PinnOptions(preset="paper"))
    assert (paper.steps, paper.signal_steps, paper.batch_size) == (30000, 10000, 150)
    assert (paper.learning_rate, paper.members) == (1e-4, 1)
    assert (paper.signal_depth, paper.signal_width) == (7, 256)
    assert (paper.ode_depth, paper.ode_width) == (4, 128)
    assert (paper.signal_weight, paper.physics_weight) == (1.0, 0.5)
    assert resolve(PinnOptions(preset="paper", steps=7)).steps == 7
    assert resolve(PinnOptions()).steps < paper.steps
    assert None not in dataclasses.astuple(resolve(PinnOptions()))


def test_flags_leave_to_the_preset_what_the_user_did_not_set():
    values = flags.FlagValues()
    methods = {"pinn": PinnOptions}
    define_flags(methods, values)
    values(["program", "--preset=paper", "--steps=7", "--output_scale=att=1"])
    found = options_from_flags(methods, "pinn", values, BUXTON.names)
    assert (found.preset, found.steps) == ("paper", 7)
    assert found.output_scale(BUXTON.names) == (0.2, 1.0)
    assert resolve(found).batch_size == 150
    assert "30000 with --preset=paper" in values["steps"].help


def test_options_of_the_fit_through_the_curve_are_not_among_its_own():
    names = {entry.name for entry in dataclasses.fields(PinnOptions)}
    field = {entry.name for entry in dataclasses.fields(NeuralFieldOptions)}
    assert not names & {"held_out", "patience", "data_weight", "covariates", "omega", "width"}
    assert {"held_out", "patience", "covariates", "omega", "width"} <= field


@pytest.mark.parametrize("name", ["signal_weight", "physics_weight"])
def test_a_term_without_weight_is_refused(name):
    with pytest.raises(InputError, match=f"--{name} must be positive"):
        maps(noisy(), dataclasses.replace(SMALL_PINN, **{name: 0.0}))


def test_registered():
    assert get_estimator("pinn") is PINN


def test_the_methods_section_says_what_was_done():
    said = PINN.describe(dataclasses.asdict(resolve(PinnOptions())))
    assert "its mean over 0.5 s" in said
    assert "mean over" not in PINN.describe({"steps": 1, "slope_window": 0.0})
