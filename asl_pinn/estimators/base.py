"""What every estimator is: a function of a problem, its options and a context to an estimate."""

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.data import AslData, Maps, Status, normalised, to_volume
from asl_pinn.errors import InputError
from asl_pinn.estimators.options import MIN_FRACTION
from asl_pinn.models.base import KineticModel
from asl_pinn.models.compose import components
from asl_pinn.models.partial_volume import TISSUE_LABELS, fraction_of
from asl_pinn.problem import Problem, make_problem


@dataclasses.dataclass(frozen=True)
class RunContext:
    """Circumstances of a run, as opposed to what it computes.

    Attributes
    ----------
    seed : int
        Of everything random in the estimator.
    dtype : str
        'float32', or 'float64' with JAX's 64-bit mode on.
    progress : bool
        Whether to draw progress bars.
    checkpoint_dir : Path or None
        Where a long training keeps its state, to resume after a kill; None for nowhere.
    """

    seed: int = 0
    dtype: str = "float32"
    progress: bool = False
    checkpoint_dir: Path | None = None


class Estimate(NamedTuple):
    """What an estimator finds in V voxels; host arrays, voxels last.

    Attributes
    ----------
    values : ndarray, shape (P, V)
        Parameters of the problem's model, in their units.
    status : ndarray of int, shape (V,)
        `Status` of each voxel.
    sd : ndarray, shape (P, V), or None
        Standard deviations in the same units.
    noise_sd : float or None
        Standard deviation of one difference image [unit of delta_m].
    samples : ndarray, shape (S, P, V), or None
        Draws from the posterior.
    history : mapping of str to ndarray
        What a training or an iteration recorded, step by step.
    probability : mapping of str to ndarray, shape (V,), or None
        That a voxel has a sparse component, by name of its amplitude, where the method tells it.
    """

    values: Any
    status: Any
    sd: Any = None
    noise_sd: float | None = None
    samples: Any = None
    history: Mapping[str, Any] = {}
    probability: Mapping[str, Any] | None = None


Fit = Callable[[Problem, Any, RunContext], Estimate]


@dataclasses.dataclass(frozen=True)
class Estimator:
    """A method by name.

    Attributes
    ----------
    fit : callable
        (problem, options, context) -> estimate.
    options : type
        Dataclass of the method's options.
    summary : str
        One line for people.
    description : str
        A sentence for a methods section, in which {name} stands for an option of that name and
        [2], [3], ... for `references`, as if one work were cited before them: the kinetic model's.
    references : tuple of str
        Works that it cites.
    words : dict of str to callable
        What that sentence says for the values of some options.
    weak_priors : bool
        Whether weak priors of the model enter the fit; False for a method that learns the
        distribution of a parameter over the voxels instead.
    """

    fit: Fit
    options: type
    summary: str
    description: str
    references: tuple[str, ...] = ()
    words: Mapping[str, Callable[[Any], str]] = dataclasses.field(default_factory=dict)
    weak_priors: bool = True

    def describe(self, options: Mapping[str, Any], n_cited: int = 1) -> str:
        """The sentence for a methods section.

        Parameters
        ----------
        options : mapping of str to Any
            Values of the estimator's options.
        n_cited : int
            Works that the text cites before: `references` are numbered from `n_cited` + 1.

        Returns
        -------
        str
        """
        offset = n_cited - 1
        said = {name: _renumbered(say(options[name]), offset) for name, say in self.words.items()}
        return _renumbered(self.description, offset).format_map({**options, **said})


def _renumbered(text: str, offset: int) -> str:
    """The text with the numbers of citations such as [2, 3] moved."""

    def moved(citation: re.Match[str]) -> str:
        numbers = (str(int(number) + offset) for number in re.findall(r"\d+", citation.group()))
        return f"[{', '.join(numbers)}]"

    return re.sub(r"\[\d+(, \d+)*\]", moved, text)


@dataclasses.dataclass(frozen=True)
class DeferredFit:
    """A fit that is imported when it is called, so that `--help` does not wait for its libraries.

    Attributes
    ----------
    where : str
        'module:function'.
    """

    where: str

    def load(self) -> Fit:
        """The function itself."""
        module, _, name = self.where.partition(":")
        fit: Fit = getattr(importlib.import_module(module), name)
        return fit

    def __call__(self, problem: Problem, options: Any, context: RunContext) -> Estimate:
        """Call it."""
        return self.load()(problem, options, context)


