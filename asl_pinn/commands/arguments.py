"""Reading positional arguments and flags that several commands share."""

from collections.abc import Sequence

from absl import flags

from asl_pinn.errors import InputError


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
        If there are more or fewer.
    """
    if len(arguments) != count:
        raise InputError(f"{len(arguments)} arguments given, {count} expected: {usage}")
    return list(arguments)


def define_execution_flags(values: flags.FlagValues) -> None:
    """Define the flags that say how a computation is run.

    Parameters
    ----------
    values : absl FlagValues
        Where to define them.
    """
    flags.DEFINE_integer("seed", 0, "Seed of everything random.", 0, flag_values=values)
    flags.DEFINE_enum(
        "dtype", "float32", ["float32", "float64"], "Floating-point type.", flag_values=values
    )


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
        If it is not.
    """
    value: str | None = values[name].value
    if value is None:
        raise InputError(f"--{name} is missing")
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
