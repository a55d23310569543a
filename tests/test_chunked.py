import jax
import numpy as np
import pytest

from asl_pinn import chunked
from asl_pinn.chunked import _tiles, chunk_for, map_chunked


@pytest.mark.parametrize("length", [1, 3, 7, 8, 9, 16, 17])
def test_chunks_change_nothing(length):
    a, b = np.arange(2.0 * length).reshape(length, 2), np.arange(length)
    total, twice = map_chunked(lambda x, y: (x.sum(axis=1) + y, 2 * y), (a, b), 8)
    assert np.array_equal(total, a.sum(axis=1) + b)
    assert np.array_equal(twice, 2 * b)


def test_every_chunk_has_one_shape_so_that_one_compilation_serves():
    seen, before = [], _tiles._cache_size()

    def look(values):
        seen.append(len(values))
        return values

    for length in (1, 3, 8, 17):
        map_chunked(look, (np.zeros(length),), 8)
    assert set(seen) == {8}
    assert _tiles._cache_size() - before == 1


def test_tiles_beyond_the_data_are_not_computed():
    computed = []

    def look(values):
        jax.debug.callback(computed.append, values[0])
        return values

    assert np.array_equal(map_chunked(look, (np.arange(700.0),), 4096), np.arange(700.0))
    assert sorted(computed) == [0.0, 512.0]


def test_threads_keep_64_bits(float64):
    values = np.linspace(0.0, 1.0, 40)
    assert map_chunked(jax.numpy.square, (values,), 8).dtype == np.float64


@pytest.mark.parametrize(("length", "size"), [(1, 1), (3, 2), (8, 4), (9, 8), (1000, 8)])
def test_small_problems_get_small_chunks_one_for_each_core(length, size, monkeypatch):
    monkeypatch.setattr(chunked, "_n_threads", lambda: 2)
    assert chunk_for(length, 8) == size
