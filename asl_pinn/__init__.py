"""Quantification of time-encoded and multi-delay arterial spin labelling: maps of CBF, ATT, ...

Five lines from data to maps::

    import asl_pinn as asl

    data = asl.load("study", participant="01")
    maps = asl.fit(data, "spatial-map", model="buxton+t1")
    maps.plot()
    maps.save("out")

What stands here is imported when it is first used, as JAX takes a while.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asl_pinn import models
    from asl_pinn.acquisition import protocol as schedules
    from asl_pinn.data import AslData, Maps, Phantom
    from asl_pinn.workflow.api import fit, load, simulate
    from asl_pinn.workflow.design import design

__version__ = "0.1.0"

__all__ = ["AslData", "Maps", "Phantom", "design", "fit", "load", "models", "schedules", "simulate"]

_WHERE = {
    "AslData": "asl_pinn.data:AslData",
    "Maps": "asl_pinn.data:Maps",
    "Phantom": "asl_pinn.data:Phantom",
    "design": "asl_pinn.workflow.design:design",
    "fit": "asl_pinn.workflow.api:fit",
    "load": "asl_pinn.workflow.api:load",
    "models": "asl_pinn.models",
    "schedules": "asl_pinn.acquisition.protocol",
    "simulate": "asl_pinn.workflow.api:simulate",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
