"""Options of an estimator: dataclass fields that explain themselves and become flags."""

import dataclasses
import math
import numbers
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from absl import flags

from asl_pinn.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


@dataclasses.dataclass(frozen=True)
class ByParameter:
    """A number for each parameter of a model, some by name and one for all others; hashable.

    Attributes
    ----------
    other : float
        For parameters that are not named.
    named : tuple of (str, float)
        For those that are.
    """

    other: float
    named: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, other: float, **named: float) -> "ByParameter":
        """Numbers by name, and one for the others."""
        return cls(other, tuple(named.items()))

    def __getitem__(self, name: str) -> float:
        """The number of a parameter."""
        return dict(self.named).get(name, self.other)

    def __call__(self, names: Iterable[str]) -> tuple[float, ...]:
        """The numbers of parameters, in order."""
        return tuple(self[name] for name in names)

    def with_named(self, **named: float) -> "ByParameter":
        """The same with other numbers for some parameters."""
        return ByParameter(self.other, tuple({**dict(self.named), **named}.items()))

    def __str__(self) -> str:
        """As the flag has it: 'cbf=1,att=2,other=2'."""
        return ",".join(f"{name}={value:g}" for name, value in (*self.named, ("other", self.other)))


def option(default: Any, help_text: str, *, most: float = 1e6) -> Any:
    """Declare a dataclass field with its default and the text that `--help` shows.

    In a dataclass that is registered as a pytree, floats are leaves and the rest is static:
    a function jitted over the options compiles once for all values of its floats.

    Parameters
    ----------
    default : int, float, str, bool or ByParameter
        Value when the user gives none.
    help_text : str
        What the option does, with its unit.
    most : float
        Largest number that is accepted: what takes no more memory or time than there is.

    Returns
    -------
    dataclasses.Field
    """
    metadata = {"help": help_text, "static": not isinstance(default, float), "most": most}
    return dataclasses.field(default=default, metadata=metadata)


MIN_FRACTION = 0.1
"""Least fraction of a tissue for which its parameters are told."""


def fraction_option() -> Any:
    """Declare the field `min_fraction`, which every method has."""
    return option(
        MIN_FRACTION,
        "Least fraction of grey or white matter in a voxel for which its parameters are told, with "
        "models that tell them apart; elsewhere they are 0.",
    )


def by_preset(help_text: str, *, most: float = 1e6, **defaults: Any) -> Any:
    """Declare a dataclass field whose default depends on the field `preset`.

    Parameters
    ----------
    help_text : str
        What the option does, with its unit.
    most : float
        Largest number that is accepted.
    **defaults : int, float, str or bool
        Value for each preset when the user gives none.

    Returns
    -------
    dataclasses.Field
        Of default None, which `resolve` fills in; the annotation is that of the resolved value.
    """
    return dataclasses.field(
        default=None, metadata={"help": help_text, "presets": defaults, "most": most}
    )


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


def from_mapping(
    options_type: type[Options], given: Mapping[str, Any], names: Sequence[str], method: str
) -> Options:
    """Options of a method from values by name, as Python's users and sidecars state them.

    Parameters
    ----------
    options_type : dataclass type
        The method's options.
    given : mapping of str to Any
        Values that replace the defaults; of an option with a number for each parameter, a mapping
        of some parameters to numbers, or one number for all.
    names : sequence of str
        Parameters of the model.
    method : str
        Name of the method, for messages.

    Returns
    -------
    options_type

    Raises
    ------
    InputError
        If there is no such option, its value is of the wrong kind, or the model has no such
        parameter.
    """
    kinds = option_kinds(options_type)
    for name in given:
        if name not in kinds:
            known = f"only {', '.join(kinds)}" if kinds else "it has none"
            raise InputError(f"{method} has no option {name!r}, {known}")
    fields = {field.name: field for field in dataclasses.fields(options_type)}
    converted = {}
    for name, value in given.items():
        what, field = f"{method}: option {name}", fields[name]
        converted[name] = _converted(value, kinds[name], field.default, names, what)
        _check_size(converted[name], field.metadata.get("most", math.inf), what)
    return options_type(**converted)


def _check_size(value: Any, most: float, what: str) -> None:
    """Refuse numbers that are none, or that no machine can work with."""
    single = [value] if _is_number(value) else []
    several = (
        [value.other, *dict(value.named).values()] if isinstance(value, ByParameter) else single
    )
    for number in several:
        if not abs(number) <= most:
            raise InputError(f"{what} must be a number of at most {most:g}, it is {number:g}")


def as_mapping(options: "DataclassInstance", names: Sequence[str]) -> dict[str, Any]:
    """What `from_mapping` makes the same options of: numbers, text and plain mappings.

    Parameters
    ----------
    options : dataclass
        Of a method; what is left to a preset is stated with the preset's value.
    names : sequence of str
        Parameters of the model.

    Returns
    -------
    dict
    """
    return {
        name: {key: value[key] for key in names} if isinstance(value, ByParameter) else value
        for name, value in vars(resolve(options)).items()
    }


def option_kinds(options_type: type) -> dict[str, Any]:
    """Type of each option: bool, int, float, str, a Literal or ByParameter.

    Parameters
    ----------
    options_type : dataclass type
        Options of a method.

    Returns
    -------
    dict of str to type
        None beside a type is left out.
    """
    hints = get_type_hints(options_type)
    kinds = {}
    for field in dataclasses.fields(options_type):
        kind = hints[field.name]
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(member for member in get_args(kind) if member is not types.NoneType)
        kinds[field.name] = kind
    return kinds


