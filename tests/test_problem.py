import dataclasses

import jax
import numpy as np
import pytest

from asl_pinn import models
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.models import Blood, Timing, Tissue
from asl_pinn.problem import bases, join, make_problem, map_voxels, predict, split, take

MODELS = ("buxton", "buxton+t1")
LABEL_DURATION, PLD = np.array([1.0, 1.4, 1.8]), np.array([0.5, 1.0, 1.5])


def data_of(shape: tuple[int, int, int]) -> AslData:
    """Data of which every number is another one, with voxels that cannot be fitted."""
    numbers = np.arange(np.prod(shape), dtype=float).reshape(shape)
    delta_m = 1000.0 * np.arange(1.0, 4.0) + numbers[..., None]
    mask = numbers % 3 != 2
    delta_m[0, 0, 0, 1] = np.nan
    return AslData.from_arrays(
        delta_m,
        500.0 + numbers,
        label_duration=LABEL_DURATION,
        pld=PLD,
        mask=mask,
        t1_tissue=1.0 + 0.01 * numbers,
        t1_blood=1.6,
        labeling_efficiency=0.8,
        partition_coefficient=0.95,
        readout_delay=0.01 * numbers,
        n_averages=[1.0, 2.0, 3.0],
    )


def problem_of(shape=(5, 4, 3), model="buxton", dtype="float32"):
    return make_problem(data_of(shape), models.get(model), dtype)


def truth(problem, seed=0) -> np.ndarray:
    """A value for each parameter and voxel."""
    rng = np.random.default_rng(seed)
    rows = [p.typical * rng.uniform(0.7, 1.3, problem.n_voxels) for p in problem.model.parameters]
    return np.stack(rows).astype(problem.dtype)


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 1, 7), (6, 1, 1), (2, 9, 1)])
def test_voxels_are_gathered_in_the_order_of_the_volumes(shape):
    data, problem = data_of(shape), problem_of(shape)
    where = data.valid
    assert not where[0, 0, 0]
    assert problem.n_voxels == where.sum() > 0
    assert problem.n_measurements == 3
    assert np.array_equal(problem.measured, data.delta_m[where].T.astype(np.float32))
    for gathered, volume in (
        (problem.tissue.m0, data.m0),
        (problem.tissue.t1_tissue, data.t1_tissue),
        (problem.timing.readout_delay, data.readout_delay),
    ):
        assert np.array_equal(gathered, volume[where].astype(np.float32))
    assert np.array_equal(problem.geometry.where, where)


def test_a_problem_holds_timing_weights_and_constants():
    problem = problem_of()
    assert np.allclose(problem.timing.t, LABEL_DURATION + PLD)
    assert np.allclose(problem.timing.label_duration, LABEL_DURATION)
    assert np.array_equal(problem.weights, [1.0, 2.0, 3.0])
    assert problem.blood == Blood(1.6, 0.8)
    assert problem.tissue.partition_coefficient == 0.95
    assert problem.noise_sd is None
    assert problem.dtype == np.float32
    arrays = jax.tree.leaves((problem.measured, problem.timing, problem.tissue[:2]))
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_voxels_that_cannot_be_fitted_are_left_out():
    data = data_of((5, 4, 3))
    m0, t1_tissue = data.m0.copy(), data.t1_tissue.copy()
    m0[1, 0, 0], t1_tissue[2, 0, 0] = 0.0, 0.05
    assert data.valid[1, 0, 0]
    assert data.valid[2, 0, 0]
    poor = dataclasses.replace(data, m0=m0, t1_tissue=t1_tissue)
    problem = make_problem(poor, models.Buxton(), "float32")
    assert problem.n_voxels == data.valid.sum() - 2


def test_data_without_a_voxel_to_fit_are_refused():
    data = data_of((2, 2, 2))
    empty = dataclasses.replace(data, mask=np.zeros_like(data.mask))
    broken = dataclasses.replace(data, delta_m=np.full_like(data.delta_m, np.nan))
    for poor in (empty, broken):
        with pytest.raises(InputError, match="no voxel can be fitted"):
            make_problem(poor, models.Buxton(), "float32")


def test_float64_needs_the_mode():
    with pytest.raises(InputError, match=r"float64 needs JAX's 64-bit mode \(jax_enable_x64\)"):
        problem_of(dtype="float64")
    with jax.enable_x64(True):
        problem = problem_of(dtype="float64")
    assert problem.dtype == np.float64


