"""Files that are written whole or not at all."""

import contextlib
import errno
import fcntl
import glob
import gzip
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from asl_pinn.arrays import FloatArray
from asl_pinn.errors import DiskError, InputError

_PARTIAL = ".part"


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files, none of which is ever seen half-written.

    Every content is first written out under a temporary name in its folder, and only when
    all of them are on disk do they get their final names, in the order given. Folders are
    made where needed. What a killed process left of the same files is removed; what another is
    writing is not, and the last to rename wins.

    Parameters
    ----------
    contents : mapping of Path to bytes
        What to write where.

    Raises
    ------
    DiskError
        If the disk is full or read-only; files that were there are then unchanged.
    InputError
        If a folder or file cannot be written for another reason; likewise.
    """
    staged: dict[Path, Path] = {}
    try:
        with contextlib.ExitStack() as opened:
            for path, content in contents.items():
                _make_folder(path.parent)
                if path.is_dir():
                    raise IsADirectoryError(None, "a folder of that name is in the way")
                _remove_leftovers(path)
                file = opened.enter_context(_open_partial(path))
                staged[path] = Path(file.name)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            for path, temporary in staged.items():
                os.replace(temporary, path)
        for folder in dict.fromkeys(path.parent for path in contents):
            _sync_folder(folder)
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> InputError:
    """What to tell the user about a file that cannot be written.

    Parameters
    ----------
    path : Path
    error : OSError
        Why.

    Returns
    -------
    InputError
        A DiskError where no other file could be written either.
    """
    kind: type[InputError]
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind, advice = DiskError, "free some space and run the same command again"
    elif error.errno == errno.EROFS:
        kind, advice = DiskError, "choose a folder that you may write to"
    else:
        kind, advice = InputError, "choose a folder that you may write to"
    return kind(f"{path}: cannot be written ({error.strerror}); {advice}")


def sha256(content: bytes | Path) -> str:
    """Checksum of a file.

    Parameters
    ----------
    content : bytes or Path
        Its content, or where it is.

    Returns
    -------
    str
        'sha256:' and 64 hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file: a pipe would be waited for.
    """
    if isinstance(content, bytes):
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    if content.exists() and not content.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(content))
    with open(content, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def require_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be written, before work is put into its content.

    Parameters
    ----------
    folder : Path
        It, or else the nearest folder above it that exists, is looked at; none is made.

    Raises
    ------
    InputError
        If it is a file, or not writable.
    """
    try:
        existing = next(
            path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{folder}: cannot be used ({reason}); choose another folder for the output"
        ) from None
    if not existing.is_dir():
        raise InputError(f"{existing}: is a file; choose a folder for the output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing}: cannot be written; choose a folder that you may write to")


def write_bytes(path: Path, content: bytes) -> None:
    """Write one file whole or not at all.

    Parameters
    ----------
    path : Path
        Its folder is made where needed.
    content : bytes

    Raises
    ------
    InputError
        If the file cannot be written; one that was there is then unchanged.
    """
    write_files({path: content})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, whole or not at all.

    Parameters
    ----------
    path : Path
    content : mapping
        Values may be NumPy scalars and arrays, paths, and what JSON knows.

    Raises
    ------
    InputError
        As in `write_bytes`.
    """
    write_bytes(path, json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Content of a JSON file: indented, in the order given, with a final newline.

    Parameters
    ----------
    content : mapping
        Values may be NumPy scalars and arrays, paths, and what JSON knows; NaN is refused.

    Returns
    -------
    bytes

    Raises
    ------
    TypeError, ValueError
        If a value cannot be written as JSON.
    """
    text = json.dumps(content, indent=2, default=_plain, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def nifti_bytes(
    volume: NDArray[Any], affine: FloatArray, repetition_time: float | None = None
) -> bytes:
    """Content of a .nii.gz file; the same bytes for the same input.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z) or (X, Y, Z, V)
        Its dtype is kept; bool becomes uint8.
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm], set as qform and sform.
    repetition_time : float, optional
        Time between the volumes of a series [s].

    Returns
    -------
    bytes
    """
    volume = volume.astype(np.uint8) if volume.dtype == bool else volume
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    if repetition_time is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], repetition_time))
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, where the system knows of such a thing."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        # an error says that somebody is writing it, or that nothing can be locked here
        if not leftover.is_file():
            continue  # a pipe would be waited for
        with contextlib.suppress(OSError), open(leftover, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _open_partial(path: Path) -> IO[bytes]:
    """Open a file of a temporary name, locked so that nobody takes it for a leftover."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
        file = open(temporary, "xb")  # noqa: SIM115
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():
            return file
        file.close()  # it was taken for one before it was locked


def _plain(value: object) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")
