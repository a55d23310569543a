"""The devices that JAX finds, and arrays sharded over all of them."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# An accelerator needs many voxels at once to be busy.
_GAIN = 256


def n_devices() -> int:
    """Devices of this process."""
    return jax.local_device_count()


def scaled(length: int) -> int:
    """How much work suits all devices at once, where `length` suits a CPU."""
    fast = jax.default_backend() != "cpu"
    return length * n_devices() * (_GAIN if fast else 1)


def lay_over_devices(tree: Any, axis: int, *lengths: int) -> Any:
    """Cut axes of arrays over the devices.

    Parameters
    ----------
    tree : pytree of arrays
        A leaf is cut along as many of its axes as have the lengths stated.
    axis : {0, -1}
        0 where the lengths are those of the first axes; -1 where the one length is the last axis'.
    *lengths : int
        Of the axes along which nothing, or little, is exchanged. An axis is cut in as many
        parts as both divide it and are left for it.

    Returns
    -------
    pytree of arrays
        On the devices; as it came where there is but one to use.
    """
    parts: list[int] = []
    for length in lengths:
        parts.append(math.gcd(length, n_devices() // math.prod(parts)))
    used = math.prod(parts)
    if used == 1:
        return tree
    names = tuple(f"axis_{number}" for number in range(len(lengths)))
    grid = np.array(jax.local_devices()[:used]).reshape(parts)
    mesh = Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))

    def place(leaf: Any) -> Any:
        shape = np.shape(leaf)[::-1] if axis else np.shape(leaf)
        known = 0
        while known < min(len(lengths), len(shape)) and shape[known] == lengths[known]:
            known += 1
        cut: tuple[str | None, ...] = names[:known]
        if axis and known:
            cut = (None,) * (len(shape) - 1) + cut
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*cut)))

    return jax.tree.map(place, tree)