def define_flags(
    options: Mapping[str, type], flag_values: flags.FlagValues, group: str = "options of {}"
) -> None:
    """Define one flag for each field of the options of all methods.

    A field that several methods have becomes one flag, whose help has the text and the default of
    each.

    Parameters
    ----------
    options : mapping of str to dataclass type
        Options type of each method, by the method's name.
    flag_values : absl.flags.FlagValues
        Where to define them.
    group : str
        Module of a flag, as absl has it; {} stands for the methods that have it.

    Raises
    ------
    InputError
        If methods have options of one name and different types.
    """
    uses: dict[str, dict[str, dataclasses.Field[Any]]] = {}
    kinds: dict[str, dict[str, Any]] = {}
    for method, options_type in options.items():
        own = option_kinds(options_type)
        for field in dataclasses.fields(options_type):
            uses.setdefault(field.name, {})[method] = field
            kinds.setdefault(field.name, {})[method] = own[field.name]
    for name, fields in uses.items():
        flags.DEFINE(
            _parser(name, kinds[name]),
            name,
            None,
            _help(fields),
            flag_values,
            module_name=group.format(", ".join(fields)),
            boolean=bool in kinds[name].values(),
        )


def options_from_flags(
    options: Mapping[str, type],
    method: str,
    flag_values: flags.FlagValues,
    names: Sequence[str],
) -> Any:
    """Options of a method, with what the user set replacing the defaults.

    Parameters
    ----------
    options : mapping of str to dataclass type
        Options type of each method, by the method's name; as for `define_flags`.
    method : str
        Whose are wanted.
    flag_values : absl.flags.FlagValues
        Parsed flags.
    names : sequence of str
        Parameters of the model.

    Returns
    -------
    dataclass
        Of the type `options[method]`.

    Raises
    ------
    InputError
        If an option was set that only other methods have, or to what this one does not know.
    """
    having: dict[str, list[str]] = {}
    for other, options_type in options.items():
        for field in dataclasses.fields(options_type):
            having.setdefault(field.name, []).append(other)
    given = {name: flag_values[name].value for name in having if flag_values[name].present}
    for name in given:
        if method not in having[name]:
            raise InputError(f"--{name} is no option of {method}, but of {', '.join(having[name])}")
    return from_mapping(options[method], given, names, method)


def _converted(value: Any, kind: Any, default: Any, names: Sequence[str], what: str) -> Any:
    """A value as its field has it, or an error that says what was wanted."""
    if kind is ByParameter:
        if isinstance(value, ByParameter):
            return value
        if _is_number(value):
            return ByParameter(float(value))
        return _by_parameter(value, default, names, what)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            wanted = ", ".join(map(str, get_args(kind)))
            raise InputError(f"{what} is one of {wanted}, not {value!r}")
        return value
    known = {bool: isinstance(value, bool), str: isinstance(value, str)}
    known[float] = _is_number(value)
    known[int] = known[float] and isinstance(value, numbers.Integral)
    if not known[kind]:
        raise InputError(f"{what} is {_WORDS[kind]}, not {value!r}")
    return kind(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def _by_parameter(value: Any, default: ByParameter, names: Sequence[str], what: str) -> ByParameter:
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is a number, or a number by parameter, not {value!r}")
    for name, number in value.items():
        if name not in names:
            raise InputError(
                f"{what}: the model has no parameter {name!r}, only {', '.join(names)}"
            )
        if not _is_number(number):
            raise InputError(f"{what}: {name} is a number, not {number!r}")
    return default.with_named(**{name: float(number) for name, number in value.items()})


class _NumbersByName(flags.ArgumentParser[Any]):
    """'cbf=1,att=2' to a mapping, '3' to a number."""

    syntactic_help = "a number, or numbers by parameter: cbf=1,att=2"

    def parse(self, argument: Any) -> Any:
        """The numbers."""
        if not isinstance(argument, str):
            return argument
        if "=" not in argument:
            return float(argument)
        pairs = [part.partition("=") for part in argument.split(",")]
        return {name.strip(): float(number) for name, _, number in pairs}

    def flag_type(self) -> str:
        """Kind of the values, for messages."""
        return "numbers by parameter"


def _parser(name: str, kinds: Mapping[str, Any]) -> flags.ArgumentParser[Any]:
    """Parser of a flag; where methods have different choices, of all of them."""
    if all(get_origin(kind) is Literal for kind in kinds.values()):
        choices = [choice for kind in kinds.values() for choice in get_args(kind)]
        return flags.EnumParser(list(dict.fromkeys(choices)))
    if len(set(kinds.values())) > 1:
        raise InputError(f"option {name} has different types in methods {', '.join(kinds)}")
    parser: flags.ArgumentParser[Any] = {
        bool: flags.BooleanParser,
        int: flags.IntegerParser,
        float: flags.FloatParser,
        str: flags.ArgumentParser,
        ByParameter: _NumbersByName,
    }[next(iter(kinds.values()))]()
    return parser


def _help(fields: Mapping[str, dataclasses.Field[Any]]) -> str:
    """The text and the default; of each method, where they differ."""
    said: dict[tuple[str, str], list[str]] = {}
    for method, field in fields.items():
        said.setdefault((field.metadata["help"], _default(field)), []).append(method)
    texts = {text for text, _ in said}
    if len(said) == 1:
        ((text, default),) = said
        return text if default == "None" else f"{text} Default: {default}."
    defaults = (f"{default} ({', '.join(methods)})" for (_, default), methods in said.items())
    if len(texts) == 1:
        return f"{texts.pop()} Default: {'; '.join(defaults)}."
    return " ".join(
        f"{', '.join(methods)}: {text} Default: {default}."
        for (text, default), methods in said.items()
    )


def _default(field: dataclasses.Field[Any]) -> str:
    presets = field.metadata.get("presets")
    if presets is None:
        return str(field.default)
    return ", ".join(f"{value} with --preset={preset}" for preset, value in presets.items())
