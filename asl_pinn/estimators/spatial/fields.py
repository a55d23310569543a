"""A problem as random fields: one for each parameter, on its own scale, and what it may follow."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.estimators.covariates import tissue_covariates
from asl_pinn.estimators.spatial.gmrf import Lattice, make_lattice
from asl_pinn.estimators.spatial.options import SpatialOptions
from asl_pinn.estimators.voxelwise.grid import mean_values
from asl_pinn.models.base import Parameter
from asl_pinn.models.compose import components
from asl_pinn.problem import Problem, predict

# A softplus of relative values is linear above about 1 / _KNEE, and 1 where the field is 0.
_KNEE = 4.0
_SOFTPLUS_AT_ONE = math.log(math.expm1(_KNEE))


class Fields(NamedTuple):
    """What is fitted of P parameters, each 0 at the parameter's centre.

    Attributes
    ----------
    fields : tuple of P Array, each of shape (V,)
        Random fields, on the scale of the parameter's link, less what covariates explain.
    coefficients : tuple of P Array, each of shape (F,)
        Multiples of its F covariates that are added to a parameter's field; F is 0 for one that
        follows none.
    """

    fields: tuple[Array, ...]
    coefficients: tuple[Array, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FieldProblem:
    """A problem, and the scales, covariates and prior knowledge of its P parameters.

    Attributes
    ----------
    problem : Problem
        D measurements of V voxels; without geometry.
    lattice : Lattice
        Their neighbours.
    covariates : tuple of P Array, each of shape (F, V)
        Known maps that a parameter may follow at no cost; F is 0 for one that follows none.
    centres : tuple of P Array, each of shape () or (V,)
        Value of each parameter where its field is 0, in its unit.
    prior_precision : tuple of P (Array of shape (V,), or None)
        Of the normal prior that a model states for the values of single voxels, on the scale of
        the field; None where it states none, or a weak one.
    """

    problem: Problem
    lattice: Lattice
    covariates: tuple[Array, ...]
    centres: tuple[Array, ...]
    prior_precision: tuple[Array | None, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the model."""
        return self.problem.model.parameters


def make_field_problem(problem: Problem, options: SpatialOptions) -> FieldProblem:
    """Choose centres and scales of the fields, and find the voxels' neighbours.

    A field is centred on the value that matches the mean curve of all voxels, which lies within
    the bounds of the model; or, under a prior that is not weak, on the prior's mean.

    Parameters
    ----------
    problem : Problem
        On the host, with its geometry.
    options : SpatialOptions
        Neighbours, scale of amplitudes and covariates.

    Returns
    -------
    FieldProblem

    Raises
    ------
    ValueError
        If the problem has no geometry.
    """
    from nibabel.affines import voxel_sizes  # takes a while, for which --help should not wait

    if problem.geometry is None:
        raise ValueError("fields need to know where the voxels lie")
    dtype, parameters = problem.dtype, problem.model.parameters
    where, affine = problem.geometry
    maps = tissue_covariates(problem.tissue, options.covariates, squares=True)
    prior_means = problem.model.centres(problem.tissue, problem.blood)
    centres = tuple(
        jnp.asarray(_centre(p, mean, prior_mean, problem.n_voxels), dtype)
        for p, mean, prior_mean in zip(parameters, mean_values(problem), prior_means, strict=True)
    )
    # Where there is no artery, its arrival is told by neither data nor a field of few neighbours.
    of_sparse = {name for names in components(problem.model).values() for name in names}
    return FieldProblem(
        problem=jax.tree.map(
            lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf,
            dataclasses.replace(problem, geometry=None),
        ),
        lattice=make_lattice(where, voxel_sizes(affine), options.spatial_dims, dtype),
        covariates=tuple(jnp.asarray(maps if p.follows_tissue else maps[:0]) for p in parameters),
        centres=centres,
        prior_precision=tuple(
            _prior_precision(p, centre, options, p.name in of_sparse)
            for p, centre in zip(parameters, centres, strict=True)
        ),
    )


def _centre(p: Parameter, mean: float, prior_mean: ArrayLike, n_voxels: int) -> Any:
    if p.sparse:
        return 0.0
    if p.knowledge is not None:
        return np.broadcast_to(np.clip(prior_mean, p.lower, p.upper), (n_voxels,))
    # Values relative to 0 would all be 0.
    return mean if mean > 0.0 or p.link == "identity" else p.typical


def _prior_precision(
    p: Parameter, centre: Array, options: SpatialOptions, weak_too: bool
) -> Array | None:
    """Precision of a voxel's field under the normal prior that the model states for its value.

    The value v is normal, so that the field x = link(v) is not quite. To first order about the
    centre c, v = c + v'(0) x, and so SD(x) = SD(v) / v'(0): for a logarithm SD(v) / c.
    """
    prior = p.prior if weak_too else p.knowledge
    if prior is None:
        return None
    zero = jnp.zeros_like(centre)
    slope = jax.jvp(lambda x: to_value(p, x, centre, options), (zero,), (zero + 1.0,))[1]
    return (slope / prior.sd) ** 2


