"""Options of an estimator: dataclass fields that explain themselves and become flags."""

import dataclasses
import types
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from absl import flags

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


def option(default: Any, help_text: str) -> Any:
    """Declare a dataclass field with its default and the text that `--help` shows.

    In a dataclass that is registered as a pytree, floats are leaves and the rest is static:
    a function jitted over the options compiles once for all values of its floats.

    Parameters
    ----------
    default : int, float, str or bool
        Value when the user gives none.
    help_text : str
        What the option does, with its unit.

    Returns
    -------
    dataclasses.Field
    """
    metadata = {"help": help_text, "static": not isinstance(default, float)}
    return dataclasses.field(default=default, metadata=metadata)


def by_preset(help_text: str, **defaults: Any) -> Any:
    """Declare a dataclass field whose default depends on the field `preset`.

    Parameters
    ----------
    help_text : str
        What the option does, with its unit.
    **defaults : int, float, str or bool
        Value for each preset when the user gives none.

    Returns
    -------
    dataclasses.Field
        Of default None, which `resolve` fills in; the annotation is that of the resolved value.
    """
    return dataclasses.field(default=None, metadata={"help": help_text, "presets": defaults})


def resolve(options: Options) -> Options:
    """Give every field that was left to the preset the preset's value.

    Parameters
    ----------
    options : dataclass
        With a field `preset` if any are declared by `by_preset`.

    Returns
    -------
    dataclass
        Of the same type; fields that the user set are kept.
    """
    preset_defaults = {
        field.name: field.metadata["presets"][vars(options)["preset"]]
        for field in dataclasses.fields(options)
        if "presets" in field.metadata and getattr(options, field.name) is None
    }
    return dataclasses.replace(options, **preset_defaults)


def define_flags(options: dict[str, type], flag_values: flags.FlagValues) -> None:
    """Define one flag for each field of the options of all methods.

    A field that several methods share becomes one flag, whose default is each method's own.

    Parameters
    ----------
    options : dict of str to dataclass type
        Options type of each method, by the method's name.
    flag_values : absl.flags.FlagValues
        Where to define them.
    """
    shared: dict[str, list[tuple[str, dataclasses.Field[Any]]]] = {}
    for method, options_type in options.items():
        for field in dataclasses.fields(options_type):
            shared.setdefault(field.name, []).append((method, field))
    for name, uses in shared.items():
        kind = get_type_hints(options[uses[0][0]])[name]
        _define(name, kind, _help(uses), flag_values)


def options_from_flags(options_type: type[Options], flag_values: flags.FlagValues) -> Options:
    """Options of one method, with what the user set replacing the defaults.

    Parameters
    ----------
    options_type : dataclass type
        The method's options.
    flag_values : absl.flags.FlagValues
        Parsed flags.

    Returns
    -------
    options_type
    """
    names = [field.name for field in dataclasses.fields(options_type)]
    given = {name: flag_values[name].value for name in names}
    return options_type(**{name: value for name, value in given.items() if value is not None})


def _help(uses: list[tuple[str, dataclasses.Field[Any]]]) -> str:
    defaults = "; ".join(f"{_default(field)} ({method})" for method, field in uses)
    return f"{uses[0][1].metadata['help']} Default: {defaults}."


def _default(field: dataclasses.Field[Any]) -> str:
    presets = field.metadata.get("presets")
    if presets is None:
        return str(field.default)
    return ", ".join(f"{value} with --preset={preset}" for preset, value in presets.items())


def _define(name: str, kind: type, help_text: str, flag_values: flags.FlagValues) -> None:
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(member for member in get_args(kind) if member is not types.NoneType)
    if get_origin(kind) is Literal:
        flags.DEFINE_enum(name, None, list(get_args(kind)), help_text, flag_values=flag_values)
        return
    define: Any = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }[kind]
    define(name, None, help_text, flag_values=flag_values)
