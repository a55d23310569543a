"""Docstrings are complete, and their examples true."""

import ast
import inspect
import re
from collections.abc import Iterator

import griffe
import pytest
from griffe import DocstringSectionKind as Kind

from asl_pinn.estimators.base import DeferredFit
from asl_pinn.estimators.registry import get_estimator, method_names
from asl_pinn.models import MODELS

PACKAGE = griffe.load("asl_pinn", docstring_parser="numpy", resolve_aliases=False)

COMMAND = ("define_flags", "run")
"""What every command has, explained by `asl_pinn.workflow.commands`."""

PHYSICAL = re.compile(
    r"(cbf|att|m0|t|pld|fwhm|affine|noise_sd|final_delay|readout_delay|edges|delta_m|images)(_sd)?"
    r"|t1_\w+|(\w+_)?durations?"
)
"""Names of quantities that have a unit."""

UNIT = re.compile(
    r"\[.*(s|mm|a\.u\.|mL/100g/min|unit of \w+|same unit.*)\]|[Ss]econds|As in|in the unit"
)

SOURCED = (
    "asl_pinn.acquisition.encoding",
    "asl_pinn.evaluation.cramer_rao",
    "asl_pinn.models.buxton",
)
"""Modules whose functions say where their methods come from, as the fit of each estimator does."""


def public_functions(module: griffe.Module | griffe.Class) -> Iterator[griffe.Function]:
    """Functions of modules and methods of classes."""
    for member in module.members.values():
        if member.is_alias or member.name.startswith("_"):
            continue
        if member.is_module or member.is_class:
            yield from public_functions(member)
        elif member.is_function and member.name not in COMMAND:
            yield member


def entries(function: griffe.Function, *kinds: Kind) -> list[tuple[str, str]]:
    """Names and all the text of the entries of some sections; names may share an entry."""
    return [
        (name.strip(" *"), f"{item.annotation} {item.description}")
        for section in function.docstring.parsed
        if section.kind in kinds
        for item in section.value
        for name in (getattr(item, "name", "") or str(item.annotation)).split(",")
    ]


def parameters_of(function: griffe.Function) -> list[griffe.Parameter]:
    return [p for p in function.parameters if p.name not in ("self", "cls")]


def takes_arrays(function: griffe.Function) -> bool:
    return any(is_array(parameter) for parameter in parameters_of(function))


def is_array(parameter: griffe.Parameter) -> bool:
    return str(parameter.annotation).startswith(("NDArray", "FloatArray", "Array"))


def raised(function: griffe.Function) -> set[str]:
    """Errors that a function raises itself, `write_error` making those of files."""
    nodes = ast.walk(ast.parse(function.source))
    calls = [node.exc for node in nodes if isinstance(node, ast.Raise)]
    names = {ast.unparse(call.func) for call in calls if isinstance(call, ast.Call)}
    return {"InputError" if name == "write_error" else name for name in names}


FUNCTIONS = list(public_functions(PACKAGE))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.canonical_path)
def test_public_functions_say_what_they_take_give_and_raise(function):
    if len(function.docstring.parsed) == 1 and not raised(function):
        # A sentence does for what neither takes arrays nor raises.
        assert not takes_arrays(function) or "shape" in function.docstring.value
        return
    described = entries(function, Kind.parameters)
    parameters = parameters_of(function)
    assert [name for name, _ in described] == [parameter.name for parameter in parameters]
    for parameter, (name, text) in zip(parameters, described, strict=True):
        if is_array(parameter):
            assert "shape" in text or "array_like" in text or "As in" in text, name
        if PHYSICAL.fullmatch(name):
            assert UNIT.search(text), name
    returned = entries(function, Kind.returns, Kind.yields)
    assert returned or str(function.returns) in ("None", "Any")
    for name, text in returned:
        if re.match(r"(nd)?array\b", text, re.IGNORECASE):
            assert "shape" in text, name
    errors = {name for names, _ in entries(function, Kind.raises) for name in names.split(",")}
    # IsADirectoryError is caught by the function that raises it
    assert raised(function) - {"IsADirectoryError"} <= errors


def says_its_source(docstring: str) -> bool:
    return re.search(r"^References\n-+\n\S", docstring, re.MULTILINE) is not None


@pytest.mark.parametrize("module", SOURCED)
def test_methods_state_their_source(module):
    chosen = [f for f in FUNCTIONS if f.canonical_path.startswith(f"{module}.")]
    assert chosen
    for function in chosen:
        places = (function, function.parent) if function.parent.is_class else (function,)
        stated = [place.docstring.value for place in places if place.docstring]
        assert any(map(says_its_source, stated)), function.canonical_path


@pytest.mark.parametrize("method", method_names())
def test_estimators_state_their_source(method):
    fit = get_estimator(method).fit
    source = fit.load() if isinstance(fit, DeferredFit) else fit
    assert says_its_source(inspect.getdoc(source) or "")


@pytest.mark.parametrize("name", MODELS)
def test_models_that_have_a_signal_state_their_source(name):
    model = MODELS[name]()
    if model.has_signal:
        assert model.references
        assert says_its_source(inspect.getdoc(type(model)) or "")
