import numpy as np
import pytest

from asl_pinn.chunked import chunk_for, map_chunked


@pytest.mark.parametrize("length", [1, 3, 7, 8, 9, 16, 17])
def test_chunks_change_nothing(length):
    a, b = np.arange(2.0 * length).reshape(length, 2), np.arange(length)
    total, twice = map_chunked(lambda x, y: (x.sum(axis=1) + y, 2 * y), (a, b), 8)
    assert np.array_equal(total, a.sum(axis=1) + b)
    assert np.array_equal(twice, 2 * b)


@pytest.mark.parametrize("length", [1, 3, 8, 17])
def test_every_chunk_has_one_shape_so_that_one_compilation_serves(length):
    seen = []

    def look(values):
        seen.append(len(values))
        return values

    map_chunked(look, (np.zeros(length),), 8)
    assert seen == [8] * -(-length // 8)


@pytest.mark.parametrize(("length", "size"), [(1, 1), (3, 4), (8, 8), (9, 8), (1000, 8)])
def test_small_problems_get_small_chunks(length, size):
    assert chunk_for(length, 8) == size
