"""Checks of options that are numbers, for all estimators."""

from collections.abc import Mapping
from typing import Any

from asl_pinn.errors import InputError
from asl_pinn.estimators.options import ByParameter


def require_numbers(options: Any, least: Mapping[str, float], positive: tuple[str, ...]) -> None:
    """Refuse options that are out of range.

    Parameters
    ----------
    options : dataclass
        Resolved.
    least : mapping of str to float
        Least value of each option that has one.
    positive : tuple of str
        Options that must be above 0, each of several numbers too.

    Raises
    ------
    InputError
        At the first one; it names the flag.
    """
    for name, smallest in least.items():
        if not getattr(options, name) >= smallest:
            raise InputError(
                f"--{name} must be at least {smallest}, it is {getattr(options, name)}"
            )
    for name in positive:
        given = getattr(options, name)
        numbers = [given]
        if isinstance(given, ByParameter):
            numbers = [given.other, *dict(given.named).values()]
        if not all(number > 0.0 for number in numbers):
            raise InputError(f"--{name} must be positive, it is {given}")


def require_spatial_dims(options: Any) -> None:
    """Refuse `spatial_dims` other than 2, within slices, and 3, over volumes.

    Parameters
    ----------
    options : dataclass
        With that option.

    Raises
    ------
    InputError
        If it is another number.
    """
    if options.spatial_dims not in (2, 3):
        raise InputError(f"--spatial_dims must be 2 or 3, it is {options.spatial_dims}")
