"""What determines a result besides the images, and where it is to be computed."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asl_pinn import models
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext
from asl_pinn.io.bids import AslRun
from asl_pinn.models.base import KineticModel, Parameter
from asl_pinn.models.choice import AUTO, ModelChoice, candidates


@dataclasses.dataclass(frozen=True)
class Config:
    """Choices of the user; the same choices and images give the same bits on one machine.

    Plain values alone, so that it can be sent to other processes and machines.

    Attributes
    ----------
    method : str
        Name of the estimator.
    options : dataclass
        Its options.
    model_name : str
        As `asl_pinn.models.get` takes it, or 'auto' until the data have chosen it.
    bounds : mapping of str to (float or None, float or None)
        Lower and upper bound by parameter, in its unit; None for that of the model.
    priors : mapping of str to (float or None, float or None)
        Mean and standard deviation by parameter; likewise.
    held : mapping of str to float
        Values of parameters that are not fitted.
    seed : int
        Of everything random in the estimator.
    dtype : str
        'float32' or 'float64'.
    reading : mapping of str to Any
        Keyword arguments of `bids.read_run`: numbers, text, paths or None.
    rois : tuple of str
        Atlases for tables, as `bids.read_anatomy` takes them.
    choice : ModelChoice or None
        How the data chose the model, where they did.
    """

    method: str
    options: Any
    model_name: str = models.DEFAULT_MODEL
    bounds: Mapping[str, tuple[float | None, float | None]] = dataclasses.field(
        default_factory=dict
    )
    priors: Mapping[str, tuple[float | None, float | None]] = dataclasses.field(
        default_factory=dict
    )
    held: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seed: int = 0
    dtype: str = "float32"
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rois: tuple[str, ...] = ()
    choice: ModelChoice | None = None

    def model(self) -> KineticModel:
        """The model that is fitted, made anew from its name.

        Returns
        -------
        KineticModel

        Raises
        ------
        InputError
            If there is no such model or parameter, or a value is out of range.
        """
        return models.fix(self.free_model(), **self.held)

    def free_model(self) -> KineticModel:
        """The model before any parameter is held.

        Returns
        -------
        KineticModel

        Raises
        ------
        InputError
            As `model`.
        """
        return adjusted(
            models.get(self.model_name),
            self.bounds,
            self.priors,
            own_alone=self.choice is not None,
        )

    def with_model(self, choice: ModelChoice) -> "Config":
        """The same with the model that the data have chosen.

        Parameters
        ----------
        choice : ModelChoice
            Names it.

        Returns
        -------
        Config
        """
        return dataclasses.replace(self, model_name=choice.model, choice=choice)

    def context(self, *, progress: bool, checkpoint_dir: Path | None = None) -> RunContext:
        """Circumstances of a run; JAX must be in the mode that `dtype` needs.

        Parameters
        ----------
        progress : bool
            Whether to draw progress bars.
        checkpoint_dir : Path, optional
            Where a long training keeps its state.

        Returns
        -------
        RunContext
        """
        return RunContext(self.seed, self.dtype, progress, checkpoint_dir)


_Pairs = Mapping[str, tuple[float | None, float | None]]


def adjusted(
    model: KineticModel, bounds: _Pairs, priors: _Pairs, *, own_alone: bool = False
) -> KineticModel:
    """A model with other bounds and priors.

    Parameters
    ----------
    model : KineticModel
        Named by the user, or a candidate among which the data choose.
    bounds, priors : mapping of str to (float or None, float or None)
        As `Config` has them.
    own_alone : bool
        Whether to leave out what is stated of parameters that the model lacks, as other
        candidates have them.

    Returns
    -------
    KineticModel

    Raises
    ------
    InputError
        If there is no such parameter, or a value is out of range.
    """
    if own_alone:
        bounds, priors = (
            {name: pair for name, pair in pairs.items() if name in model.names}
            for pairs in (bounds, priors)
        )
    for name, (_, upper) in bounds.items():
        if upper is not None and name in model.names:
            _check_upper(model[name], upper)
    return models.with_priors(models.with_bounds(model, **bounds), **priors)


def _check_upper(p: Parameter, upper: float) -> None:
    """Refuse bounds so wide that a search between them finds nothing."""
    most = _LONGEST if p.unit == "s" else _WIDEST * max(p.upper, 1.0)
    if most < upper < math.inf:
        raise InputError(
            f"the upper bound of {p.symbol} is {upper:g} {p.unit}, and no acquisition tells values "
            f"above {most:g} {p.unit}"
        )


_LONGEST = 30.0  # seconds
_WIDEST = 100.0  # times the upper bound that a parameter has of its own


def most_general(model_name: str, held: Mapping[str, float]) -> KineticModel:
    """The model whose parameters flags and options may name.

    Parameters
    ----------
    model_name : str
        As `asl_pinn.models.get` takes it, or 'auto'.
    held : mapping of str to float
        Values of parameters that are not fitted; with any, 'auto' is tissue alone.

    Returns
    -------
    KineticModel
        Of 'auto', the last candidate, or the first.
    """
    if model_name != AUTO:
        return models.get(model_name)
    return models.get(candidates()[0 if held else -1])


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to quantify, with all that a process needs to know for it.

    Attributes
    ----------
    run : AslRun
        What to quantify.
    config : Config
        How.
    output_dir : Path
        Derivatives dataset to write to.
    checkpoint_dir : Path or None
        Where long trainings keep their state; None for the output's own folder, until they end.
    resume : bool
        Whether to leave complete maps of the same origin as they are.
    progress : bool
        Whether the estimator may draw progress bars.
    fingerprint : str, optional
        InputFingerprint of an earlier result; other data are refused.
    cache : str, optional
        Where compiled programs are kept, as `compilation_cache.enable` takes it.
    """

    run: AslRun
    config: Config
    output_dir: Path
    checkpoint_dir: Path | None = None
    resume: bool = True
    progress: bool = False
    fingerprint: str | None = None
    cache: str | None = None
