"""Where a result comes from, as sidecar keys, and whether another has the same origin."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jax

from asl_pinn import __version__, models
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.estimators.options import as_mapping, from_mapping
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.io import bids
from asl_pinn.io.atomic import json_bytes, sha256
from asl_pinn.io.bids import ReadNotes
from asl_pinn.io.checkpoints import fingerprint
from asl_pinn.models.choice import ModelChoice
from asl_pinn.workflow.config import Config

_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "nibabel", "nilearn", "flax", "optax", "matplotlib")
_BIDS = f"bids:{bids.SOURCE_DATASET}:"  # by the links of the dataset of maps
# Where a result was made, and from which copy of the dataset, does not make it another result.
_ELSEWHERE = {"Device", "InputDataset"}
_NEEDED = {
    "Method": str,
    "Model": str,
    "Bounds": dict,
    "Priors": dict,
    "Fixed": dict,
    "Options": dict,
    "Seed": int,
    "DataType": str,
    "Reading": dict,
    "Device": str,
    "SoftwareVersions": dict,
    "InputDataset": str,
    "SourceChecksums": dict,
    "InputFingerprint": str,
}
_DTYPES = ("float32", "float64")
_SHOWN = 60  # characters of an address


def describe(config: Config, bids_dir: Path, notes: ReadNotes, data: AslData) -> dict[str, Any]:
    """Describe the origin of a result so that it can be made again.

    Parameters
    ----------
    config : Config
        Options that are left to a preset are stated with its values, bounds and priors with
        those of the model.
    bids_dir : Path
        The dataset.
    notes : ReadNotes
        Files the data came from, and relaxation times.
    data : AslData
        What was read from them and from inherited metadata.

    Returns
    -------
    dict
        Keys of a BIDS sidecar.

    Raises
    ------
    InputError
        If a source can no longer be read, or there is no such model.
    """
    free, model = config.free_model(), config.model()
    names = [_uri(source) for source in notes.sources]
    return {
        "Method": config.method,
        "Model": config.model_name,
        "Bounds": {p.name: [p.lower, p.upper] for p in free.parameters},
        "Priors": {
            p.name: {"Mean": p.prior.mean, "SD": p.prior.sd} for p in free.parameters if p.prior
        },
        "Fixed": dict(config.held),
        "Options": as_mapping(config.options, model.names),
        "Seed": config.seed,
        "DataType": config.dtype,
        "Reading": {
            name: as_mapping(value, ()) if isinstance(value, bids.Calibration) else value
            for name, value in config.reading.items()
        },
        "Rois": list(config.rois),
        **notes.constants,
        **circumstances(),
        "InputDataset": bids_dir,
        "Sources": names,
        "SourceChecksums": {name: _checksum(_path(name, bids_dir)) for name in names},
        "InputFingerprint": fingerprint(data),
    }


def restore(origin: Mapping[str, Any], sidecar: Path) -> Config:
    """Make the choices again that a sidecar states, and nothing else.

    Parameters
    ----------
    origin : mapping
        Content of the sidecar, with the keys of `describe`.
    sidecar : Path
        To be named where it is at fault.

    Returns
    -------
    Config

    Raises
    ------
    InputError
        If a key is missing, or states what this version does not know.
    """
    missing = [key for key, kind in _NEEDED.items() if not isinstance(origin.get(key), kind)]
    if missing:
        raise InputError(
            f"{sidecar}: does not state {missing[0]}; give the sidecar of a map that quantify wrote"
        )
    if origin["DataType"] not in _DTYPES:
        raise InputError(f"{sidecar}: states the unknown DataType {origin['DataType']!r}")
    if not _is_address(origin["InputDataset"]):
        raise InputError(f"{sidecar}: its InputDataset is no absolute path of a folder")
    try:
        model, method = models.get(origin["Model"]), origin["Method"]
        fixed = {name: float(value) for name, value in origin["Fixed"].items()}
        free = [name for name in model.names if name not in fixed]
        bounds = {name: (float(a), float(b)) for name, (a, b) in origin["Bounds"].items()}
        priors = {
            name: (prior["Mean"], float(prior["SD"])) for name, prior in origin["Priors"].items()
        }
        # What the model has of its own stays as it is: its weak prior may lie beyond its bounds.
        own_bounds = {p.name: (p.lower, p.upper) for p in model.parameters}
        own_priors = {p.name: (p.prior.mean, p.prior.sd) for p in model.parameters if p.prior}
        config = Config(
            method,
            from_mapping(get_estimator(method).options, origin["Options"], free, method),
            origin["Model"],
            {name: pair for name, pair in bounds.items() if own_bounds.get(name) != pair},
            {name: pair for name, pair in priors.items() if own_priors.get(name) != pair},
            fixed,
            origin["Seed"],
            origin["DataType"],
            reading(**origin["Reading"]),
            tuple(map(str, origin.get("Rois", ()))),
            _choice(origin),
        )
        config.model()
    except InputError as error:
        raise InputError(f"{sidecar}: {error}") from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{sidecar}: states what quantify does not write: {' '.join(str(error).split())}"
        ) from None
    return config


def _is_address(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path and Path(path).is_absolute()


def _choice(origin: Mapping[str, Any]) -> ModelChoice | None:
    """How the data chose the model, if they did."""
    stated = origin.get("ModelChoice")
    return None if stated is None else ModelChoice.restored(origin["Model"], stated)


def reading(
    mask: str | None = None,
    t1_tissue: float | str | None = None,
    t1_blood: float | None = None,
    gm: str | None = None,
    wm: str | None = None,
    keep_sign: bool = False,
    calibration: Mapping[str, Any] | None = None,
    readout: str | None = None,
    use_preprocessed: bool = False,
) -> dict[str, Any]:
    """Keyword arguments of `bids.read_run`, from text and numbers as flags and sidecars have them.

    Parameters
    ----------
    mask : str, optional
        Path of an image.
    t1_tissue : float or str, optional
        T1 of tissue [s], also as text; 'map'; or the path of an image.
    t1_blood : float, optional
        T1 of arterial blood [s].
    gm, wm : str, optional
        Paths of images of tissue fractions; 'derivatives' or 't1'.
    keep_sign : bool
        Whether to take differences as they are though their mean is negative.
    calibration : mapping of str to Any, optional
        Fields of `bids.Calibration`.
    readout : str, optional
        Path of an image.
    use_preprocessed : bool
        As `bids.read_run` takes it.

    Returns
    -------
    dict
        Paths are absolute.

    Raises
    ------
    InputError
        If a path is empty, or a field of the calibration is unknown or of the wrong kind.
    TypeError
        If a value is neither text nor a number.
    """
    stated = {name: value for name, value in (calibration or {}).items() if value is not None}
    images = {"mask": mask, "t1_tissue": t1_tissue, "gm": gm, "wm": wm, "readout_delay": readout}
    images |= {name: stated[name] for name in ("m0", "m0_reference_mask") if name in stated}
    for name, given in images.items():
        if given == "":
            raise InputError(f"--{name} is empty; name an image, or leave it out")
    for name, chosen in (("keep_sign", keep_sign), ("use_preprocessed", use_preprocessed)):
        if not isinstance(chosen, bool):
            raise TypeError(f"{name} is true or false, not {chosen!r}")
    for name in stated.keys() & {"m0", "m0_reference_mask"}:
        stated[name] = _absolute(stated[name])
    t1: float | str | Path | None = t1_tissue
    if t1_tissue is not None and t1_tissue != "map":
        try:
            t1 = float(t1_tissue)
        except ValueError:
            t1 = Path(str(t1_tissue)).absolute()
    return {
        "mask": None if mask is None else Path(mask).absolute(),
        "t1_tissue": t1,
        "t1_blood": None if t1_blood is None else float(t1_blood),
        **{
            name: given if given in (None, "derivatives", "t1") else Path(given).absolute()
            for name, given in (("gm", gm), ("wm", wm))
        },
        "keep_sign": keep_sign,
        "calibration": from_mapping(bids.Calibration, stated, (), "calibration"),
        "readout": None if readout is None else Path(readout).absolute(),
        "use_preprocessed": use_preprocessed,
    }


def _absolute(text: Any) -> Any:
    """A path as it is from everywhere; a number as it is."""
    try:
        float(text)
    except ValueError:
        return str(Path(text).absolute())
    return str(text)


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


def check_sources(
    sidecar: Mapping[str, Any], bids_dir: Path, trusted: Collection[Path] = ()
) -> None:
    """Refuse inputs that are not those of an earlier result, or are none of the dataset's files.

    A sidecar is data that may come from anybody: what it names is read where the dataset has it, or
    the user named it as well.

    Parameters
    ----------
    sidecar : mapping
        Of the earlier result.
    bids_dir : Path
        The dataset as it is now.
    trusted : collection of Path
        Files outside the dataset that the user named.

    Raises
    ------
    InputError
        If a file is missing, differs, is no regular file, or lies outside the dataset; it is named.
    """
    for name, checksum in sidecar["SourceChecksums"].items():
        path = _path(name, bids_dir)
        if not path.is_relative_to(bids_dir) and path not in trusted:
            raise InputError(
                f"{path}: lies outside the dataset {bids_dir}, and is not read because a sidecar "
                "names it; if you trust it, name it as well with the flag that it was named with"
            )
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
    """File that a source names, whatever it is."""
    try:
        name.encode()
        address = urlsplit(name)
        if name.startswith(_BIDS):
            path = name.removeprefix(_BIDS)
        else:
            path = unquote(address.path, errors="strict") if address.scheme == "file" else ""
    except ValueError:
        raise InputError(f"{name[:_SHOWN]!r} is no address of a file") from None
    if "\0" in path or not path:
        raise InputError(f"{name[:_SHOWN]!r} is no address of a file")
    return Path(os.path.normpath(bids_dir / path))


def _checksum(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it") from None
