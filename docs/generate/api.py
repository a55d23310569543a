"""Pages of reference: first what people call from Python, then a page for each folder."""

import functools
import pkgutil
from pathlib import Path

import asl_pinn

_CALLED = {
    "From files or a simulation to maps": {
        "load": "asl_pinn.workflow.api.load",
        "simulate": "asl_pinn.workflow.api.simulate",
        "fit": "asl_pinn.workflow.api.fit",
    },
    "Which protocol": {
        "design": "asl_pinn.workflow.design.design",
    },
    "What goes in and what comes out": {
        "AslData": "asl_pinn.data.AslData",
        "Maps": "asl_pinn.data.Maps",
        "Phantom": "asl_pinn.data.Phantom",
    },
    "Kinetic models": {
        "models.get": "asl_pinn.models.get",
        "models.available": "asl_pinn.models.available",
        "models.fix": "asl_pinn.models.adjust.fix",
        "models.with_bounds": "asl_pinn.models.adjust.with_bounds",
        "models.with_priors": "asl_pinn.models.adjust.with_priors",
        "models.KineticModel": "asl_pinn.models.base.KineticModel",
    },
    "Schedules": {
        "schedules.label_durations": "asl_pinn.acquisition.protocol.label_durations",
        "schedules.time_encoded_protocol": "asl_pinn.acquisition.protocol.time_encoded_protocol",
    },
}
"""Names as people write them behind 'asl_pinn.', and where they are defined."""


@functools.cache
def pages() -> dict[str, tuple[str, str]]:
    """Title and Markdown of each page, by its path."""
    found = {"api/python.md": ("From Python", _called())}
    units = sorted(pkgutil.iter_modules(asl_pinn.__path__), key=lambda unit: unit.name)
    modules = [unit.name for unit in units if not unit.ispkg and not unit.name.startswith("_")]
    found["api/modules.md"] = (", ".join(modules), _modules(modules))
    for unit in units:
        if unit.ispkg:
            found[f"api/{unit.name}.md"] = (f"{unit.name}/", _folder(unit.name))
    return found


def _called() -> str:
    parts = ["# From Python"]
    for title, names in _CALLED.items():
        parts.append(f"## {title}")
        parts += [_entry(name, 3, f"asl_pinn.{called}") for called, name in names.items()]
    return "\n\n".join(parts) + "\n"


def _modules(names: list[str]) -> str:
    return "\n\n".join(
        [f"# {', '.join(names)}", *(_entry(f"asl_pinn.{name}", 2) for name in names)]
    )


def _folder(name: str) -> str:
    below = pkgutil.walk_packages(
        [str(Path(path, name)) for path in asl_pinn.__path__], f"asl_pinn.{name}."
    )
    return "\n\n".join(
        [_entry(f"asl_pinn.{name}", 1), *(_entry(module.name, 2) for module in below)]
    )


def _entry(name: str, level: int, heading: str = "") -> str:
    return "\n".join(
        [
            f"::: {name}",
            "    options:",
            f"      heading_level: {level}",
            f"      heading: '{heading}'",
            f"      filters: [{', '.join(_filters(name))}]",
        ]
    )


def _filters(name: str) -> list[str]:
    """What a module leaves out: private names, and what the first page has."""
    called = (path.rpartition(".") for names in _CALLED.values() for path in names.values())
    return ['"!^_"', *(f'"!^{member}$"' for module, _, member in called if module == name)]