def test_what_is_split_is_joined_to_the_same():
    problem = problem_of()
    per_voxel, shared = split(problem)
    n_voxels = problem.n_voxels
    assert {array.shape[-1] for array in jax.tree.leaves(per_voxel)} == {n_voxels}
    assert all(np.shape(leaf)[-1:] != (n_voxels,) for leaf in jax.tree.leaves(shared))
    joined = join(per_voxel, shared)
    without_place = dataclasses.replace(problem, geometry=None)
    assert jax.tree.structure(joined) == jax.tree.structure(without_place)
    pairs = zip(jax.tree.leaves(joined), jax.tree.leaves(without_place), strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("index", [slice(3, 9), np.array([7, 2, 2])])
def test_taken_voxels_are_those_asked_for(index):
    problem = problem_of()
    few = take(problem, index)
    assert np.array_equal(few.measured, problem.measured[:, index])
    assert np.array_equal(few.tissue.m0, problem.tissue.m0[index])
    assert np.array_equal(few.tissue.t1_tissue, problem.tissue.t1_tissue[index])
    assert np.array_equal(few.timing.readout_delay, problem.timing.readout_delay[index])
    assert np.array_equal(few.weights, problem.weights)
    assert few.geometry is None


@pytest.mark.parametrize("model", MODELS)
def test_prediction_is_the_signal_of_each_voxel_and_measurement(model):
    problem = problem_of(model=model)
    values = truth(problem)
    found = predict(problem, tuple(values))
    assert found.shape == (3, problem.n_voxels)
    for d, v in [(0, 0), (1, 5), (2, problem.n_voxels - 1)]:
        timing = Timing(
            LABEL_DURATION[d] + PLD[d], LABEL_DURATION[d], problem.timing.readout_delay[v]
        )
        tissue = Tissue(problem.tissue.m0[v], problem.tissue.t1_tissue[v], 0.95)
        expected = problem.model.signal(values[:, v], timing, tissue, Blood(1.6, 0.8))
        assert np.isclose(found[d, v], expected, rtol=1e-5)


def test_prediction_broadcasts_over_axes_before_the_voxels():
    problem = problem_of()
    cbf, att = truth(problem)
    many = np.stack([att, 1.1 * att]), np.stack([att, 0.9 * att])
    found = predict(problem, (cbf, np.stack(many)))
    assert found.shape == (3, 2, 2, problem.n_voxels)
    assert np.allclose(found[:, 0, 1], predict(problem, (cbf, 1.1 * att)), rtol=1e-5)
    everywhere = predict(problem, (60.0, 1.2))
    assert everywhere.shape == (3, problem.n_voxels)
    expected = predict(problem, (np.full_like(cbf, 60.0), np.full_like(att, 1.2)))
    assert np.allclose(everywhere, expected, rtol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_bases_are_the_signals_at_typical_amplitudes(model):
    problem = problem_of(model=model)
    at = dict(zip(problem.model.names, truth(problem), strict=True))
    held = [at[p.name] for p in problem.model.smooth]
    factors = np.float32([1.0, 0.5, 2.0])
    values = [p.typical if p.linear else at[p.name] for p in problem.model.parameters]
    expected = np.asarray(predict(problem, values))
    for scaled, factor in (
        (bases(problem, held), np.ones(3)),
        (bases(problem, held, factors), factors),
    ):
        found = [sum(curves(at["att"])) for curves in scaled]
        assert np.allclose(found, factor[:, None] * expected, rtol=1e-5, atol=1e-5 * expected.max())


def misfit(problem, values, offset):
    """Of each voxel, of all shapes that a result may have."""
    difference = problem.measured - predict(problem, tuple(values)) - offset
    return {"each": difference, "sum": (difference**2).sum(axis=0)}, values[0]


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 1, 2), (9, 1, 1), (4, 9, 5)])
@pytest.mark.parametrize("model", MODELS)
def test_chunks_change_nothing(shape, model):
    problem = problem_of(shape, model)
    values = truth(problem)
    expected = misfit(problem, values, 2.0)
    for chunk_size in (8, 64):
        found = map_voxels(misfit, problem, (values,), (2.0,), chunk_size=chunk_size)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert isinstance(ours, np.ndarray)
            assert np.allclose(ours, theirs, rtol=1e-4)


def test_a_sample_is_served_by_the_compilation_of_the_volume():
    traced = []

    def look(problem):
        traced.append(problem.measured.shape)
        return problem.measured[0]

    problem = problem_of((9, 9, 9))
    sample = take(problem, slice(0, 40))
    chunks = {"chunk_size": 64, "n_voxels": problem.n_voxels}
    whole = map_voxels(look, problem, **chunks)
    few = map_voxels(look, sample, **chunks)
    assert np.array_equal(whole, problem.measured[0])
    assert np.array_equal(few, sample.measured[0])
    assert set(traced) == {(3, 64)}
    before = len(traced)
    map_voxels(look, dataclasses.replace(problem, blood=Blood(1.5, 0.7)), **chunks)
    changed = models.with_bounds(problem.model, att=(0.1, 3.0))
    map_voxels(look, dataclasses.replace(problem, model=changed), **chunks)
    assert len(traced) == before
