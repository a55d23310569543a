"""Docstrings are complete, and their examples true."""

import ast
from collections.abc import Iterator

import griffe
import pytest
from griffe import DocstringSectionKind as Kind

PACKAGE = griffe.load("asl_pinn", docstring_parser="numpy", resolve_aliases=False)

COMMAND = ("define_flags", "run")
"""What every command has, explained by `asl_pinn.commands`."""


def public_functions(module: griffe.Module) -> Iterator[griffe.Function]:
    for member in module.members.values():
        if member.is_alias or member.name.startswith("_"):
            continue
        if member.is_module:
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


def takes_arrays(function: griffe.Function) -> bool:
    return any(is_array(parameter) for parameter in function.parameters)


def is_array(parameter: griffe.Parameter) -> bool:
    return str(parameter.annotation).startswith(("NDArray", "FloatArray", "Array"))


def raises_input_error(function: griffe.Function) -> bool:
    raised = [node.exc for node in ast.walk(ast.parse(function.source)) if type(node) is ast.Raise]
    return any(isinstance(error, ast.Call) and error.func.id == "InputError" for error in raised)


@pytest.mark.parametrize(
    "function", list(public_functions(PACKAGE)), ids=lambda function: function.canonical_path
)
def test_public_functions_say_what_they_take_give_and_raise(function):
    if len(function.docstring.parsed) == 1 and not raises_input_error(function):
        # A sentence does for what neither takes arrays nor raises.
        assert not takes_arrays(function) or "shape" in function.docstring.value
        return
    described = entries(function, Kind.parameters)
    assert [name for name, _ in described] == [parameter.name for parameter in function.parameters]
    for parameter, (_, text) in zip(function.parameters, described, strict=True):
        if is_array(parameter):
            assert "shape" in text or "array_like" in text or "As in" in text, parameter.name
    if str(function.returns) not in ("None", "Any"):
        assert entries(function, Kind.returns, Kind.yields)
    if raises_input_error(function):
        assert "InputError" in dict(entries(function, Kind.raises))
