import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asl_pinn.numerics.batching import chunk_for, map_chunked


@pytest.mark.parametrize("length", [1, 3, 7, 8, 9, 16, 17])
def test_chunks_change_nothing(length):
    a, b = np.arange(2.0 * length).reshape(2, length), np.arange(length)
    total, twice = map_chunked(lambda x, y: (x.sum(axis=0) + y, 2 * y), (a, b), 8)
    assert np.array_equal(total, a.sum(axis=0) + b)
    assert np.array_equal(twice, 2 * b)


@pytest.mark.parametrize("length", [1, 7, 700, 1100])
def test_results_keep_their_axes_and_the_order_of_the_elements(length):
    values = np.arange(3.0 * length).reshape(3, 1, length)
    found = map_chunked(lambda v: {"same": v, "outer": v * v.reshape(3, -1)}, (values,), 1024)
    assert np.array_equal(found["same"], values)
    assert np.array_equal(found["outer"], values * values[:, 0])


def test_constants_and_trees_of_arrays_reach_the_function():
    arrays = ({"a": np.arange(5.0), "b": np.ones((2, 5))}, np.arange(5.0))

    def combine(tree, other, factor, offset):
        return factor * (tree["a"] + tree["b"].sum(axis=0) + other) + offset["plus"]

    found = map_chunked(combine, arrays, 2, (3.0, {"plus": 1.0}))
    assert np.array_equal(found, 3.0 * (2.0 * np.arange(5.0) + 2.0) + 1.0)


def test_every_chunk_has_one_shape_so_that_one_compilation_serves():
    seen = []

    def look(values, constant):
        seen.append(values.shape)
        return values + constant

    map_chunked(look, (np.zeros(1),), 8, (1.0,))
    traced = len(seen)
    for length in (1, 3, 8, 17):
        assert np.array_equal(
            map_chunked(look, (np.zeros(length),), 8, (2.0,)), np.full(length, 2.0)
        )
    assert set(seen) == {(8,)}
    assert len(seen) == traced


def test_tiles_beyond_the_data_are_not_computed():
    computed = []

    def look(values):
        jax.debug.callback(computed.append, values[0])
        return values

    assert np.array_equal(map_chunked(look, (np.arange(700.0),), 4096), np.arange(700.0))
    assert sorted(computed) == [0.0, 512.0]


def test_threads_keep_64_bits(float64):
    values = np.linspace(0.0, 1.0, 40)
    assert map_chunked(jnp.square, (values,), 8).dtype == np.float64


@pytest.mark.parametrize(("length", "size"), [(1, 1), (3, 2), (8, 4), (9, 8), (1000, 8)])
def test_small_problems_get_small_chunks_one_for_each_core(length, size, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert chunk_for(length, 8) == size
