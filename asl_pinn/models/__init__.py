"""Kinetic models: one file a model, one line here.

`get("buxton+t1")` looks models up by name and adds them. A model from outside the package is found
by an entry point of the group 'asl_pinn.models', or named as 'module:Class'.
"""

import importlib
import importlib.metadata
from collections.abc import Callable

from asl_pinn.errors import InputError
from asl_pinn.models.adjust import fix, per_voxel, with_bounds, with_priors
from asl_pinn.models.arterial import Arterial
from asl_pinn.models.base import (
    Blood,
    KineticModel,
    Parameter,
    Prior,
    Timing,
    Tissue,
    Values,
)
from asl_pinn.models.buxton import Buxton
from asl_pinn.models.dispersion import GammaDispersion, GaussianDispersion
from asl_pinn.models.exchange import Exchange
from asl_pinn.models.partial_volume import PartialVolume
from asl_pinn.models.pulsed import Pulsed
from asl_pinn.models.t1 import InferredT1
from asl_pinn.models.t1_blood import InferredT1Blood

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Arterial",
    "Blood",
    "Buxton",
    "Exchange",
    "GammaDispersion",
    "GaussianDispersion",
    "InferredT1",
    "InferredT1Blood",
    "KineticModel",
    "Parameter",
    "PartialVolume",
    "Prior",
    "Pulsed",
    "Timing",
    "Tissue",
    "Values",
    "available",
    "fix",
    "get",
    "per_voxel",
    "with_bounds",
    "with_priors",
]

DEFAULT_MODEL = "buxton"

MODELS: dict[str, Callable[[], KineticModel]] = {
    "buxton": Buxton,
    "pulsed": Pulsed,
    "exchange": Exchange,
    "partial-volume": PartialVolume,
    "arterial": Arterial,
    "t1": InferredT1,
    "t1_blood": InferredT1Blood,
    "dispersion": GammaDispersion,
    "dispersion-gaussian": GaussianDispersion,
}

_GROUP = "asl_pinn.models"


def get(name: str) -> KineticModel:
    """Look a model up, or a sum of models.

    Parameters
    ----------
    name : str
        Names joined by '+': 'buxton', 'buxton+t1', 'my_package.my_module:MyModel'.

    Returns
    -------
    KineticModel

    Raises
    ------
    InputError
        If there is no such model, one cannot be imported, a parameter occurs twice, or the sum
        has no signal.

    Examples
    --------
    >>> get("buxton+t1").names
    ('cbf', 'att', 't1_tissue')
    >>> values = {"cbf": 60.0, "att": 1.2}
    >>> signal = get("buxton").curve(values, t=[1.0, 2.0, 3.6], label_duration=1.8)
    >>> (1e5 * signal).round().astype(int).tolist()
    [0, 547, 565]
    """
    first, *others = (_one(part.strip()) for part in name.split("+"))
    for other in others:
        first = first + other
    if not first.has_signal:
        raise InputError(f"model {name} has no signal of its own; add it to one: buxton+{name}")
    return first


def available() -> dict[str, Callable[[], KineticModel]]:
    """Models by name: those of the package, then those that installed packages register.

    Returns
    -------
    dict of str to callable
        Each makes a model. A name of the package's own means the package's own.
    """
    entries = importlib.metadata.entry_points(group=_GROUP)
    others = {entry.name: _registered(entry) for entry in entries if entry.name not in MODELS}
    return MODELS | others


def _registered(entry: importlib.metadata.EntryPoint) -> Callable[[], KineticModel]:
    return lambda: _made(entry.name, entry.load)


def _one(name: str) -> KineticModel:
    if ":" in name:
        module, _, attribute = name.partition(":")
        return _made(name, lambda: getattr(importlib.import_module(module), attribute))
    known = available()
    if name not in known:
        raise InputError(f"unknown model {name!r}; choose {', '.join(known)}, joined by '+'")
    return known[name]()


def _made(name: str, load: Callable[[], Callable[[], object]]) -> KineticModel:
    """A model from outside the package."""
    try:
        made = load()()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"model {name!r} cannot be loaded: {error}") from error
    if not isinstance(made, KineticModel):
        raise InputError(f"model {name!r} is not a KineticModel but a {type(made).__name__}")
    return made
