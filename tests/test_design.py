"""Protocols compared and optimised: the parts, each against a reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.acquisition import encoding
from asl_pinn.acquisition.protocol import label_durations
from asl_pinn.errors import InputError
from asl_pinn.evaluation.cramer_rao import cramer_rao_sd
from asl_pinn.io import bids
from asl_pinn.io.bids.encoded import encoding_of, sub_bolus_durations
from asl_pinn.io.bids.sidecar import Sidecar
from asl_pinn.optimal_design import noise, space
from asl_pinn.optimal_design.candidates import candidates, on_raster
from asl_pinn.optimal_design.expectation import (
    Goal,
    Points,
    covariance,
    points_of,
    scan_cost,
    scan_problem,
)
from asl_pinn.optimal_design.monte_carlo import Check, check_bound
from asl_pinn.optimal_design.optimise import optimise
from asl_pinn.optimal_design.population import TISSUES, make_population
from asl_pinn.optimal_design.precision import ATT_GRID, expected_precision
from asl_pinn.optimal_design.scan import paired_scan, time_encoded_scan
from asl_pinn.optimal_design.sensitivity import sensitivities
from asl_pinn.optimal_design.space import Constraints
from asl_pinn.optimal_design.timing import sidecar, timing_table, volume_types
from asl_pinn.simulation.acquire import simulate
from asl_pinn.workflow.noise import image_noise

BUXTON = models.get("buxton")
LIMITS = Constraints(300.0)
T1_ADJUSTED = time_encoded_scan("T1-adjusted 8", label_durations("t1_adjusted", 7), 0.1, 0.5)


def goal(model=BUXTON, tissues=("gm", "wm"), n_points=32, noise_sd=1.4e-3, **choice) -> Goal:
    population = make_population(model, tissues, n_points=n_points)
    return Goal(model, population, noise_sd, **{"parameters": ("cbf", "att"), **choice})


def cost_of(scan, wanted: Goal, averages: int) -> float:
    at_times = scan_cost(wanted, points_of(wanted.population), scan.noise_factor)
    protocol = scan.protocol
    return float(at_times(protocol.label_duration, protocol.pld, averages, 0.0))


@pytest.mark.parametrize("size", [4, 8, 12])
def test_noise_of_a_decoded_difference(size):
    images = np.random.default_rng(0).standard_normal((20000, size))
    decoded = encoding.decode(images, encoding.encoding_matrix(size))
    scan = time_encoded_scan("", [0.3] * (size - 1), 0.1, 0.5)
    assert decoded.std() == pytest.approx(scan.noise_factor, rel=0.01)
    assert scan.cycle_time == pytest.approx(size * (0.3 * (size - 1) + 0.6))


def test_whole_averages_fit_the_scan_time():
    scan = paired_scan("pairs", 1.8, [0.2, 1.2], 0.5)
    assert scan.cycle_time == pytest.approx(12.0)
    assert [scan.averages(time) for time in (12.0, 35.9, 36.0)] == [1, 2, 3]
    with pytest.raises(InputError, match="one cycle of pairs takes 12 s"):
        scan.averages(11.9)


@pytest.mark.parametrize(
    "schedules",
    [
        space.time_encoded_space(8, LIMITS),
        space.free_block_space(8, 1.8, LIMITS),
        space.sequential_space(5, 1.8, LIMITS),
        space.sequential_space(5, 1.4, LIMITS, free_label=False),
    ],
    ids=lambda schedules: schedules.name,
)
def test_matrices_of_a_space_are_the_times_of_its_scans(schedules):
    drawn = space.random_starts(schedules, 50, np.random.default_rng(1))
    assert (drawn >= schedules.lower).all()
    assert (drawn <= schedules.upper + 1e-9).all()
    assert (drawn @ schedules.limited <= schedules.limit + 1e-9).all()
    for x in [*schedules.starts, np.sort(drawn[0]) if "sequential" in schedules.name else drawn[0]]:
        scan = schedules.build(x)
        assert np.allclose(
            schedules.label[0] @ x + schedules.label[1], scan.protocol.label_duration
        )
        assert np.allclose(schedules.delay[0] @ x + schedules.delay[1], scan.protocol.pld)
        assert schedules.cycle_time(x) == pytest.approx(scan.cycle_time)
        assert (
            scan.protocol.label_duration.sum() <= LIMITS.label_total + 1e-9 or not scan.matrix_size
        )


@pytest.mark.parametrize("name", ["buxton", "buxton+arterial", "buxton+t1"])
def test_population_has_the_means_and_spreads_it_states(name):
    model = models.get(name)
    population = make_population(model, n_points=512)
    assert population.weights.sum() == pytest.approx(1.0)
    for k in range(2):
        own = population.values[:, population.of(k)]
        assert np.allclose(own.mean(axis=1), population.mean[:, k], rtol=0.03)
        assert np.allclose(own.std(axis=1), population.sd[:, k], rtol=0.08)
    if "abat" in model.names:
        att, abat = (population.values[model.names.index(key)] for key in ("att", "abat"))
        assert (abat < att).all()
    if "t1_tissue" in model.names:
        assert population.mean[2].tolist() == [TISSUES[key].t1_tissue for key in ("gm", "wm")]


def test_priors_replace_those_of_every_tissue():
    population = make_population(BUXTON, priors={"att": (2.0, None), "cbf": (None, 3.0)})
    assert population.mean.tolist() == [[60.0, 20.0], [2.0, 2.0]]
    assert population.sd.tolist() == [[3.0, 3.0], [0.35, 0.35]]


def test_covariance_of_one_parameter_is_that_of_two_measurements():
    """What is known before is one more measurement; ATT being known, so is the curve's slope."""
    model = models.fix(BUXTON, att=1.2)
    scan = paired_scan("single", 1.8, [1.8], 0.5)
    t1 = np.array([1.33])
    problem = scan_problem(scan, model, t1, 1e-3, 20)
    values, step = np.array([[60.0]], np.float32), 0.5
    above, below = (
        float(model.curve({"cbf": 60.0 + d}, t=3.6, label_duration=1.8)) for d in (step, -step)
    )
    slope = (above - below) / (2 * step)
    after = 1.0 / (1.0 / 15.0**2 + 20 * slope**2 / (2.0 * 1e-3**2))
    found = covariance(problem, Points(values, np.array([[15.0]], np.float32), t1, None))
    assert float(found[0, 0, 0]) == pytest.approx(after / 15.0**2, rel=1e-3)


