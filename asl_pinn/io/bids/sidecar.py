"""Metadata of an image, with errors that name the file they came from."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asl_pinn.errors import InputError
from asl_pinn.io.bids.vendor import hint

_MAX_TEXT = 2**24
_BRIEF = 60
_LARGEST_WHOLE = 2**53


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """Metadata of an image.

    Attributes
    ----------
    path : Path
        The file to name where a value is at fault.
    metadata : mapping
        All keys, inherited ones included.
    """

    path: Path
    metadata: Mapping[str, Any]


def require(sidecar: Sidecar, key: str) -> Any:
    """Value of a key that must be there.

    Parameters
    ----------
    sidecar : Sidecar
        Where to look.
    key : str
        Name of the key.

    Returns
    -------
    object
        The value as it stands.

    Raises
    ------
    InputError
        If it is not.
    """
    if sidecar.metadata.get(key) is None:
        raise InputError(
            f"{sidecar.path}: required key {key!r} is missing{hint(sidecar.metadata, key)}; "
            "add it to the JSON sidecar"
        )
    return sidecar.metadata[key]


def number(sidecar: Sidecar, key: str) -> float:
    """Finite number under a key that must be there.

    Parameters
    ----------
    sidecar : Sidecar
        Where to look.
    key : str
        Name of the key.

    Returns
    -------
    float
        In the unit that BIDS gives the key.

    Raises
    ------
    InputError
        If the key is missing or its value is no finite number.
    """
    value = require(sidecar, key)
    if not _is_number(value) or not math.isfinite(value):
        raise InputError(f"{sidecar.path}: {key} must be a number, it is {brief(value)}")
    return float(value)


def numbers(sidecar: Sidecar, key: str) -> NDArray[np.float64]:
    """Numbers under a key that must be there, shape (n,); a single one has n = 1.

    Parameters
    ----------
    sidecar : Sidecar
        Where to look.
    key : str
        Name of the key.

    Returns
    -------
    ndarray, shape (n,)
        In the unit that BIDS gives the key.

    Raises
    ------
    InputError
        If the key is missing or a value is no number.
    """
    value = require(sidecar, key)
    values = value if isinstance(value, list) else [value]
    if not values or not all(_is_number(entry) for entry in values):
        raise InputError(f"{sidecar.path}: {key} must be a number or a list of numbers")
    return np.array(values, dtype=np.float64)


def flag(sidecar: Sidecar, key: str, default: bool | None = None) -> bool:
    """Boolean under a key; without a default the key must be there.

    Parameters
    ----------
    sidecar : Sidecar
        Where to look.
    key : str
        Name of the key.
    default : bool or None
        Value where the key is missing.

    Returns
    -------
    bool
        The value.

    Raises
    ------
    InputError
        If the key is missing and there is no default, or its value is not true or false.
    """
    value = require(sidecar, key) if default is None else sidecar.metadata.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"{sidecar.path}: {key} must be true or false, it is {brief(value)}")
    return value


def require_file(path: Path) -> None:
    """Refuse a path that leads to no file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        If there is nothing, a folder or pipe, or a link whose target is not there, as git-annex
        leaves where the content was not fetched.
    """
    if path.is_file():
        return
    if path.exists():
        raise InputError(f"{path}: is no regular file; put a file in its place")
    if path.is_symlink():
        raise InputError(
            f"{path}: a link to a file that is not here; fetch its content (datalad get)"
        )
    raise InputError(f"{path}: no such file; check the path")


def check_text_file(path: Path) -> None:
    """Refuse a JSON or TSV file that is missing or larger than 16 MiB before it is read.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        If it is larger, not there, or a folder or pipe.
    """
    require_file(path)
    if path.stat().st_size > _MAX_TEXT:
        raise InputError(f"{path}: is larger than {_MAX_TEXT} bytes; that is no sidecar or table")


def read_json(path: Path) -> dict[str, Any]:
    """Object that a JSON file holds.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    InputError
        If the file cannot be read or holds something else.
    """
    try:
        check_text_file(path)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); repair the file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object with keys, not a bare value or list")
    return content


def brief(value: object) -> str:
    """Value as one line of at most 60 characters, for messages."""
    text = repr(value)
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 3]}..."


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < _LARGEST_WHOLE
