"""Whether a protocol can determine the parameters of a model."""

import dataclasses

import numpy as np
from scipy.stats import qmc

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import InputError
from asl_pinn.estimators.voxelwise.grid import initial_noise
from asl_pinn.estimators.voxelwise.objective import n_determined, root_mean_square, with_noise
from asl_pinn.evaluation.cramer_rao import cramer_rao_sd
from asl_pinn.models.base import KineticModel, Parameter
from asl_pinn.models.compose import Fixed, Sum
from asl_pinn.problem import Problem, take

_SAMPLE = 64
_RANGE = (0.5, 1.5)  # of typical values: CBF 20 to 60 mL/100g/min, ATT 0.6 to 1.8 s
_REFUSED = 0.1  # quantile of the bounds by which a model is refused
_TOLD = 0.9  # of the SD of a prior: where the data leave more, they add hardly anything to it


def check_identifiable(problem: Problem) -> tuple[str, ...]:
    """Refuse a sum of models that the protocol cannot determine; tell what follows priors.

    The Cramér-Rao bound is taken at values about typical ones. A model is refused where, in nine of
    ten of them, the data tell some parameter without a prior that is knowledge so little that not
    even the mean over all voxels would be known: to less than its plausible range, the SD of its
    weak prior or its typical value.

    Parameters
    ----------
    problem : Problem
        Of V voxels, its model as estimators fit it (`KineticModel.softened`); of the measurements,
        their noise is all that matters, which is estimated from them unless it is known.

    Returns
    -------
    tuple of str
        A line about the parameters that single voxels tell less of than that, if there are any.

    Raises
    ------
    InputError
        Naming the parameters, and the model to use.
    """
    model = problem.model
    if not _simpler(model):
        return ()  # nothing simpler to use instead; the methods say how many delays they need
    if model.needs_fractions:
        return ()  # single voxels cannot tell tissues apart, but voxels of other fractions beside
    noise_sd = _noise(problem)
    undetermined = _undetermined(problem, _bounds(problem, noise_sd, _REFUSED))
    bounds = _bounds(problem, noise_sd, 0.5)
    if undetermined:
        _refuse(problem, noise_sd, undetermined)
        return ()
    untold = [
        (p, sd)
        for p, sd in zip(model.parameters, bounds, strict=True)
        if sd > (_TOLD if p.knowledge else 1.0) * _plausible(p)
    ]
    if not untold:
        return ()
    listed = ", ".join(
        f"{p.symbol} (expected SD {sd:.2g}, plausible {_plausible(p):.2g} {p.unit})".replace(
            " 1)", ")"
        )
        for p, sd in untold
    )
    return (
        f"single voxels tell hardly anything of {listed}: what the maps show of it comes from "
        "priors and, where the method has any, neighbours",
    )


def _noise(problem: Problem) -> float:
    """Noise of the data, or, where there are too few to tell, a hundredth of the signal."""
    if problem.noise_sd is not None:
        return float(problem.noise_sd)
    searched = len(problem.model.linear) + len(problem.model.kinked)
    if problem.model.linear and problem.n_measurements > searched:
        return initial_noise(problem)
    tiny = float(np.finfo(np.float32).tiny)
    return max(0.01 * root_mean_square(problem.measured), tiny)


def _plausible(p: Parameter) -> float:
    """How far a parameter may lie from its typical value."""
    return abs(p.typical) if p.prior is None else p.prior.sd


def _typical(problem: Problem) -> tuple[Problem, FloatArray]:
    """A sample of voxels, and values of the parameters about typical ones, shape (P, N)."""
    model = problem.model
    index = np.linspace(0, problem.n_voxels - 1, _SAMPLE).astype(int)
    sample = take(problem, index)
    low, high = _RANGE
    parts = qmc.Halton(len(model.parameters), scramble=False).random(_SAMPLE + 1)[1:].T
    values = {}
    centres = model.centres(sample.tissue, sample.blood)
    for p, part, centre in zip(model.parameters, parts, centres, strict=True):
        about = np.broadcast_to(np.asarray(centre, np.float64), _SAMPLE)
        if p.knowledge is None:
            about = p.typical * (low + (high - low) * part)
        values[p.name] = np.clip(about, p.lower, p.upper)
    for p in model.parameters:
        if p.follows in values:
            values[p.name] = np.minimum(values[p.name], 0.9 * values[p.follows])
    return sample, np.stack(list(values.values()))


def _bounds(problem: Problem, noise_sd: float, quantile: float) -> FloatArray:
    """Cramér-Rao bound of each parameter, a quantile over typical values, shape (P,)."""
    sample, values = _typical(problem)
    bounds = cramer_rao_sd(with_noise(sample, noise_sd), values)
    # without interpolation, which between infinite bounds gives NaN
    return np.quantile(bounds, quantile, axis=-1, method="lower")


def _undetermined(problem: Problem, bounds: FloatArray) -> list[Parameter]:
    pooled = bounds / np.sqrt(problem.n_voxels)
    return [
        p
        for p, sd in zip(problem.model.parameters, pooled, strict=True)
        if p.knowledge is None and not sd < _plausible(p)
    ]


def _needed(model: KineticModel) -> int:
    """Delays that fits of a model need, one of them for the noise where the fit is robust."""
    return n_determined(model) + bool(model.kinked)


def _refuse(problem: Problem, noise_sd: float, undetermined: list[Parameter]) -> None:
    """Name a simpler model that can be determined, if one can."""
    model = problem.model
    symbols = ", ".join(p.symbol for p in undetermined)
    said = f"{problem.n_measurements} delay(s) do not determine {symbols} of model {model.name}"
    for simpler in _simpler(model):
        other = dataclasses.replace(problem, model=simpler)
        enough = problem.n_measurements >= _needed(simpler)
        if enough and not _undetermined(other, _bounds(other, noise_sd, _REFUSED)):
            raise InputError(f"{said}: use --model={simpler.name}")


def _simpler(model: KineticModel) -> list[KineticModel]:
    """The model without its last parts, one after the other, as long as a signal is left."""
    if isinstance(model, Fixed):
        return [
            Fixed(part, held) if held else part
            for part in _simpler(model.model)
            for held in ({n: v for n, v in model.held.items() if n in part.names},)
        ]
    if not isinstance(model, Sum):
        return []
    kept = [model.models[:n] for n in range(len(model.models) - 1, 0, -1)]
    found = [Sum(parts) if len(parts) > 1 else parts[0] for parts in kept]
    return [part for part in found if part.has_signal]
