"""The same model with other bounds and priors, or with parameters held."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from asl_pinn.errors import InputError
from asl_pinn.models.base import Blood, KineticModel, Parameter, Prior, Tissue
from asl_pinn.models.compose import Fixed


def fix(model: KineticModel, **values: float) -> KineticModel:
    """Hold parameters of a model at stated values.

    Parameters
    ----------
    model : KineticModel
        With the parameters.
    **values : float
        Value of each parameter that is to be held, in its unit.

    Returns
    -------
    KineticModel
        With the other parameters; `model` itself where nothing is held.

    Raises
    ------
    InputError
        If the model has no such parameter, the value lies outside its bounds, or it is an
        amplitude, without which the model is another one.

    Examples
    --------
    >>> from asl_pinn.models import Buxton
    >>> fix(Buxton(), att=1.2).names
    ('cbf',)
    """
    for name, value in values.items():
        parameter = require_parameter(model, name)
        if parameter.linear:
            raise InputError(
                f"{parameter.symbol} is an amplitude and cannot be held; hold another parameter"
            )
        if not parameter.lower <= value <= parameter.upper:
            raise InputError(
                f"{parameter.symbol} is held at {value:g} {parameter.unit}, outside its bounds of "
                f"{parameter.lower:g} to {parameter.upper:g} {parameter.unit}"
            )
    held = {name: float(value) for name, value in values.items()}
    return Fixed(model, held) if held else model


def with_bounds(model: KineticModel, **bounds: tuple[float | None, float | None]) -> KineticModel:
    """Give parameters of a model other bounds.

    Parameters
    ----------
    model : KineticModel
        With the parameters.
    **bounds : tuple of float
        Lower and upper bound of each, in its unit; None for the bound that it has.

    Returns
    -------
    KineticModel

    Raises
    ------
    InputError
        If the model has no such parameter, or bounds are out of order.
    """
    changed = {}
    for name, pair in bounds.items():
        parameter = require_parameter(model, name)
        own = (parameter.lower, parameter.upper)
        lower, upper = (old if new is None else new for new, old in zip(pair, own, strict=True))
        positive = parameter.link == "identity" or lower >= 0.0
        if not positive or not float("-inf") < lower < upper < float("inf"):
            raise InputError(
                f"bounds of {parameter.symbol} out of order: {lower:g} to {upper:g} "
                f"{parameter.unit}"
            )
        if lower == 0.0 and parameter.link == "log":
            raise InputError(f"the lower bound of {parameter.symbol} must be above 0")
        changed[name] = dataclasses.replace(parameter, lower=float(lower), upper=float(upper))
    return _replace(model, changed)


def with_priors(model: KineticModel, **priors: tuple[float | None, float | None]) -> KineticModel:
    """Give parameters of a model other priors.

    Parameters
    ----------
    model : KineticModel
        With the parameters.
    **priors : tuple of float
        Mean and standard deviation of each, in its unit; None for that of the prior that it has.

    Returns
    -------
    KineticModel
        Whether a prior is weak stays as it is.

    Raises
    ------
    InputError
        If the model has no such parameter, the mean lies outside its bounds or there is none, or
        the SD is not positive.
    """
    changed = {}
    for name, (mean, sd) in priors.items():
        parameter = require_parameter(model, name)
        own = parameter.prior or Prior(None, 0.0)
        mean, sd = own.mean if mean is None else mean, own.sd if sd is None else sd
        stated = name in (*Tissue._fields, *Blood._fields)
        inside = stated if mean is None else parameter.lower <= mean <= parameter.upper
        if not inside or not 0.0 < sd < float("inf"):
            raise InputError(
                f"prior of {parameter.symbol}: a mean within {parameter.lower:g} to "
                f"{parameter.upper:g} {parameter.unit} and a positive SD are needed, not "
                f"{'none' if mean is None else f'{mean:g}'} and {sd:g}"
            )
        centre = None if mean is None else float(mean)
        changed[name] = dataclasses.replace(parameter, prior=Prior(centre, float(sd), own.weak))
    return _replace(model, changed)


def per_voxel(model: KineticModel, *names: str) -> KineticModel:
    """Let parameters that the voxels of a brain share differ between them.

    Parameters
    ----------
    model : KineticModel
        With the parameters.
    *names : str
        Those that are to vary by voxel.

    Returns
    -------
    KineticModel
        `model` itself where none is named.

    Raises
    ------
    InputError
        If the model has no such parameter, or it varies by voxel already.

    Examples
    --------
    >>> from asl_pinn.models import get
    >>> model = per_voxel(get("buxton+dispersion"), "dispersion_rate")
    >>> [p.name for p in model.parameters if p.shared]
    ['dispersion_time_to_peak']
    """
    changed = {}
    for name in names:
        parameter = require_parameter(model, name)
        if not parameter.shared:
            raise InputError(f"{parameter.symbol} varies by voxel already")
        changed[name] = dataclasses.replace(parameter, shared=False)
    return _replace(model, changed) if changed else model


def require_parameter(model: KineticModel, name: str) -> Parameter:
    """The parameter of a name, or an error that lists those that there are.

    Parameters
    ----------
    model : KineticModel
        With the parameter.
    name : str
        Its name.

    Returns
    -------
    Parameter

    Raises
    ------
    InputError
        If the model has none of that name.
    """
    if name not in model.names:
        raise InputError(
            f"model {model.name} has no parameter {name!r}, only {', '.join(model.names)}"
        )
    return model[name]


def _replace(model: KineticModel, changed: Mapping[str, Parameter]) -> KineticModel:
    def new(node: Any) -> Any:
        return changed.get(node.name, node) if isinstance(node, Parameter) else node

    replaced: KineticModel = jax.tree.map(
        new, model, is_leaf=lambda node: isinstance(node, Parameter)
    )
    return replaced
