"""Networks of the parameters: functions of the position, in physical units."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from asl_pinn.estimators.neural.siren import Siren
from asl_pinn.estimators.options import ByParameter
from asl_pinn.models.base import KineticModel
from asl_pinn.problem import Problem

Params = dict[str, Any]

_LEAST_START = 0.01  # of the typical value: a ratio to 0 could never leave it


class Scaling(NamedTuple):
    """What a network's output y stands for, a value for each parameter and voxel.

    Attributes
    ----------
    centre : Array
        The parameter at y = 0, in its unit.
    step : Array
        Its change for one unit of y: in its unit for a parameter of identity link, of its
        logarithm for all others.
    """

    centre: Any
    step: Any


@dataclasses.dataclass(frozen=True)
class ParameterNetworks:
    """Networks whose outputs, side by side, are those of all parameters; hashable.

    Attributes
    ----------
    modules : tuple of (str, Siren)
        By name: one for each parameter, or one for all.
    follow : tuple of bool
        Whether each takes the covariates beside the position.
    logarithmic : tuple of bool
        Whether the output of each parameter is a logarithm.
    """

    modules: tuple[tuple[str, Siren], ...]
    follow: tuple[bool, ...]
    logarithmic: tuple[bool, ...]

    def __call__(
        self, params: Params, position: Array, covariates: Array, outputs: Scaling
    ) -> Array:
        """Evaluate the parameters of B voxels.

        Parameters
        ----------
        params : Params
            Of one member.
        position : Array, shape (B, N)
            Coordinates.
        covariates : Array, shape (B, F)
            Maps of tissue.
        outputs : Scaling
            Of shape (P, B).

        Returns
        -------
        Array, shape (P, B)
            In the units of the parameters.
        """
        both = jnp.concatenate([position, covariates], axis=-1)
        raw: list[Any] = [
            module.apply(params[name], both if follows else position)
            for (name, module), follows in zip(self.modules, self.follow, strict=True)
        ]
        change = outputs.step * jnp.concatenate(raw, axis=-1).T
        # A ratio to the centre keeps amplitudes and times positive, and lets them vary by
        # factors, as flow does from white to grey matter, whatever their size.
        rows = [
            row * jnp.exp(moved) if logarithmic else row + moved
            for row, moved, logarithmic in zip(
                outputs.centre, change, self.logarithmic, strict=True
            )
        ]
        return jnp.stack(rows)


def is_logarithmic(model: KineticModel) -> tuple[bool, ...]:
    """Whether each parameter is represented by its logarithm: all that are never negative."""
    return tuple(p.link != "identity" for p in model.parameters)


def init_params(modules: Mapping[str, Siren], key: Array, dtype: DTypeLike) -> Params:
    """Draw the parameters of networks.

    Parameters
    ----------
    modules : mapping of str to Siren
        By name, each with a frequency for each input.
    key : Array, shape ()
        Randomness.
    dtype : dtype
        Floating-point type.

    Returns
    -------
    dict of str to parameters
    """
    keys = jax.random.split(key, len(modules))
    return {
        name: module.init(key, jnp.zeros((1, np.size(module.first_omega)), dtype))
        for key, (name, module) in zip(keys, modules.items(), strict=True)
    }


def scaling(problem: Problem, means: tuple[float, ...], scale: ByParameter) -> Scaling:
    """Centre the networks of a domain where its data or what is known of it lie.

    Parameters
    ----------
    problem : Problem
        The V voxels of the domain.
    means : tuple of float
        Values of the parameters that match the mean curve.
    scale : ByParameter
        Change of a parameter for one unit of output: of its logarithm, or in its `scale`.

    Returns
    -------
    Scaling
        Of shape (V, P), within the bounds. Where there is a prior that every method must keep,
        its mean is the centre and its SD the largest change for one unit of output.
    """
    model = problem.model
    known = model.centres(problem.tissue, problem.blood)
    shape, centres, steps = problem.measured.shape[-1:], [], []
    for p, mean, stated in zip(model.parameters, means, known, strict=True):
        prior = p.knowledge
        lower = p.lower if p.link == "identity" else max(p.lower, _LEAST_START * p.typical)
        centre = np.clip(np.broadcast_to(mean if prior is None else stated, shape), lower, p.upper)
        step = np.broadcast_to(scale[p.name] * (p.scale if p.link == "identity" else 1.0), shape)
        if prior is not None:
            step = np.minimum(step, prior.sd / (1.0 if p.link == "identity" else centre))
        centres.append(centre)
        steps.append(step)
    dtype = problem.dtype
    return Scaling(np.stack(centres, -1).astype(dtype), np.stack(steps, -1).astype(dtype))


def is_informed(model: KineticModel) -> bool:
    """Whether a model has priors that every method must keep."""
    return any(p.knowledge is not None for p in model.parameters)


def prior_term(problem: Problem, values: Array, centre: Array, inside: Array) -> Array:
    """What the priors that every method must keep add to a mean squared misfit in noise SDs.

    The posterior of a voxel is exp(-1/2 [sum_i n_i r_i^2 + z^2]), with its misfits r_i in SDs of
    one image, the averages n_i, and the distance z from the prior mean in SDs. A loss that is the
    mean of the squares, sum_i n_i r_i^2 / sum_i n_i, so takes z^2 / sum_i n_i more: the prior
    weighs as much as one datum of one average.

    Parameters
    ----------
    problem : Problem
        Of B voxels.
    values : Array, shape (P, B)
        Parameters.
    centre : Array, shape (P, B)
        From `scaling`: the means of these priors.
    inside : Array of bool, shape (B,)
        Voxels that count.

    Returns
    -------
    Array, shape ()
        Mean over the voxels.
    """
    rows = zip(problem.model.parameters, values, centre, strict=True)
    squares = sum(
        ((value - mean) / p.knowledge.sd) ** 2 for p, value, mean in rows if p.knowledge is not None
    )
    total = jnp.sum(jnp.where(inside, squares, 0.0)) / jnp.maximum(jnp.sum(inside), 1)
    return total / jnp.sum(problem.weights)