def test_without_knowledge_the_covariance_is_the_cramer_rao_bound(float64):
    wanted = goal()
    points = points_of(wanted.population)
    vague = Points(points.values, 1e4 * points.sd, points.t1_tissue, None)
    problem = scan_problem(T1_ADJUSTED, BUXTON, points.t1_tissue, 1.4e-3, 8)
    problem = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), problem)
    found = np.asarray(covariance(problem, jax.tree.map(jnp.asarray, vague)))
    sd = vague.sd * np.sqrt(np.diagonal(found, axis1=1, axis2=2).T)
    assert np.allclose(sd, cramer_rao_sd(problem, points.values), rtol=1e-4)


@pytest.mark.parametrize("kind", ["A", "D"])
def test_cost_is_one_of_what_a_scan_does_not_tell_and_falls_with_averages(kind):
    wanted = goal(kind=kind)
    blind = time_encoded_scan("", [0.01] * 7, 0.0, 0.5)  # over before the label arrives
    nothing = 2.0 if kind == "A" else 1.0
    assert cost_of(blind, wanted, 1) == pytest.approx(nothing, rel=1e-3)
    costs = [cost_of(T1_ADJUSTED, wanted, count) for count in (1, 8, 64)]
    assert nothing > costs[0] > costs[1] > costs[2] > 0.0


def test_slope_of_the_smoothed_cost(float64):
    wanted = goal(n_points=16)
    points = jax.tree.map(lambda each: jnp.asarray(each, jnp.float64), points_of(wanted.population))
    at_times = scan_cost(wanted, points, T1_ADJUSTED.noise_factor)
    pld = jnp.asarray(T1_ADJUSTED.protocol.pld)

    def cost(duration):
        return at_times(duration, pld, 8, 0.05)

    duration = jnp.asarray(T1_ADJUSTED.protocol.label_duration)
    slope = np.asarray(jax.jit(jax.grad(cost))(duration))
    step, quick = 1e-5, jax.jit(cost)
    for k, unit in enumerate(np.eye(7)):
        change = quick(duration + step * unit) - quick(duration - step * unit)
        assert float(change) / (2 * step) == pytest.approx(slope[k], rel=1e-3, abs=1e-7)


def test_optimum_of_one_delay_is_that_of_a_search_through_all():
    wanted = goal(models.fix(BUXTON, att=1.3), ("gm",), 16, parameters=("cbf",))
    limits = Constraints(60.0, raster=0.05)
    found = optimise(
        space.sequential_space(1, 1.8, limits, free_label=False), wanted, limits, restarts=1
    )
    plds = np.arange(2, 61) * 0.05
    scans = [paired_scan("", 1.8, [pld], 0.5) for pld in plds]
    costs = [cost_of(scan, wanted, scan.averages(60.0)) for scan in scans]
    assert found.scan.protocol.pld[0] == pytest.approx(plds[int(np.argmin(costs))])
    assert found.cost == pytest.approx(min(costs), rel=1e-4)


