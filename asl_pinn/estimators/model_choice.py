"""The model of a data set, chosen by the data: tissue alone, with arterial blood, dispersed or not.

Two scores have to agree before a part is added to the model. The evidence asks under which model
the data of a sample of voxels are likelier, all parameters of the voxels integrated out, so that a
part that is not needed makes it smaller. Prediction asks how likely each delay is, given the
others: a part that only takes up what the noise was not thought to do does not predict.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jax.typing import DTypeLike

from asl_pinn import models
from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, normalised
from asl_pinn.errors import InputError
from asl_pinn.estimators.identifiability import check_identifiable
from asl_pinn.estimators.voxelwise import sparse
from asl_pinn.estimators.voxelwise.grid import grid_posterior
from asl_pinn.estimators.voxelwise.mixture import Mixture, mixture_prior, normals_of
from asl_pinn.estimators.voxelwise.objective import NllsOptions, n_determined, with_noise
from asl_pinn.estimators.voxelwise.uncertainty import population_prior
from asl_pinn.models.base import KineticModel, Parameter
from asl_pinn.models.choice import Candidate, ModelChoice, candidates
from asl_pinn.models.compose import components
from asl_pinn.problem import Problem, make_problem, take

_LOG = logging.getLogger(__name__)
_OPTIONS = NllsOptions()
_SAMPLE = 512
_FEWEST = 100
"""Voxels below which a few per cent of them, as many as have arteries, tell nothing."""
_TRIED = (-1.0, 0.0, 1.0)
"""Values of a shared parameter that stand for all: in SDs of its prior from the mean."""


def no_change(model: KineticModel) -> KineticModel:
    """The model as it is."""
    return model


def choose_model(
    data: AslData,
    adjust: Callable[[KineticModel], KineticModel] = no_change,
    *,
    held: Mapping[str, float] | None = None,
    dtype: DTypeLike = "float32",
) -> ModelChoice:
    """Choose the kinetic model of data.

    Models with one part more each are tried in turn, as long as the part raises both the evidence
    and the predictive probability of delays that are left out. The evidence pays half the
    logarithm of the number of voxels for each hyperparameter (Schwarz 1978): where there is no
    artery, twice what it gains follows about a chi-square distribution with as many degrees
    of freedom, and beats that by chance in one data set of a hundred thousand.

    Parameters
    ----------
    data : AslData
        Volumes.
    adjust : callable
        Gives a candidate the user's bounds and priors.
    held : mapping of str to float, optional
        Values of parameters that are not to be fitted; with any, there is no choice.
    dtype : dtype
        Floating-point type of the work.

    Returns
    -------
    ModelChoice
        Tissue alone where vessels were crushed, parameters are held, or there are too few delays
        or voxels.

    Raises
    ------
    InputError
        If there is no valid voxel, or an adjusted candidate is at fault.

    References
    ----------
    Schwarz, Ann Stat 6:461-464 (1978), for what hyperparameters cost; Geisser and Eddy, J Am Stat
    Assoc 74:153-160 (1979), for predictive probabilities of what is left out.
    """
    first, *others = candidates(data.protocol)
    fitted = [adjust(models.get(name)).softened() for name in others]
    data, _ = normalised(data)
    problem = make_problem(data, fitted[0], dtype)
    obstacle = _obstacle(data, problem, held or {})
    if obstacle:
        return ModelChoice(first, f"{obstacle}, tissue alone is fitted")
    index = np.linspace(0, problem.n_voxels - 1, min(_SAMPLE, problem.n_voxels)).astype(int)
    sample = take(problem, index)
    # Chunks as the fit of all voxels has them, so that both are served by the same compilations.
    n_voxels = problem.n_voxels
    noise_sd, mixture = sparse.noise_and_mixture(sample, _OPTIONS, n_voxels=n_voxels)
    known = with_noise(sample, noise_sd)
    alone = _alone(sparse.plain(known), n_voxels)
    predicted: FloatArray | None = None  # by tissue alone, once it is needed
    compared = [Candidate(first, 0.0, 0.0, 0.0)]
    chosen, reason = compared[0], ""
    for name, model in zip(others, fitted, strict=True):
        scored = _best(dataclasses.replace(known, model=model), mixture, n_voxels)
        paid = 0.5 * np.log(sample.n_voxels) * _n_hyperparameters(model) / sample.n_voxels
        candidate = Candidate(
            name, _mean_gain(scored.evidence, alone.evidence) - float(paid), None, scored.fraction
        )
        likelier = candidate.evidence > chosen.evidence
        if likelier:
            predicted = alone.prediction() if predicted is None else predicted
            gain = _mean_gain(scored.prediction(), predicted)
            candidate = dataclasses.replace(candidate, prediction=gain)
        compared.append(candidate)
        if not (likelier and _prediction(candidate) > _prediction(chosen)):
            reason = reason or _against(candidate, chosen)
            break
        try:
            check_identifiable(
                with_noise(dataclasses.replace(problem, model=scored.model), noise_sd)
            )
        except InputError as error:
            reason = reason or str(error)
            break
        chosen, reason = candidate, _for(candidate, first)
    found = ModelChoice(chosen.model, reason, sample.n_voxels, tuple(compared))
    _LOG.info("%s: %s", data.stem, found.sentence)
    return found


def sparse_probability(problem: Problem) -> dict[str, FloatArray]:
    """Probability that each voxel has the sparse component of the problem's model.

    Of single voxels, on the grid of `nlls`; how many have it, and how much, the data of all tell.

    Parameters
    ----------
    problem : Problem
        Of V voxels, its shared parameters held.

    Returns
    -------
    dict of str to ndarray, shape (V,)
        By name of the component's amplitude; empty for a model without, and for one of several
        tissues, which single voxels cannot tell apart.
    """
    amplitudes = components(problem.model)
    if not amplitudes or problem.model.needs_fractions:
        return {}
    noise_sd, mixture = sparse.noise_and_mixture(problem, _OPTIONS)
    known = with_noise(problem, noise_sd)
    probability = sparse.select(known, _OPTIONS, begin=mixture).probability
    return dict.fromkeys(amplitudes, probability)


class _Scored(NamedTuple):
    """Of a model: log evidence and log predictive probability by voxel, each of shape (V,)."""

    model: KineticModel  # what voxels share held
    evidence: FloatArray
    prediction: Callable[[], FloatArray]  # takes as many times as long as there are delays
    fraction: float


def _obstacle(data: AslData, problem: Problem, held: Mapping[str, float]) -> str:
    """Why there is no choice; nothing where there is one."""
    needed = n_determined(problem.model) + 1
    if data.protocol.vascular_crushing:
        return "gradients crushed the signal of arteries (VascularCrushing)"
    if held:
        listed = ", ".join(held)
        return f"what is held ({listed}) would leave misfits that look like arteries"
    if problem.n_measurements < needed:
        return f"arteries need {needed} delays, of which there are {problem.n_measurements}"
    if problem.n_voxels < _FEWEST:
        return f"{problem.n_voxels} voxels do not tell whether there are arteries"
    return ""


def _for(candidate: Candidate, first: str) -> str:
    return (
        f"in {100.0 * candidate.fraction:.0f} % of the voxels it describes what {first} does not: "
        f"the log evidence is higher by {candidate.evidence:.3g} per voxel, and the log "
        f"probability of delays left out by {_prediction(candidate):.3g}"
    )


def _against(candidate: Candidate, simpler: Candidate) -> str:
    said = f"by {candidate.evidence - simpler.evidence:.2g} per voxel"
    if candidate.prediction is not None:
        change = candidate.prediction - _prediction(simpler)
        said += f", and the log probability of delays left out by {change:.2g}"
    return f"{candidate.model} does not describe the data better: the log evidence changes {said}"


def _prediction(candidate: Candidate) -> float:
    return 0.0 if candidate.prediction is None else candidate.prediction


def _mean_gain(ours: FloatArray, theirs: FloatArray) -> float:
    return float(np.mean(ours - theirs, dtype=np.float64))


def _alone(problem: Problem, n_voxels: int) -> _Scored:
    """Of the model of tissue alone."""
    population = population_prior(problem, _OPTIONS)

    def evidence(each: Problem) -> FloatArray:
        return grid_posterior(each, _OPTIONS, population, n_voxels=n_voxels).log_evidence

    whole = evidence(problem)
    return _Scored(
        problem.model, whole, lambda: _predictive(whole, map(evidence, _leaving_out(problem))), 0.0
    )


def _best(problem: Problem, begin: Mixture | None, n_voxels: int) -> _Scored:
    """Of a model with a sparse component, at the best of some values of what voxels share."""
    shared = [p for p in problem.model.parameters if p.shared]
    trials = [{p.name: _shifted(p, n) for p in shared} for n in (_TRIED if shared else (0.0,))]
    tried = [
        dataclasses.replace(problem, model=models.fix(problem.model, **values)) for values in trials
    ]
    mixtures = [mixture_prior(each, _OPTIONS, begin) for each in tried]

    def evidence(each: Problem, mixture: Mixture) -> FloatArray:
        return _of_mixture(each, mixture, n_voxels)

    evidences = list(map(evidence, tried, mixtures))
    best = int(np.argmax([np.mean(each, dtype=np.float64) for each in evidences]))
    mixture, whole = mixtures[best], evidences[best]

    def prediction() -> FloatArray:
        left = (evidence(each, mixture) for each in _leaving_out(tried[best]))
        return _predictive(whole, left)

    return _Scored(tried[best].model, whole, prediction, float(np.asarray(mixture.fraction)))


def _shifted(p: Parameter, n_sd: float) -> float:
    """Value of a parameter so many SDs of its prior from the mean, inside of its bounds."""
    if p.prior is None or p.prior.mean is None:
        return p.typical
    return float(np.clip(p.prior.mean + n_sd * p.prior.sd, p.lower, p.upper))


def _of_mixture(problem: Problem, mixture: Mixture, n_voxels: int) -> FloatArray:
    """Log evidence of each voxel, whether it has the component or not, shape (V,)."""
    fraction = np.asarray(mixture.fraction)
    normals = normals_of(problem.model, mixture.whole)
    found = sparse.select_under(problem, _OPTIONS, normals, fraction, n_voxels=n_voxels)
    return np.logaddexp(
        np.log1p(-fraction) + found.without.log_evidence,
        np.log(fraction) + found.whole.log_evidence,
    )


def _leaving_out(problem: Problem) -> Iterator[Problem]:
    """The problem with each measurement in turn of no weight; compiled programs serve them all."""
    for index in range(problem.n_measurements):
        weights = np.array(problem.weights)
        weights[index] = 0.0
        yield dataclasses.replace(problem, weights=weights)


def _predictive(whole: FloatArray, left: Iterator[FloatArray]) -> FloatArray:
    """Sum over the measurements of log p(one | the others) = log p(all) - log p(the others)."""
    return np.sum([whole - each for each in left], axis=0)


def _n_hyperparameters(model: KineticModel) -> int:
    """That a model has besides those of tissue alone: of its components, and what voxels share."""
    count = sum(p.shared for p in model.parameters)
    for others in components(model).values():
        # The fraction, and the SD of the amplitude; mean and SD of each other parameter.
        count += 2 + 2 * len(others)
    return count
