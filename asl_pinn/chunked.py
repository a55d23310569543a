"""Map a batched function over many voxels in chunks of one shape, so that memory is bounded."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray


def chunk_for(length: int, most: int) -> int:
    """Size of the chunks for a problem: `most`, or a power of two that holds a smaller one.

    Parameters
    ----------
    length : int
        Elements in all, 1 or more.
    most : int
        Elements that a chunk may have.

    Returns
    -------
    int
        Elements in a chunk.
    """
    return min(most, 1 << (length - 1).bit_length())


def map_chunked(function: Callable[..., Any], tree: Any, chunk_size: int) -> Any:
    """Apply a function of batched arrays chunk by chunk, a chunk on each processor at a time.

    Every chunk has the same shape, so that `function` compiles once; the last one is filled
    up with copies of its last element, whose results are dropped.

    Parameters
    ----------
    function : callable
        Takes the leaves' chunks in the structure of `tree`, as positional arguments, and
        returns a pytree whose leaves have the same leading axis.
    tree : tuple of pytrees of ndarray
        Arguments, with leading axes of one length V >= 1.
    chunk_size : int
        Elements in a chunk.

    Returns
    -------
    pytree of ndarray
        Results on the host with leading axis V.
    """
    length = len(jax.tree.leaves(tree)[0])

    def cut(values: NDArray, begin: int) -> NDArray:
        part = values[begin : begin + chunk_size]
        missing = chunk_size - len(part)
        return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1), mode="edge")

    def work(begin: int) -> Any:
        return jax.device_get(function(*jax.tree.map(lambda values: cut(values, begin), tree)))

    first, *rest = range(0, length, chunk_size)
    # The first chunk goes alone: threads that met an uncompiled function would each compile it.
    results = [work(first)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results.extend(pool.map(work, rest))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:length], *results)
