"""The estimators by name; each is imported when it is asked for."""

import importlib
import importlib.metadata

from asl_pinn.errors import InputError
from asl_pinn.estimators.base import Estimator

DEFAULT_METHOD = "spatial-map"

ESTIMATORS: dict[str, Estimator | str] = {
    "spatial-map": "asl_pinn.estimators.spatial:SPATIAL_MAP",
    "neural-field": "asl_pinn.estimators.neural:NEURAL_FIELD",
    "pinn": "asl_pinn.estimators.neural:PINN",
    "nlls": "asl_pinn.estimators.voxelwise.nlls:NLLS",
    "nlls-smoothed": "asl_pinn.estimators.voxelwise.nlls_smoothed:NLLS_SMOOTHED",
    "nlls-scipy": "asl_pinn.estimators.voxelwise.nlls_scipy:NLLS_SCIPY",
}
"""An `Estimator`, or where to find it: 'module:NAME'. One from outside is added here, or by an
entry point of the group 'asl_pinn.estimators'."""

_GROUP = "asl_pinn.estimators"


def method_names() -> tuple[str, ...]:
    """Names of all methods, those of installed packages last.

    Returns
    -------
    tuple of str
    """
    others = (entry.name for entry in _entries() if entry.name not in ESTIMATORS)
    return (*ESTIMATORS, *others)


def get_estimator(method: str) -> Estimator:
    """Look a method up.

    Parameters
    ----------
    method : str
        Its name.

    Returns
    -------
    Estimator

    Raises
    ------
    InputError
        If there is no such method.
    """
    found = ESTIMATORS.get(method)
    if found is None:  # it takes a while to look through the packages that are installed
        found = next((entry.value for entry in _entries() if entry.name == method), None)
    if found is None:
        raise InputError(f"unknown method {method!r}; choose {', '.join(method_names())}")
    if isinstance(found, Estimator):
        return found
    module, _, name = found.partition(":")
    estimator: Estimator = getattr(importlib.import_module(module), name)
    return estimator


def option_types() -> dict[str, type]:
    """Dataclass of the options of each method, by its name."""
    return {name: get_estimator(name).options for name in method_names()}


def _entries() -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=_GROUP))