def test_optimum_keeps_to_its_limits_and_beats_known_schedules():
    limits = Constraints(120.0, min_duration=0.3, label_total=3.0, raster=0.05)
    wanted = goal(n_points=16)
    found = optimise(space.time_encoded_space(4, limits), wanted, limits, restarts=1)
    protocol = found.scan.protocol
    times = np.append(protocol.label_duration, protocol.pld[-1])
    assert np.allclose(times / 0.05, np.round(times / 0.05), atol=1e-6)
    assert protocol.label_duration.min() >= 0.3 - 1e-9
    assert protocol.label_duration.sum() <= 3.0 + 1e-9
    assert protocol.pld[-1] >= 0.1 - 1e-9
    assert found.averages * found.scan.cycle_time <= 120.0 + 1e-6
    assert found.cost == pytest.approx(cost_of(found.scan, wanted, found.averages), rel=1e-4)
    for schedule in ("equal", "t1_adjusted"):
        durations = on_raster(label_durations(schedule, 3, 3.0), limits)
        known = time_encoded_scan(schedule, durations, 0.1, 0.5)
        assert found.cost < 0.95 * cost_of(known, wanted, known.averages(120.0))


def test_candidates_are_named_and_those_left_out_are_told():
    limits = Constraints(300.0, min_duration=0.3)
    scans, notes = candidates(goal(n_points=16), limits, matrix_sizes=[8])
    assert [scan.name for scan in scans] == [
        "equal 8",
        "free lunch 8",
        "sequential 5",
        "single delay",
    ]
    assert notes == [
        "T1-adjusted 8 is left out: a sub-bolus would last 0.23 s, less than min_duration of 0.3 s"
    ]
    assert scans[-1].held == {"att": pytest.approx(1.45)}


def test_bias_of_a_held_transit_time_is_that_of_the_signals():
    wanted = goal(tissues=("gm",))
    scan = paired_scan("single", 1.8, [1.8], 0.5, {"att": 1.3})
    found = expected_precision(scan, wanted, 300.0)
    assert found.model.names == ("cbf",)
    cbf = 60.0
    curve = BUXTON.curve({"cbf": cbf, "att": ATT_GRID}, t=3.6, label_duration=1.8)
    held = float(BUXTON.curve({"cbf": cbf, "att": 1.3}, t=3.6, label_duration=1.8))
    bias = np.abs(np.asarray(curve) / held - 1.0) * cbf
    place = int(np.argmin(np.abs(ATT_GRID - 1.3)))
    noise_alone = found.curves[0, 0, place]
    assert np.allclose(found.curves[0, 0], np.hypot(noise_alone, bias), rtol=0.03)
    shortest, longest = found.served[0]
    assert shortest < 1.3 < longest
    better = found.curves[0, 0] < 15.0
    assert found.att[better].min() == shortest
    assert found.att[better].max() == longest


def test_expected_precision_by_tissue():
    found = expected_precision(T1_ADJUSTED, goal(), 300.0)
    assert found.averages == 8
    assert [(e.tissue, e.parameter.name) for e in found.expected] == [
        ("grey matter", "cbf"),
        ("grey matter", "att"),
        ("white matter", "cbf"),
        ("white matter", "att"),
    ]
    for each in found.expected:
        assert each.sd < each.sd_before
        assert each.median_sd <= each.worst_sd
        assert each.bias == 0.0
        assert each.percent == pytest.approx(100.0 * each.sd / each.mean)


def test_spread_of_fits_is_the_bound_where_the_problem_is_regular():
    """At little noise the fits stay between the kinks."""
    wanted = goal(tissues=("gm",), noise_sd=2e-5)
    checks = check_bound(T1_ADJUSTED, wanted, 300.0)
    kinks = np.concatenate([T1_ADJUSTED.protocol.t, T1_ADJUSTED.protocol.pld])
    regular = [c for c in checks if np.abs(kinks - c.att).min() > 0.01]
    assert len(regular) >= 6
    for check in regular:
        assert check.ratio == pytest.approx(1.0, abs=0.1)
        assert check.verdict == "as the bound says"


