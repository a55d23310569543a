"""Dictionary matching: the best of many transit times, each with the CBF that suits it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from asl_pinn.estimators.base import Estimate, Estimator, RunContext, voxel_status
from asl_pinn.estimators.options import option
from asl_pinn.problem import Problem, bases, map_voxels


@dataclasses.dataclass(frozen=True)
class DictionaryOptions:
    """Options of `dictionary`; each becomes a flag of `asl-pinn quantify`."""

    entries: int = option(300, "Values to try of the parameter that is searched.")


def fit(problem: Problem, options: DictionaryOptions, context: RunContext) -> Estimate:
    """Try every transit time in every voxel; the signal is nearly linear in CBF."""
    (searched,) = problem.model.kinked
    tried = np.linspace(searched.lower, searched.upper, options.entries + 2)[1:-1]
    values = map_voxels(_match, problem, constants=(tried.astype(context.dtype),), chunk_size=256)
    return Estimate(values, voxel_status(values, problem.model))


def _match(problem: Problem, tried: jax.Array) -> jax.Array:
    model, weights = problem.model, problem.weights
    centres = dict(zip(model.names, model.centres(problem.tissue, problem.blood), strict=True))
    curves = bases(problem, [centres[p.name] for p in model.smooth])
    dictionary = jnp.stack([curve(tried[:, None])[0] for curve in curves])  # (D, entries, V)
    power = jnp.maximum(jnp.einsum("d,dev->ev", weights, dictionary**2), 1e-30)
    fit = jnp.einsum("d,dev,dv->ev", weights, dictionary, problem.measured) / power
    best = jnp.argmax(jnp.maximum(fit, 0.0) ** 2 * power, axis=0)
    amplitude = jnp.take_along_axis(fit, best[None], axis=0)[0] * model.linear[0].typical
    found = {**centres, model.linear[0].name: amplitude, model.kinked[0].name: tried[best]}
    return jnp.stack([jnp.broadcast_to(found[name], amplitude.shape) for name in model.names])


DICTIONARY = Estimator(
    fit, DictionaryOptions, "dictionary matching", "Signals were compared with {entries} curves."
)
