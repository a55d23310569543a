"""Curves of the amplitudes on a grid of kinked parameters, each computed as few times as it can be.

A curve depends on few of the parameters, and on a voxel, but for M0, which is a factor of it,
through constants that whole slices or brains have in common. So the curves of each kind of voxels
are tabulated along the axes of the grid, and voxels look theirs up. What is made of the tables is
the same for all models with as many curves, and compiles once for them all.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from asl_pinn.arrays import IntArray
from asl_pinn.estimators.voxelwise.objective import NllsOptions, centres_inside
from asl_pinn.models.base import KineticModel, Parameter, Timing
from asl_pinn.numerics.sharding import scaled
from asl_pinn.problem import Problem, map_voxels, split, take

_MOST_COMBINATIONS = 1024
_PADDED = (1, 16, 512, 2048, 8192)
"""Numbers of kinds that tables are filled up to, so that few programs are compiled."""
_TILE = 512

Curves = tuple[Array, ...]
"""L arrays of shape (D, G_1, .., G_K, V), of length 1 along axes that a curve does not depend on:
curves of the amplitudes at their typical values, over M0."""


class Grid(NamedTuple):
    """Values of K kinked parameters that are tried, and their combinations.

    Attributes
    ----------
    axes : tuple of K Array, each of shape (G_k,)
        Evenly spaced values, in the parameter's unit.
    which : tuple of K ndarray of int, each of shape (G,)
        Which of them each of G combinations has; on the host, so that shapes are known. A parameter
        that follows another is tried at the values of that one up to its own.
    """

    axes: tuple[Array, ...]
    which: tuple[NDArray[np.intp], ...]

    @property
    def points(self) -> tuple[Array, ...]:
        """Value of each parameter at each combination: K arrays of shape (G,)."""
        return tuple(axis[index] for axis, index in zip(self.axes, self.which, strict=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Searched(KineticModel):
    """What a grid needs to know of a model whose curves are tabulated: amplitudes, kinked ones."""

    parameters: tuple[Parameter, ...]
    name = "searched"
    description = "a model on a grid"


def searched(model: KineticModel) -> Searched:
    """The same of all models with as many curves.

    Parameters
    ----------
    model : KineticModel
        Of any curves.

    Returns
    -------
    Searched
        Of its amplitudes and kinked parameters.
    """
    return Searched((*model.linear, *model.kinked))


def make_grid(model: KineticModel, options: NllsOptions, dtype: np.dtype[Any]) -> Grid:
    """Choose the values of the kinked parameters that are tried.

    Parameters
    ----------
    model : KineticModel
        With K kinked parameters, each with its bounds.
    options : NllsOptions
        Number of values.
    dtype : dtype
        Floating-point type of the result.

    Returns
    -------
    Grid
    """
    kinked = {p.name: p for p in model.kinked}
    leaders = {p.name: p.follows for p in kinked.values() if p.follows in kinked}
    count = options.grid
    if len(kinked) > 1:  # the work is the product of the counts
        count = min(count, int(_MOST_COMBINATIONS ** (1.0 / len(kinked)) + 1e-9))

    def axis(p: Parameter) -> Array:
        leader = kinked[leaders.get(p.name, p.name)]
        values = jnp.linspace(leader.lower, leader.upper, count, dtype=dtype)
        return jnp.clip(values, p.lower, p.upper) if p.name in leaders else values

    counts = (count,) * len(kinked)
    meshes = np.indices(counts).reshape(len(kinked), count ** len(kinked))
    index = dict(zip(kinked, meshes, strict=True))
    allowed = np.ones(count ** len(kinked), bool)
    for name, leader in leaders.items():
        allowed &= index[name] <= index[leader]
    return Grid(
        tuple(map(axis, kinked.values())), tuple(which[allowed] for which in index.values())
    )


def tabulate(problem: Problem, options: NllsOptions) -> tuple[Curves, IntArray]:
    """Curves of each kind of voxels, and the kind of each voxel.

    Parameters
    ----------
    problem : Problem
        V voxels, on the host; only the constants are read. Smooth parameters are at their centres.
    options : NllsOptions
        Grid.

    Returns
    -------
    tables : Curves
        Of U kinds in place of voxels.
    which : ndarray of int, shape (V,)
        Kind of each voxel.
    """
    first, which = _kinds(problem)
    return _tables_of(take(problem, first), options), which


def look_up(tables: Curves, which: Array) -> Curves:
    """Curves of voxels, from those of their kinds.

    Parameters
    ----------
    tables : Curves
        Of U kinds.
    which : Array of int, shape (V,)
        Kind of each voxel.

    Returns
    -------
    Curves
        Of V voxels.
    """
    return tuple(jnp.take(table, which, axis=-1) for table in tables)


def map_on_grid(
    function: Callable[..., Any],
    problem: Problem,
    options: NllsOptions,
    arrays: tuple[Any, ...] = (),
    constants: tuple[Any, ...] = (),
    *,
    n_voxels: int | None = None,
) -> Any:
    """Apply a compiled function to the voxels of a problem and their curves on a grid.

    Parameters
    ----------
    function : callable
        (problem, curves, *arrays, *constants) of some of the voxels to a pytree of arrays, voxels
        last; the problem's model is `searched`. Of a module, as it is compiled once for each
        function.
    problem : Problem
        Of V voxels, on the host.
    options : NllsOptions
        Grid, and `chunk_size`.
    arrays, constants
        As for `map_voxels`.
    n_voxels : int, optional
        As for `map_voxels`.

    Returns
    -------
    pytree of ndarray
        On the host, with last axis V.
    """
    n_voxels = n_voxels or problem.n_voxels
    first, which = _kinds(problem)
    most = scaled(_PADDED[-1])
    if len(first) > most:
        parts = [
            map_on_grid(
                function,
                take(problem, part),
                options,
                jax.tree.map(lambda values, part=part: values[..., part], arrays),
                constants,
                n_voxels=n_voxels,
            )
            for part in (slice(i, i + most) for i in range(0, problem.n_voxels, most))
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1), *parts)
    return map_voxels(
        _OnGrid(function),
        dataclasses.replace(problem, model=searched(problem.model)),
        (which, arrays),
        (_tables_of(take(problem, first), options), constants),
        chunk_size=options.chunk_size,
        n_voxels=n_voxels,
    )


@dataclasses.dataclass(frozen=True)
class _OnGrid:
    """A function of curves as one of their tables; hashable, so that it compiles once."""

    function: Callable[..., Any]

    def __call__(
        self,
        problem: Problem,
        which: Array,
        arrays: tuple[Any, ...],
        tables: Curves,
        constants: tuple[Any, ...],
    ) -> Any:
        return self.function(problem, look_up(tables, which), *arrays, *constants)


def _kinds(problem: Problem) -> tuple[IntArray, IntArray]:
    """The first voxel of each kind, shape (U,), and the kind of each, (V,).

    Of a kind are voxels of the same constants but for M0.
    """
    per_voxel, _ = split(problem)
    constants = per_voxel._replace(measured=None, m0=None)
    kind = np.zeros(problem.n_voxels, np.intp)
    first = np.zeros(1, np.intp)
    for values in map(np.asarray, jax.tree.leaves(constants)):
        if (values == values[0]).all():
            continue
        _, level = np.unique(values, return_inverse=True)
        _, first, kind = np.unique(
            kind * (level.max() + 1) + level, return_index=True, return_inverse=True
        )
    return first, kind.astype(np.int32)


def _tables_of(kinds: Problem, options: NllsOptions) -> Curves:
    """Curves of U voxels, filled up with copies of the last one."""
    sizes = (*_PADDED[:-1], scaled(_PADDED[-1]))
    missing = next(size for size in sizes if size >= kinds.n_voxels) - kinds.n_voxels
    index = np.pad(np.arange(kinds.n_voxels), (0, missing), mode="edge")
    tables: Curves = map_voxels(_curves, take(kinds, index), (), (options,), chunk_size=_TILE)
    return tables


def _curves(problem: Problem, options: NllsOptions) -> Curves:
    """Each kinked parameter has an axis of its own."""
    axes = make_grid(problem.model, options, problem.dtype).axes
    n_axes = len(axes)
    t, label_duration, readout_delay = problem.timing
    column = (-1, *[1] * (n_axes + 1))
    timing = Timing(jnp.reshape(t, column), jnp.reshape(label_duration, column), readout_delay)
    centres = dict(zip(problem.model.names, centres_inside(problem), strict=True))
    held = [centres[p.name] for p in problem.model.smooth]
    rows = problem.model.basis(held, timing, problem.tissue._replace(m0=1.0), problem.blood)(
        *(
            axis.reshape(*[-1 if i == k else 1 for i in range(n_axes + 1)])
            for k, axis in enumerate(axes)
        )
    )
    least = (problem.n_measurements, *[1] * n_axes, problem.n_voxels)
    return tuple(jnp.broadcast_to(row, jnp.broadcast_shapes(row.shape, least)) for row in rows)