def test_at_a_kink_the_bound_is_said_to_be_optimistic():
    wanted = goal(tissues=("wm",))
    wanted = dataclasses.replace(wanted, noise_sd=2.8e-3)
    checks = check_bound(T1_ADJUSTED, wanted, 300.0)
    assert any(c.parameter.name == "att" and c.verdict == "bound is optimistic" for c in checks)


@pytest.mark.parametrize(
    ("bound", "spread", "verdict"),
    [
        (1.0, 1.05, "as the bound says"),
        (1.0, 1.2, "bound is optimistic"),
        (1.0, 0.8, "held by bounds or prior"),
        (np.inf, 1.0, "not determined"),
    ],
)
def test_verdicts(bound, spread, verdict):
    assert Check("s", "gm", 1.0, BUXTON["att"], bound, spread, 0.0).verdict == verdict


def test_sensitivities_have_the_known_ratios():
    found = sensitivities(T1_ADJUSTED, goal(tissues=("gm",), noise_sd=1e-4), 300.0, draws=2)
    by_cause = {(each.cause, each.parameter.name): each for each in found}
    efficiency = by_cause["labelling efficiency 10 % higher", "cbf"]
    # The signal is 10 % larger, and CBF but for what it does to T1'.
    assert efficiency.first_order == pytest.approx(6.0, rel=0.03)
    assert efficiency.monte_carlo == pytest.approx(6.0, rel=0.03)
    assert by_cause["labelling efficiency 10 % higher", "att"].first_order == pytest.approx(
        0.0, abs=1e-3
    )
    assert by_cause["arterial blood not in the model", "cbf"].monte_carlo > 5.0
    dispersed = by_cause["dispersion of 0.18 s not in the model", "cbf"]
    assert abs(dispersed.monte_carlo) < 2.0
    assert len(found) == 12


def test_noise_by_tsnr_is_that_of_a_cycle(phantom, protocol):
    image_sd = noise.from_tsnr(2.0, 8, LIMITS)
    wanted = goal(tissues=("gm",), n_points=256)
    curves = BUXTON.curve(
        dict(zip(("cbf", "att"), wanted.population.values[:, None], strict=True)),
        t=protocol.t[:, None],
        label_duration=protocol.label_duration[:, None],
    )
    assert image_sd * T1_ADJUSTED.noise_factor == pytest.approx(
        float(curves.mean()) / 2.0, rel=1e-3
    )


def test_noise_of_a_dataset_is_measured(tmp_path, phantom, protocol):
    t1 = np.full_like(phantom.t1_tissue, TISSUES["gm"].t1_tissue)
    flat = dataclasses.replace(phantom, m0=np.where(phantom.mask, 900.0, 0.0), t1_tissue=t1)
    data = simulate(flat, protocol, tsnr=20.0, seed=0)
    bids.write_simulation(tmp_path, flat, data, seed=0)
    clean = simulate(flat, protocol, tsnr=np.inf, seed=0)
    true = (data.delta_m - clean.delta_m)[flat.mask].std() / 900.0 / np.sqrt(2.0)
    assert image_noise(tmp_path) == pytest.approx(true, rel=0.05)


def test_timing_is_that_of_the_matrix_and_the_package_reads_it(tmp_path):
    scan = time_encoded_scan("te", [1.5, 0.7, 0.4], 0.2, 0.5)
    keys = sidecar(scan, 3)
    stated = Sidecar(tmp_path / "asl.json", keys)
    encoded = encoding_of(stated, [])
    assert sub_bolus_durations(stated, 3).tolist() == [1.5, 0.7, 0.4]
    assert encoded.volume_types * 3 == volume_types(scan, 3)
    rows = timing_table(scan)
    states = np.array([row["state"] for row in rows]).reshape(4, 3)
    assert ((states == "control") == (encoded.matrix > 0.0)).all()
    assert [row["start"] for row in rows[:3]] == [0.0, 1.5, 2.2]
    assert {row["readout_start"] for row in rows} == {2.8}
    assert {row["repetition_end"] for row in rows} == {keys["RepetitionTimePreparation"]} == {3.3}


def test_timing_of_pairs():
    scan = paired_scan("pairs", 1.4, [0.25, 1.0], 0.5)
    assert volume_types(scan, 2) == ["control", "label"] * 4
    keys = sidecar(scan, 2)
    assert keys["PostLabelingDelay"] == [0.25, 0.25, 1.0, 1.0] * 2
    assert keys["LabelingDuration"] == [1.4] * 8
    assert sum(keys["RepetitionTimePreparation"]) == pytest.approx(2 * scan.cycle_time)
    assert [row["readout_start"] for row in timing_table(scan)] == [1.65, 1.65, 2.4, 2.4]
