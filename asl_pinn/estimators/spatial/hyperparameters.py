"""Hyperparameters of priors and noise that make the data likely (empirical Bayes)."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from asl_pinn.estimators.spatial.fields import FieldProblem, Fields
from asl_pinn.estimators.spatial.gmrf import roughness, roughness_diagonal
from asl_pinn.estimators.spatial.noise import OwnFit, first_noise, update_noise
from asl_pinn.estimators.spatial.options import SpatialOptions
from asl_pinn.estimators.spatial.posterior import EffectiveDof
from asl_pinn.estimators.spatial.prior import Hyperparameters, Prior, orders, priors_of
from asl_pinn.estimators.spatial.sparse import Sparsity
from asl_pinn.models.base import Parameter

# Of amplitudes, and of other parameters.
_FIRST_PRECISION = {True: 3.0, False: 100.0}
_MOST_PRECISION = {True: 1e4, False: 1e6}
_LARGEST_CHANGE = 5.0

# Of the roughness of what is sparse, in place of 0, whose logarithm there is none of. Vessels are
# narrower than voxels are apart: their neighbours say that they are there, not how large.
_NO_PRECISION = 1e-6

_LEAST_DOF = 0.1

# Effective degrees of freedom left out of the count, as a gamma prior of the roughness's scale
# would have it: else the precision of a field of which the data tell little runs off to infinity.
_NOT_COUNTED = 4.0


def first_hyperparameters(
    options: SpatialOptions,
    known: FieldProblem,
    noise_sd: float,
    sparsity: tuple[Sparsity | None, ...],
) -> Hyperparameters:
    """Smooth fields without edges, and noise that is the same everywhere.

    Parameters
    ----------
    options : SpatialOptions
        Orders of the roughness.
    known : FieldProblem
        Data and what is known beforehand.
    noise_sd : float
        Of one difference image [unit of the measurements].
    sparsity : tuple of P (Sparsity or None)
        Of fields that most voxels do not have.

    Returns
    -------
    Hyperparameters
    """
    dtype = known.problem.dtype
    one_axis, all_axes = known.lattice.link[:1], known.lattice.link
    return Hyperparameters(
        precision=tuple(
            jnp.asarray(_NO_PRECISION, dtype)
            if p.sparse
            else jnp.minimum(jnp.asarray(_FIRST_PRECISION[p.linear], dtype), most)
            for p, most in zip(known.parameters, _largest_precisions(options, known), strict=True)
        ),
        edge=tuple(
            jnp.ones_like(all_axes if order == 1 else one_axis) for order in orders(options, known)
        ),
        noise=first_noise(noise_sd, known.problem.measured),
        sparsity=sparsity,
    )


@functools.partial(jax.jit, static_argnames="options")
def update(
    options: SpatialOptions,
    known: FieldProblem,
    hyperparameters: Hyperparameters,
    mode: Fields,
    draws: Fields,
    effective_dof: EffectiveDof,
    own: OwnFit,
) -> tuple[Hyperparameters, Array]:
    """MacKay's fixed point: effective degrees of freedom over what they cost.

    Where the marginal likelihood of the data is largest, its derivative by the logarithm of a
    precision vanishes: lambda x'R'WRx = gamma at the mode x, with the effective degrees of freedom
    gamma = V - lambda tr(R'WR (H + Q)^-1) = tr(H (H + Q)^-1). Hence lambda <- gamma / x'R'WRx,
    which converges faster than expectation and maximisation (Penny et al. 2005 have those for
    the same prior).

    Parameters
    ----------
    options : SpatialOptions
        Distribution of the roughness, loss.
    known : FieldProblem
        Data and what is known beforehand.
    hyperparameters : Hyperparameters
        With which mode and draws were found.
    mode : Fields
        Of the posterior.
    draws : Fields, with a leading axis S
        Deviations from it.
    effective_dof : EffectiveDof
        From `gauss_newton_step`.
    own : OwnFit
        Of each voxel by itself.

    Returns
    -------
    hyperparameters : Hyperparameters
    change : Array, shape ()
        Largest absolute change of the logarithm of a precision.

    References
    ----------
    MacKay, Neural Comput 4:415-447 (1992); Penny et al., NeuroImage 24:350-362 (2005); Chung et
    al., Psychometrika 78:685-709 (2013), for scales kept off the boundary.
    """
    n_voxels = known.problem.n_voxels
    updated = [
        (precision, edge)
        if p.sparse
        else _one_field(
            prior,
            precision,
            edge,
            field,
            deviations,
            jnp.clip(dof, 1.0, n_voxels) - known.lattice.n_parts - _NOT_COUNTED,
            options.edge_dof[p.name],
            most,
        )
        for p, prior, precision, edge, field, deviations, dof, most in zip(
            known.parameters,
            priors_of(options, known, hyperparameters),
            hyperparameters.precision,
            hyperparameters.edge,
            mode.fields,
            draws.fields,
            effective_dof,
            _largest_precisions(options, known),
            strict=True,
        )
    ]
    precision, edge = zip(*updated, strict=True)
    noise = update_noise(hyperparameters.noise, known.problem, own, options.f_scale)
    change = [
        abs(jnp.log(a / b)) for a, b in zip(precision, hyperparameters.precision, strict=True)
    ]
    new = hyperparameters._replace(precision=precision, edge=edge, noise=noise)
    return new, functools.reduce(jnp.maximum, change)


def _largest_precisions(options: SpatialOptions, known: FieldProblem) -> tuple[Array, ...]:
    """What no precision of a roughness may exceed.

    Where the model states a distribution of single voxels, smoothness may not tell more about a
    voxel than that does. Else V independent priors on a nearly constant field would leave it an SD
    of 1 / sqrt(V) of what is stated. The price is that an error common to all voxels, such as one
    T1 that is wrong everywhere, is neither found from weak data nor part of the SDs.
    """

    def limit(p: Parameter, stated: Array | None, order: int) -> Array:
        most = jnp.asarray(_MOST_PRECISION[p.linear], known.problem.dtype)
        if stated is None:
            return most
        return jnp.minimum(
            most, jnp.mean(stated) / jnp.max(roughness_diagonal(known.lattice, order))
        )

    return tuple(
        limit(p, stated, order)
        for p, stated, order in zip(
            known.parameters, known.prior_precision, orders(options, known), strict=True
        )
    )


def _one_field(
    prior: Prior,
    precision: Array,
    edge: Array,
    mode: Array,
    draws: Array,
    effective_dof: Array,
    edge_dof: float,
    most: Array,
) -> tuple[Array, Array]:
    """New precision and edge weights of one field.

    Roughnesses r follow a Student t distribution of nu degrees of freedom, as a mixture of normal
    distributions of precisions w/s² with gamma-distributed w. Given r, the mean of w is
    (nu + 1) / (nu + E r²/s²), where E r² is that of the mode and the posterior's variance:
    iteratively reweighted least squares (Lange, Little and Taylor, J Am Stat Assoc 84:881-896
    (1989)). The weights are scaled to a mean of 1, as lambda has the scale.
    """

    def energy(field: Array) -> Array:
        return roughness(prior.lattice, field, prior.order) ** 2

    at_mode, variance = energy(mode), jnp.mean(jax.vmap(energy)(draws), axis=0)
    cost = jnp.maximum(jnp.sum(edge * at_mode), jnp.finfo(at_mode.dtype).tiny)
    new = jnp.maximum(effective_dof, _LEAST_DOF) / cost
    new = jnp.clip(new, precision / _LARGEST_CHANGE, precision * _LARGEST_CHANGE)
    if edge_dof > 0.0:
        moment = at_mode + variance
        scale = jnp.sum(edge * moment) / jnp.maximum(jnp.sum(moment > 0.0), 1)
        scale = jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)
        edge = (edge_dof + 1.0) / (edge_dof + moment / scale)
        edge = edge / jnp.mean(edge)
    return jnp.minimum(new, most), edge
