"""States of a long training on disk, written whole or not at all."""

import contextlib
import dataclasses
import errno
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from asl_pinn.errors import one_line
from asl_pinn.io.atomic import write_error

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_LOG = logging.getLogger(__name__)
_KEPT = 2
_OVERHEAD = 2**20  # bytes that Orbax may write beside the arrays


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where and how often to keep the state of a training.

    Attributes
    ----------
    directory : Path
        A folder for this training alone; made where needed.
    every : int
        Steps between two checkpoints.
    """

    directory: Path
    every: int

    def part(self, name: str) -> "Checkpoints":
        """Those of one part of a training that has several."""
        return dataclasses.replace(self, directory=self.directory / name)


def fingerprint(*parts: Any) -> str:
    """Short name of everything that determines a result.

    A folder of that name is never resumed with other data or options: these make another
    name, and so start anew beside it.

    Parameters
    ----------
    *parts : pytree
        Leaves are arrays, or anything whose `repr` tells it.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    leaves, structure = jax.tree.flatten(parts)
    digest.update(str(structure).encode())
    for leaf in leaves:
        if isinstance(leaf, (np.ndarray, jax.Array)):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def opened(checkpoints: Checkpoints | None) -> Iterator["ocp.CheckpointManager | None"]:
    """Open the folder of a training's checkpoints for the length of a block.

    Parameters
    ----------
    checkpoints : Checkpoints or None
        None keeps nothing.

    Yields
    ------
    orbax.checkpoint.CheckpointManager or None

    Raises
    ------
    DiskError
        If the disk is full or read-only.
    InputError
        If the folder cannot be written to for another reason.
    """
    if checkpoints is None:
        yield None
        return
    import orbax.checkpoint as ocp  # takes seconds to import

    options = ocp.CheckpointManagerOptions(
        max_to_keep=_KEPT, create=True, enable_async_checkpointing=False
    )
    directory = checkpoints.directory.absolute()
    try:
        with _silent():
            manager = ocp.CheckpointManager(directory, options=options)
    except OSError as error:
        raise write_error(directory, error) from None
    with manager:
        yield manager


def save(manager: "ocp.CheckpointManager", step: int, state: Any) -> None:
    """Write a state; a kill at any moment leaves this one or the one before.

    Parameters
    ----------
    manager : orbax.checkpoint.CheckpointManager
        From `opened`.
    step : int
        Steps that the state has behind it.
    state : pytree of arrays

    Raises
    ------
    DiskError
        If the disk is full or read-only.
    InputError
        If the state cannot be written for another reason.
    """
    import orbax.checkpoint as ocp

    arrays = jax.tree.map(np.asarray, state)
    directory = Path(manager.directory)
    needed = _OVERHEAD + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # Orbax tells of a full disk in hundreds of lines, and of its own kinds of error.
    if shutil.disk_usage(directory).free < needed:
        raise write_error(directory, full)
    try:
        manager.save(step, args=ocp.args.StandardSave(arrays), force=True)
    except OSError as error:
        raise write_error(directory, error) from None
    except ValueError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise write_error(directory, full) from None


def restore(manager: "ocp.CheckpointManager", like: Any) -> Any:
    """Read the latest state, bit for bit as it was written.

    Parameters
    ----------
    manager : orbax.checkpoint.CheckpointManager
        From `opened`.
    like : pytree of arrays
        A state of the same structure, shapes and types.

    Returns
    -------
    pytree of ndarray
        `like` itself if nothing has been written yet, or nothing that can be read: a note says so.
    """
    import orbax.checkpoint as ocp

    template = jax.tree.map(np.asarray, like)
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            with _silent():
                return manager.restore(step, args=ocp.args.StandardRestore(template))
        except Exception as error:  # Orbax and what it is made of raise many kinds
            directory = Path(manager.directory) / str(step)
            line = one_line(f"{directory}: a damaged checkpoint, which is left out")
            print(f"note: {line}", file=sys.stderr)
            _LOG.warning("%s (%s)", line, type(error).__name__)
            # one that stays would be taken for the latest
            shutil.rmtree(directory, ignore_errors=True)
            with _silent():
                manager.reload()
    return like


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what Orbax logs of damage from the terminal."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
