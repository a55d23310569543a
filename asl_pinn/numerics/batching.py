"""Map a batched function over many voxels: in chunks to bound memory, in tiles to stay in cache."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asl_pinn.arrays import FloatArray
from asl_pinn.numerics.sharding import lay_over_devices, n_devices, scaled

_TILE = 512


def chunk_for(length: int, most: int) -> int:
    """Size of the chunks for a problem: `most` on a CPU, or a power of two for a smaller one.

    Each core, or each of several devices, has a share; fast devices take more at a time.

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
    share = -(-length // _n_threads())
    size = min(scaled(most), 1 << (share - 1).bit_length())
    return -(-size // n_devices()) * n_devices()


def map_chunked(
    function: Callable[..., Any], arrays: Any, chunk_size: int, constants: tuple[Any, ...] = ()
) -> Any:
    """Apply a function of batched arrays chunk by chunk.

    On a CPU, a chunk runs on each core at a time, in tiles short enough for its cache; several
    devices share each chunk.

    Every chunk has the same shape, so that `function` compiles once; the last one is filled
    up with copies of its last element, whose results are dropped.

    Parameters
    ----------
    function : callable
        Takes the leaves' tiles in the structure of `arrays`, as positional arguments, then the
        constants, and returns a pytree whose leaves have the same last axis. It is compiled
        once for each function: hand over one of a module rather than a lambda.
    arrays : tuple of pytrees of ndarray
        Arguments, with last axes of one length V >= 1.
    chunk_size : int
        Elements in a chunk.
    constants : tuple of pytrees
        The same for every tile.

    Returns
    -------
    pytree of ndarray
        Results on the host with last axis V.
    """
    length = jax.tree.leaves(arrays)[0].shape[-1]
    # Devices that share a chunk, or have memory for it, take it as it is.
    tile = min(_TILE, chunk_size) if _on_one_cpu() else chunk_size
    size = -(-chunk_size // tile) * tile
    constants = jax.device_put(constants)

    def cut(values: FloatArray, begin: int) -> FloatArray:
        part = values[..., begin : begin + size]
        missing = size - part.shape[-1]
        if not missing:
            return part
        return np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, missing)], mode="edge")

    wide = jax.config.read("jax_enable_x64")

    def work(begin: int, n_elements: int) -> Any:
        chunk = jax.tree.map(lambda values: cut(values, begin), arrays)
        with jax.enable_x64(wide):  # threads do not see what holds in another one
            n_tiles = -(-n_elements // tile)
            return jax.device_get(
                _tiles(function, tile, n_tiles, lay_over_devices(chunk, -1, size), constants)
            )

    begins = range(0, length, size)
    sizes = [min(size, length - begin) for begin in begins]
    n_threads = min(_n_threads(), len(begins))
    if n_threads > 1:
        # Threads that met an uncompiled function would each compile it.
        work(0, 0)
        with ThreadPoolExecutor(n_threads) as pool:
            results = list(pool.map(work, begins, sizes))
    else:
        results = list(map(work, begins, sizes))
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1)[..., :length], *results)


@functools.partial(jax.jit, static_argnames=("function", "tile"))
def _tiles(
    function: Callable[..., Any], tile: int, n_tiles: Array, chunk: Any, constants: tuple[Any, ...]
) -> Any:
    """Results of the first tiles of a chunk; zeros beyond."""
    length = jax.tree.leaves(chunk)[0].shape[-1]
    if not _on_one_cpu():
        return function(*chunk, *constants)

    def compute(number: Array) -> Any:
        def part(values: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(values, number * tile, tile, axis=-1)

        return function(*jax.tree.map(part, chunk), *constants)

    def advance(number: Array, results: Any) -> Any:
        def put(whole: Array, part: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, part, number * tile, axis=-1)

        return jax.tree.map(put, results, compute(number))

    shapes = jax.eval_shape(compute, 0)
    nothing = jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape[:-1], length), leaf.dtype), shapes)
    return jax.lax.fori_loop(0, n_tiles, advance, nothing)


def _n_threads() -> int:
    """Chunks to work on at a time; devices that share a chunk must meet the chunks in one order."""
    return len(os.sched_getaffinity(0)) if _on_one_cpu() else 1


def _on_one_cpu() -> bool:
    return scaled(1) == 1
