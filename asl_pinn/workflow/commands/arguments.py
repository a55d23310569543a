"""Reading positional arguments and flags that several commands share."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import flags

from asl_pinn.errors import InputError

Value = TypeVar("Value")


def positional(arguments: Sequence[str], usage: str, count: int) -> list[str]:
    """Take exactly `count` positional arguments.

    Parameters
    ----------
    arguments : sequence of str
        What was given.
    usage : str
        What to tell the user.
    count : int
        How many there must be.

    Returns
    -------
    list of str
        The arguments.

    Raises
    ------
    InputError
        If there are more or fewer, or one is empty.
    """
    if len(arguments) != count:
        raise InputError(f"{len(arguments)} arguments given, {count} expected: {usage}")
    if not all(arguments):
        raise InputError(f"an argument is empty: {usage}")
    return list(arguments)


def require(values: flags.FlagValues, name: str) -> str:
    """Value of a flag that must be given.

    Parameters
    ----------
    values : absl FlagValues
        Parsed flags.
    name : str
        Name of the flag.

    Returns
    -------
    str
        Its value.

    Raises
    ------
    InputError
        If it is not, or empty.
    """
    value: str | None = values[name].value
    if value is None:
        raise InputError(f"--{name} is missing")
    if not value:
        raise InputError(f"--{name} is empty; give a value")
    return value


def seconds(text: str, name: str) -> list[float]:
    """Parse a list of numbers of seconds, separated by commas.

    Parameters
    ----------
    text : str
        What was given.
    name : str
        Name of the flag.

    Returns
    -------
    list of float
        Times [s].

    Raises
    ------
    InputError
        If it is something else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--{name}={text} is no list of seconds separated by commas") from None


def by_name(texts: Sequence[str], flag: str, convert: Callable[[str], Value]) -> dict[str, Value]:
    """Parse values of parameters, 'cbf=0:200,att=:3'.

    Parameters
    ----------
    texts : sequence of str
        What was given, each time that the flag was.
    flag : str
        Its name.
    convert : callable
        From the text of a value to the value; ValueError where it is something else.

    Returns
    -------
    dict
        Values by name.

    Raises
    ------
    InputError
        If a value is missing or something else, or a name occurs twice.
    """
    found: dict[str, Value] = {}
    for part in ",".join(texts).split(",") if texts else []:
        name, equals, text = (piece.strip() for piece in part.partition("="))
        try:
            value = convert(text)
        except ValueError:
            equals = ""
        if not name or not equals:
            raise InputError(f"--{flag}: {part!r} is not of the form {_FORMS[flag]}")
        if name in found:
            raise InputError(f"--{flag}: {name} occurs twice")
        found[name] = value
    return found


_FORMS = {"bounds": "att=0.05:4", "prior": "att=1.2:1.0", "fix": "att=1.2"}


def pair(text: str) -> tuple[float | None, float | None]:
    """Two numbers, '0.05:4', of which one may be left out.

    Parameters
    ----------
    text : str
        What was given.

    Returns
    -------
    tuple of float or None

    Raises
    ------
    ValueError
        If it is something else.
    """
    first, second = (float(part) if part.strip() else None for part in text.split(":"))
    if first is None and second is None:
        raise ValueError("nothing is given")
    return first, second
