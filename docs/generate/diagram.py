"""The folders of the package and which imports which, drawn from the code."""

import ast
import functools
import graphlib
import html
from pathlib import Path

import asl_pinn

Imports = dict[str, set[str]]

_BOX_WIDTH, _BOX_HEIGHT = 112, 28
_COLUMN, _ROW = 126, 84
_SWEEPS = 20


def svg() -> str:
    """Drawing of the imports; an arrow points from a folder to one that it imports.

    An import that follows from others is left out. Folders that import one another are an error.
    """
    imports = _without_shortcuts(_imports())
    rows = _ordered(_rows(imports), imports)
    width = _COLUMN * max(map(len, rows))
    middle = {
        name: (width / 2 + _COLUMN * (column - (len(row) - 1) / 2), _ROW * (level + 0.5))
        for level, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    arrows = [_arrow(middle[a], middle[b]) for a, used in imports.items() for b in sorted(used)]
    boxes = [_box(name, *place) for name, place in middle.items()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_ROW * len(rows)}"'
            ' font-family="sans-serif" font-size="13" text-anchor="middle">',
            '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#78909c"/></marker>',
            *arrows,
            *boxes,
            "</svg>",
        ]
    )


def _imports() -> Imports:
    """Folders and single modules of the package, each with those that it imports when loaded."""
    root = Path(asl_pinn.__path__[0])
    imports: Imports = {}
    for path in sorted(root.rglob("*.py")):
        unit = path.relative_to(root).parts[0].removesuffix(".py")
        if not unit.startswith("_"):
            used = imports.setdefault(unit, set())
            used.update(_imported(path) - {unit})
    graphlib.TopologicalSorter(imports).prepare()  # CycleError
    return imports


def _imported(path: Path) -> set[str]:
    """What a module imports of the package; not what its functions do when they are called."""
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module == asl_pinn.__name__:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    units = [name.split(".")[1] for name in names if name.startswith(f"{asl_pinn.__name__}.")]
    return {unit for unit in units if not unit.startswith("_")}


def _without_shortcuts(imports: Imports) -> Imports:
    @functools.cache
    def reached(name: str) -> frozenset[str]:
        return frozenset().union(*({other} | reached(other) for other in imports[name]))

    return {
        name: {a for a in used if not any(a in reached(b) for b in used)}
        for name, used in imports.items()
    }


def _rows(imports: Imports) -> list[list[str]]:
    """Folders row by row, each as far up as those that import it allow."""

    @functools.cache
    def row(name: str) -> int:
        return 1 + max((row(user) for user, used in imports.items() if name in used), default=-1)

    count = 1 + max(map(row, imports))
    return [[name for name in sorted(imports) if row(name) == level] for level in range(count)]


def _ordered(rows: list[list[str]], imports: Imports) -> list[list[str]]:
    """Rows sorted so that linked folders stand below one another, by sweeps of barycentres."""
    linked = {a: used | {b for b in imports if a in imports[b]} for a, used in imports.items()}
    for _ in range(_SWEEPS):
        place = {a: i - (len(row) - 1) / 2 for row in rows for i, a in enumerate(row)}
        weight = {a: sum(place[b] for b in linked[a]) / max(len(linked[a]), 1) for a in place}
        rows = [sorted(row, key=lambda a: (weight[a], a)) for row in rows]
    return rows


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = start, end
    y0, y1 = y0 + _BOX_HEIGHT / 2, y1 - _BOX_HEIGHT / 2
    bend = (y1 - y0) / 2
    return (
        f'<path d="M{x0:.0f} {y0:.0f} C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} '
        f'{x1:.0f} {y1:.0f}" fill="none" stroke="#78909c" marker-end="url(#head)"/>'
    )


def _box(name: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x - _BOX_WIDTH / 2:.0f}" y="{y - _BOX_HEIGHT / 2:.0f}" width="{_BOX_WIDTH}" '
        f'height="{_BOX_HEIGHT}" rx="5" fill="#eceff1" stroke="#455a64"/>'
        f'<text x="{x:.0f}" y="{y + 4.5:.0f}" fill="#263238">{html.escape(name)}</text>'
    )