def to_value(p: Parameter, field: Array, centre: Array, options: SpatialOptions) -> Array:
    """Value of a parameter, in its unit, where its field is known.

    Parameters
    ----------
    p : Parameter
        Its link is the field's scale, unless the options say otherwise.
    field : Array, shape (..., V)
        What covariates explain included.
    centre : Array, shape () or (V,)
        Value where the field is 0.
    options : SpatialOptions
        Scale of amplitudes.

    Returns
    -------
    Array, shape (..., V)
    """
    match _link(p, options):
        case "log":
            return centre * jnp.exp(field)
        case "softplus":
            return centre * (jax.nn.softplus(_KNEE * field + _SOFTPLUS_AT_ONE) / _KNEE)
        case _:
            return centre + p.scale * field


def to_field(p: Parameter, value: ArrayLike, centre: Array, options: SpatialOptions) -> Array:
    """Inverse of `to_value`.

    Parameters
    ----------
    p : Parameter
        As in `to_value`.
    value : array_like, shape (..., V) or ()
        In the parameter's unit.
    centre : Array, shape () or (V,)
        Value where the field is 0.
    options : SpatialOptions
        Scale of amplitudes.

    Returns
    -------
    Array, shape (..., V) or ()
    """
    match _link(p, options):
        case "log":
            return jnp.log(value / centre)
        case "softplus":
            relative = value / centre
            return (jnp.log(jnp.expm1(_KNEE * relative)) - _SOFTPLUS_AT_ONE) / _KNEE
        case _:
            return (jnp.asarray(value) - centre) / p.scale


def _link(p: Parameter, options: SpatialOptions) -> str:
    if p.sparse:  # a field that is 0 where there is none; `within_bounds` keeps it from below
        return "identity"
    return "log" if p.linear and options.amplitude_scale == "log" else p.link


def explained(known: FieldProblem, fields: Fields) -> tuple[Array, ...]:
    """What the covariates add to each field.

    Parameters
    ----------
    known : FieldProblem
        V voxels.
    fields : Fields
        With any leading axes S.

    Returns
    -------
    tuple of P Array, each of shape (*S, V)
    """
    return tuple(
        multiples @ maps
        for multiples, maps in zip(fields.coefficients, known.covariates, strict=True)
    )


def totals(known: FieldProblem, fields: Fields) -> tuple[Array, ...]:
    """Fields with what the covariates add to them.

    Parameters
    ----------
    known : FieldProblem
        V voxels.
    fields : Fields
        With any leading axes S.

    Returns
    -------
    tuple of P Array, each of shape (*S, V)
    """
    return tuple(map(jnp.add, fields.fields, explained(known, fields)))


def within_bounds(options: SpatialOptions, known: FieldProblem, fields: Fields) -> Fields:
    """Fields whose values are clipped to the bounds of the model, but for amplitudes.

    An amplitude beyond its bound is reported by the status of its voxel: clipped, it would bend
    the other parameters to make up for it. What is sparse is not below 0, as it is absent from
    most voxels.

    Parameters
    ----------
    options : SpatialOptions
        Scale of amplitudes.
    known : FieldProblem
        V voxels.
    fields : Fields
        With any leading axes S.

    Returns
    -------
    Fields
    """
    added = explained(known, fields)

    def clipped(p: Parameter, field: Array, centre: Array, extra: Array) -> Array:
        if p.sparse:
            return jnp.maximum(field, 0.0)
        if p.linear:
            return field
        lower, upper = (to_field(p, bound, centre, options) for bound in (p.lower, p.upper))
        return jnp.clip(field + extra, lower, upper) - extra

    return fields._replace(
        fields=tuple(map(clipped, known.parameters, fields.fields, known.centres, added))
    )


def to_values(options: SpatialOptions, known: FieldProblem, fields: Fields) -> tuple[Array, ...]:
    """Value of each parameter, in its unit.

    Parameters
    ----------
    options : SpatialOptions
        Scale of amplitudes.
    known : FieldProblem
        V voxels.
    fields : Fields
        With any leading axes S.

    Returns
    -------
    tuple of P Array, each of shape (*S, V)
    """
    return tuple(
        to_value(p, total, centre, options)
        for p, total, centre in zip(
            known.parameters, totals(known, fields), known.centres, strict=True
        )
    )


def curves(options: SpatialOptions, known: FieldProblem, fields: Fields) -> Array:
    """Difference signal of fields.

    Parameters
    ----------
    options : SpatialOptions
        Scale of amplitudes.
    known : FieldProblem
        V voxels, D measurements.
    fields : Fields
        What is fitted.

    Returns
    -------
    Array, shape (D, V)
        In the unit of the voxels' M0.
    """
    return predict(known.problem, to_values(options, known, fields))
