"""One page of reference for each module or folder of the package."""

import functools
import pkgutil

import asl_pinn


@functools.cache
def pages() -> dict[str, tuple[str, str]]:
    """Title and Markdown of each page, by its path."""
    found = {}
    for unit in pkgutil.iter_modules(asl_pinn.__path__):
        if not unit.name.startswith("_"):
            name = f"asl_pinn.{unit.name}"
            first = f"::: {name}\n    options:\n      heading_level: 1"
            parts = [first, *(f"::: {module}" for module in _below(name, unit.ispkg))]
            found[f"api/{unit.name}.md"] = (unit.name, "\n\n".join(parts) + "\n")
    return found


def _below(name: str, is_package: bool) -> list[str]:
    if not is_package:
        return []
    folder = [f"{path}/{name.rpartition('.')[2]}" for path in asl_pinn.__path__]
    return [module.name for module in pkgutil.walk_packages(folder, f"{name}.")]
