"""What an estimator is given: the voxels to be fitted as flat arrays, with all that is known."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.models.base import Blood, KineticModel, Timing, Tissue, Values
from asl_pinn.models.choice import check_labeling
from asl_pinn.numerics.batching import chunk_for, map_chunked


class Geometry(NamedTuple):
    """Where the voxels lie; on the host.

    Attributes
    ----------
    where : ndarray of bool, shape (X, Y, Z)
        The V voxels, in the order of `volume[where]`.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    """

    where: NDArray[np.bool_]
    affine: FloatArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Input of every estimator: D measurements first, V voxels last.

    On a CPU, arrays whose last axis is long run fastest.

    Attributes
    ----------
    measured : Array, shape (D, V)
        Control - label differences [a.u.].
    weights : Array, shape (D,)
        Differences that were averaged: the weight of each square.
    timing : Timing
        `t` and `label_duration` of shape (D,), `readout_delay` of shape (V,) [s].
    tissue : Tissue
        `m0` and `t1_tissue` of shape (V,), and `gm` and `wm` where the model needs them; the rest
        are numbers.
    blood : Blood
        Numbers.
    model : KineticModel
        To be fitted.
    noise_sd : array_like, shape (), or None
        Standard deviation of one difference image [a.u.], once it has been estimated.
    geometry : Geometry or None
        Where the voxels lie; None inside of compiled programs, which need none.
    """

    measured: Any
    weights: Any
    timing: Timing
    tissue: Tissue
    blood: Blood
    model: KineticModel
    noise_sd: Any = None
    geometry: Geometry | None = None

    @property
    def n_measurements(self) -> int:
        """Number of measurements D."""
        return int(self.measured.shape[0])

    @property
    def n_voxels(self) -> int:
        """Number of voxels V."""
        return int(self.measured.shape[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Floating-point type."""
        return np.dtype(self.measured.dtype)


_APART: Any = None  # in place of an array that `split` has taken out


class PerVoxel(NamedTuple):
    """The arrays of a problem that have a value for each voxel; voxels last."""

    measured: Any
    m0: Any
    t1_tissue: Any
    readout_delay: Any
    gm: Any = None
    wm: Any = None


def make_problem(data: AslData, model: KineticModel, dtype: DTypeLike) -> Problem:
    """Gather the valid voxels out of the volumes.

    Parameters
    ----------
    data : AslData
        Volumes; `data.valid` selects.
    model : KineticModel
        To be fitted.
    dtype : dtype
        Floating-point type of the arrays.

    Returns
    -------
    Problem
        Host arrays, in the order of `volume[data.valid]`.

    Raises
    ------
    InputError
        If there is no valid voxel, the model describes another kind of labelling or needs fractions
        of tissues that are not known, or float64 is asked for while JAX's 64-bit mode is off.
    """
    check_labeling(model, data.protocol)
    kind = np.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(kind) != kind:
        raise InputError(f"{kind} needs JAX's 64-bit mode (jax_enable_x64)")
    where = data.valid
    if not where.any():
        raise InputError(
            "no voxel can be fitted: the mask is empty, or the data inside it are not finite"
        )
    index = np.flatnonzero(where)

    def gather(volume: FloatArray) -> FloatArray:
        flat = np.take(volume.reshape(-1, *volume.shape[3:]), index, axis=0)
        return np.ascontiguousarray(flat.T, dtype=kind)

    protocol = data.protocol
    return Problem(
        measured=gather(data.delta_m),
        weights=np.asarray(data.n_averages, kind),
        timing=Timing(
            np.asarray(protocol.t, kind),
            np.asarray(protocol.label_duration, kind),
            gather(data.readout_delay),
        ),
        tissue=Tissue(
            gather(data.m0),
            gather(data.t1_tissue),
            protocol.partition_coefficient,
            *_fractions(data, model, gather),
            protocol.t1_gm,
            protocol.t1_wm,
        ),
        blood=Blood(protocol.t1_blood, protocol.labeling_efficiency),
        model=model,
        geometry=Geometry(where, data.affine),
    )


def _fractions(
    data: AslData, model: KineticModel, gather: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray | None, FloatArray | None]:
    """Fractions of grey and white matter, between 0 and 1 in all, where the model needs them."""
    if not model.needs_fractions:
        return None, None  # so that other models are compiled without them
    if data.gm is None or data.wm is None:
        raise InputError(
            f"model {model.name} needs the fractions of grey and white matter: give --gm and --wm, "
            "probability maps on the grid of the ASL series, or --gm=t1"
        )
    gm, wm = (np.clip(np.nan_to_num(gather(part)), 0.0, 1.0) for part in (data.gm, data.wm))
    excess = np.maximum(gm + wm, 1.0)
    return gm / excess, wm / excess


def split(problem: Problem) -> tuple[PerVoxel, Problem]:
    """Take the arrays with a value for each voxel out of a problem, to be cut into chunks.

    Parameters
    ----------
    problem : Problem
        Of V voxels.

    Returns
    -------
    per_voxel : PerVoxel
    shared : Problem
        What is left, without its geometry: the same for all chunks.
    """
    timing, tissue = problem.timing, problem.tissue
    per_voxel = PerVoxel(
        problem.measured,
        tissue.m0,
        tissue.t1_tissue,
        timing.readout_delay,
        tissue.gm,
        tissue.wm,
    )
    shared = dataclasses.replace(
        problem,
        measured=_APART,
        timing=timing._replace(readout_delay=_APART),
        tissue=tissue._replace(m0=_APART, t1_tissue=_APART, gm=_APART, wm=_APART),
        geometry=None,
    )
    return per_voxel, shared


def join(per_voxel: PerVoxel, shared: Problem) -> Problem:
    """Put together what `split` took apart, or a chunk of it.

    Parameters
    ----------
    per_voxel : PerVoxel
        Of any voxels.
    shared : Problem
        From `split`.

    Returns
    -------
    Problem
    """
    measured, m0, t1_tissue, readout_delay, gm, wm = per_voxel
    return dataclasses.replace(
        shared,
        measured=measured,
        timing=shared.timing._replace(readout_delay=readout_delay),
        tissue=shared.tissue._replace(m0=m0, t1_tissue=t1_tissue, gm=gm, wm=wm),
    )


def take(problem: Problem, index: IntArray | slice) -> Problem:
    """Some of the voxels of a problem, without their geometry.

    Parameters
    ----------
    problem : Problem
        Of V voxels.
    index : ndarray of int, shape (N,), or slice
        Which.

    Returns
    -------
    Problem
        Of N voxels.
    """
    per_voxel, shared = split(problem)
    return join(jax.tree.map(lambda values: values[..., index], per_voxel), shared)


def predict(problem: Problem, values: Values) -> Array:
    """Difference signal that the model predicts for the voxels of a problem.

    Parameters
    ----------
    problem : Problem
        Only the constants are read.
    values : sequence of array_like, each of shape (*S, V) or ()
        One for each parameter, in its unit; S may be ().

    Returns
    -------
    Array, shape (D, *S, V)
        In the unit of M0.
    """
    shape = jnp.broadcast_shapes(*map(jnp.shape, (*values, problem.tissue.m0)))
    column = (-1,) + (1,) * len(shape)
    t, label_duration, readout_delay = problem.timing
    timing = Timing(jnp.reshape(t, column), jnp.reshape(label_duration, column), readout_delay)
    return problem.model.signal(values, timing, problem.tissue, problem.blood)


def bases(
    problem: Problem, held: Values, factors: ArrayLike | None = None
) -> tuple[Callable[..., tuple[Array, ...]], ...]:
    """Curves of the linear parameters of every measurement, as functions of the kinked parameters.

    Parameters
    ----------
    problem : Problem
        Only the constants are read.
    held : sequence of array_like
        Values of the parameters that are neither linear nor kinked.
    factors : array_like, shape (D,), optional
        Factors of the signals.

    Returns
    -------
    tuple of D callables
        From `KineticModel.basis`. They are apart, as sums over them then compile to one loop over
        the voxels.
    """
    t, label_duration, readout_delay = problem.timing
    tissue, model = problem.tissue, problem.model
    scaled = [tissue] * problem.n_measurements
    if factors is not None:
        scaled = [tissue._replace(m0=factor * tissue.m0) for factor in jnp.asarray(factors)]
    return tuple(
        model.basis(held, Timing(when, bolus, readout_delay), one, problem.blood)
        for when, bolus, one in zip(
            jnp.asarray(t), jnp.asarray(label_duration), scaled, strict=True
        )
    )


@dataclasses.dataclass(frozen=True)
class _OnProblem:
    """A function of a problem as one of its arrays; hashable, so that it compiles once."""

    function: Callable[..., Any]

    def __call__(
        self, per_voxel: PerVoxel, arrays: tuple[Any, ...], shared: Problem, *rest: Any
    ) -> Any:
        return self.function(join(per_voxel, shared), *arrays, *rest)


def map_voxels(
    function: Callable[..., Any],
    problem: Problem,
    arrays: tuple[Any, ...] = (),
    constants: tuple[Any, ...] = (),
    *,
    chunk_size: int = 4096,
    n_voxels: int | None = None,
) -> Any:
    """Apply a compiled function to the voxels of a problem, chunk by chunk, on all cores.

    Parameters
    ----------
    function : callable
        (problem, *arrays, *constants) of some of the voxels to a pytree of arrays, voxels last.
        Of a module, as it is compiled once for each function.
    problem : Problem
        Of V voxels, on the host.
    arrays : tuple of pytrees of ndarray, each of shape (..., V)
        Further values of each voxel.
    constants : tuple of pytrees
        The same for all voxels.
    chunk_size : int
        Most voxels of a chunk on a CPU.
    n_voxels : int, optional
        For how many voxels to choose the chunks, so that a sample of a volume is served by the same
        compilation as the volume; those of the problem unless given.

    Returns
    -------
    pytree of ndarray
        On the host, with last axis V.
    """
    per_voxel, shared = split(problem)
    size = chunk_for(n_voxels or problem.n_voxels, chunk_size)
    return map_chunked(_OnProblem(function), (per_voxel, arrays), size, (shared, *constants))
