"""Where a result comes from, as sidecar keys, and whether another has the same origin."""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jax

from asl_pinn import __version__
from asl_pinn.checkpoints import fingerprint
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.files import json_bytes, sha256
from asl_pinn.options import resolve
from asl_pinn.settings import Settings

_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "nibabel", "nilearn", "flax", "optax", "matplotlib")
_BIDS = "bids::"
# Where a result was made, and from which copy of the dataset, does not make it another result.
_ELSEWHERE = {"Device", "InputDataset"}


def describe(
    settings: Settings, bids_dir: Path, sources: Sequence[str], data: AslData
) -> dict[str, Any]:
    """Describe the origin of a result so that it can be made again.

    Parameters
    ----------
    settings : Settings
        Options that are left to a preset are stated with its values.
    bids_dir : Path
        The dataset.
    sources : sequence of str
        Files the data came from, relative to the dataset or absolute.
    data : AslData
        What was read from them and from inherited metadata.

    Returns
    -------
    dict
        Keys of a BIDS sidecar.

    Raises
    ------
    InputError
        If a source can no longer be read.
    """
    names = [_uri(source) for source in sources]
    return {
        "Options": dataclasses.asdict(resolve(settings.options)),
        "Seed": settings.seed,
        "DataType": settings.dtype,
        "Reading": dict(settings.reading),
        **circumstances(),
        "InputDataset": bids_dir,
        "Sources": names,
        "SourceChecksums": {name: _checksum(_path(name, bids_dir)) for name in names},
        "InputFingerprint": fingerprint(data),
    }


def circumstances() -> dict[str, Any]:
    """Device, and versions of this package, of Python and of what results depend on."""
    return {
        "Device": jax.devices()[0].device_kind,
        "SoftwareVersions": {
            "asl_pinn": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def differing_keys(origin: Mapping[str, Any], sidecar: Mapping[str, Any]) -> list[str]:
    """What sets the origin of a result apart from one that a sidecar states.

    Parameters
    ----------
    origin : mapping
        From `describe`.
    sidecar : mapping
        Of an earlier result.

    Returns
    -------
    list of str
        Keys whose values differ; empty if the earlier result is what a new run would make.
    """
    wanted = json.loads(json_bytes(origin))
    return [
        key for key, value in wanted.items() if key not in _ELSEWHERE and sidecar.get(key) != value
    ]


def check_sources(sidecar: Mapping[str, Any], bids_dir: Path) -> None:
    """Refuse inputs that are not those of an earlier result.

    Parameters
    ----------
    sidecar : mapping
        Of the earlier result.
    bids_dir : Path
        The dataset as it is now.

    Raises
    ------
    InputError
        If a file is missing or differs; it is named.
    """
    for name, checksum in sidecar["SourceChecksums"].items():
        path = _path(name, bids_dir)
        if _checksum(path) != checksum:
            raise InputError(
                f"{path}: is not the file that the maps were made from, its checksum differs; "
                "restore it, or quantify anew without --from"
            )


def is_source(path: Path, sidecar: Mapping[str, Any], bids_dir: Path) -> bool:
    """Whether an earlier result was made from this file."""
    return any(_path(name, bids_dir) == path for name in sidecar["SourceChecksums"])


def _uri(source: str) -> str:
    return Path(source).as_uri() if Path(source).is_absolute() else f"{_BIDS}{source}"


def _path(name: str, bids_dir: Path) -> Path:
    if name.startswith(_BIDS):
        return bids_dir / name.removeprefix(_BIDS)
    return Path(unquote(urlsplit(name).path))


def _checksum(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it") from None
