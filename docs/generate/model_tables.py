"""Tables of the kinetic models and of their parameters, as the code has them."""

from collections.abc import Iterable

from asl_pinn import models
from asl_pinn.models import Parameter


def fill(page: str) -> str:
    """Put the tables where a page asks for them."""
    tables = {
        "model-table": _models,
        "parameter-table": _parameters,
        "model-methods": _methods,
    }
    for name, make in tables.items():
        mark = f"<!-- {name} -->"
        if mark in page:
            page = page.replace(mark, make())
    return page


def _models() -> str:
    rows = []
    for name, make in models.MODELS.items():
        model = make()
        shown = f"`{name}`" if model.has_signal else f"`+{name}`"
        rows.append((shown, model.description, ", ".join(f"`{n}`" for n in model.names)))
    return _table(("`--model`", "what it is", "parameters"), rows)


def _methods() -> str:
    """Each model as the methods section of a report has it, and the works that it cites."""
    made = {name: make() for name, make in models.MODELS.items()}
    works = list(dict.fromkeys(work for model in made.values() for work in model.references))
    lines = []
    for name, model in made.items():
        shown = f"`{name}`" if model.has_signal else f"`+{name}`"
        cited = ", ".join(str(works.index(work) + 1) for work in model.references)
        lines.append(f"* {shown}: “{model.description}”{f' [{cited}]' if cited else ''}")
    numbered = [f"{number}. {work}" for number, work in enumerate(works, 1)]
    return "\n".join([*lines, "", "They cite:", "", *numbered])


def _parameters() -> str:
    # Several models have a CBF and an ATT.
    known = {p.name: p for make in models.MODELS.values() for p in make().parameters}
    rows = [
        (
            f"`{p.name}`",
            p.label,
            p.unit,
            f"{p.lower:g} to {p.upper:g}",
            _prior(p),
            f"`_{p.file_suffix}`",
        )
        for p in known.values()
    ]
    header = ("parameter", "what it is", "unit", "bounds", "prior, mean ± SD", "file suffix")
    return _table(header, rows)


def _prior(p: Parameter) -> str:
    if p.prior is None:
        return "none"
    mean = "the stated value" if p.prior.mean is None else f"{p.prior.mean:g}"
    return f"{mean} ± {p.prior.sd:g}{', weak' if p.prior.weak else ''}"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