def voxel_status(
    values: FloatArray,
    model: KineticModel,
    converged: NDArray[np.bool_] | bool = True,
    tolerance: float = 1e-5,
) -> IntArray:
    """Tell voxels on or beyond a bound, and those that did not converge, from the others.

    What is sparse and absent from a voxel is on no bound there.

    Parameters
    ----------
    values : ndarray, shape (P, V)
        Parameters of the model, in their units.
    model : KineticModel
        Its parameters have the bounds.
    converged : ndarray of bool, shape (V,), or bool
        Whether the fit of a voxel came to its end.
    tolerance : float
        How near a bound counts as on it, over the distance of the two bounds.

    Returns
    -------
    ndarray of int, shape (V,)
        `Status` of each voxel.
    """
    at_bound = np.zeros(np.shape(values)[-1], bool)
    by_name = dict(zip(model.names, values, strict=True))
    absent = {
        name: by_name[amplitude] == 0.0
        for amplitude, others in components(model).items()
        for name in (amplitude, *others)
    }
    for p in model.parameters:
        found, margin = by_name[p.name], tolerance * (p.upper - p.lower)
        here = (found <= p.lower + margin) | (found >= p.upper - margin)
        at_bound |= here & ~absent.get(p.name, np.False_)
    status = np.where(at_bound, Status.ON_BOUND, Status.FITTED)
    return np.where(converged, status, Status.NOT_CONVERGED)


def without_absent(found: Estimate, problem: Problem, min_fraction: float) -> Estimate:
    """Set parameters of a tissue to 0 where there is hardly any of it.

    Parameters
    ----------
    found : Estimate
        Of all voxels.
    problem : Problem
        With fractions, if its model has parameters of single tissues.
    min_fraction : float
        Least fraction of a tissue for which its parameters are told.

    Returns
    -------
    Estimate
        Voxels with hardly any tissue at all count as skipped.
    """
    if not problem.model.needs_fractions:
        return found
    absent = np.stack(
        [
            fraction_of(problem.tissue, p.tissue) < min_fraction
            if p.tissue
            else np.zeros(problem.n_voxels, bool)
            for p in problem.model.parameters
        ]
    )
    none = np.all(
        [fraction_of(problem.tissue, label) < min_fraction for label in TISSUE_LABELS], axis=0
    )

    def masked(values: Any) -> Any:
        return None if values is None else np.where(absent, 0.0, values).astype(values.dtype)

    return found._replace(
        values=masked(found.values),
        status=np.where(none, Status.SKIPPED, found.status),
        sd=masked(found.sd),
        samples=masked(found.samples),
    )


def estimate_maps(
    data: AslData,
    method: str,
    estimator: Estimator,
    model: KineticModel,
    options: Any,
    context: RunContext,
) -> Maps:
    """Fit a model to data and put the estimate into volumes.

    Parameters
    ----------
    data : AslData
        Volumes.
    method : str
        Name of the estimator.
    estimator : Estimator
        What fits.
    model : KineticModel
        What is fitted.
    options : dataclass
        Of the estimator.
    context : RunContext
        Seed, type, progress, checkpoints.

    Returns
    -------
    Maps

    Raises
    ------
    InputError
        If the data cannot be fitted so.
    """
    from asl_pinn.estimators.identifiability import check_identifiable
    from asl_pinn.estimators.model_choice import sparse_probability  # `--help` needs none of them
    from asl_pinn.estimators.shared import hold_shared, put_back, settle_shared
    from asl_pinn.estimators.voxelwise.objective import check_arrival

    model = model.softened()
    data, unit = normalised(data)
    if data.valid.any() and not data.delta_m[data.valid].any():
        raise InputError("the differences are zero in all voxels that could be fitted")
    problem = make_problem(data, model, context.dtype)
    check_arrival(problem)
    shared = settle_shared(problem)
    held = hold_shared(problem, shared)
    notes = (*shared.notes, *check_identifiable(held))
    found = estimator.fit(held, options, context)
    probability = found.probability
    if probability is None:
        probability = sparse_probability(held)
    found = without_absent(found, held, getattr(options, "min_fraction", MIN_FRACTION))
    found = put_back(found, model, shared, context.seed)
    where = data.valid

    def volumes(values: Any) -> dict[str, Any]:
        if values is None:
            return {}
        return {
            name: to_volume(row, where)
            for name, row in zip(model.names, np.asarray(values), strict=True)
        }

    status = to_volume(np.asarray(found.status, np.int8), where)
    status[np.asarray(data.mask, dtype=bool) & ~where] = Status.SKIPPED
    draws = [volumes(draw) for draw in ([] if found.samples is None else found.samples)]
    return Maps(
        model=model,
        values=volumes(found.values),
        status=status,
        sd=volumes(found.sd),
        noise_sd=None if found.noise_sd is None else unit * found.noise_sd,
        samples={name: np.stack([draw[name] for draw in draws]) for name in model.names if draws},
        history={
            name: unit * np.asarray(kept) if name == "noise_sd" else kept
            for name, kept in found.history.items()
        },
        affine=data.affine,
        method=method,
        stem=data.stem,
        notes=notes,
        probability={name: to_volume(row, where) for name, row in probability.items()},
    )
