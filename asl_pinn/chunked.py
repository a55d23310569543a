"""Map a batched function over many voxels in chunks of one shape, so that memory is bounded."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from asl_pinn.arrays import FloatArray
from asl_pinn.devices import n_devices, scaled, spread


def chunk_for(length: int, most: int) -> int:
    """Size of the chunks for a problem: `most` on a CPU, or a power of two for a smaller one.

    Several devices, or faster ones, take more; each of them has the same share.

    Parameters
    ----------
    length : int
        Elements in all, 1 or more.
    most : int
        Elements that a chunk may have on a CPU.

    Returns
    -------
    int
        Elements in a chunk.
    """
    size = min(scaled(most), 1 << (length - 1).bit_length())
    return -(-size // n_devices()) * n_devices()


def map_chunked(function: Callable[..., Any], tree: Any, chunk_size: int) -> Any:
    """Apply a function of batched arrays chunk by chunk.

    On a CPU, a chunk runs on each core at a time; several devices share each chunk.

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

    def cut(values: FloatArray, begin: int) -> FloatArray:
        part = values[begin : begin + chunk_size]
        missing = chunk_size - len(part)
        if not missing:
            return part
        return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1), mode="edge")

    def work(begin: int) -> Any:
        chunk = jax.tree.map(lambda values: cut(values, begin), tree)
        return jax.device_get(function(*spread(chunk, chunk_size)))

    first, *rest = range(0, length, chunk_size)
    # The first chunk goes alone: threads that met an uncompiled function would each compile it.
    results = [work(first)]
    # Devices that share a chunk must meet the chunks in one order.
    n_threads = len(os.sched_getaffinity(0)) if n_devices() == 1 else 1
    with ThreadPoolExecutor(n_threads) as pool:
        results.extend(pool.map(work, rest))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:length], *results)
