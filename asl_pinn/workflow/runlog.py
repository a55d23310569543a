"""The log file of one call of a command."""

import contextlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from asl_pinn import __version__
from asl_pinn.io.atomic import write_error


class _AppendingHandler(logging.Handler):
    """Puts each record into the file by one appending write: a kill leaves whole lines."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or raise what the disk says."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            os.write(self._descriptor, line)
        except OSError as error:
            raise write_error(self._path, error) from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        super().close()


@contextlib.contextmanager
def opened(folder: Path, command: str, arguments: list[str]) -> Iterator[logging.Logger]:
    """Keep a log of one call of a command in a file of its own, for the length of a block.

    Parameters
    ----------
    folder : Path
        Made where needed; the file is `<command>_<UTC time>_<process>.log`.
    command : str
        Name of the command.
    arguments : list of str
        What it was called with.

    Yields
    ------
    logging.Logger
        The logger 'asl_pinn'. How the block ended is logged, too.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    path = folder / f"{command}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _AppendingHandler(path)
    except OSError as error:
        raise write_error(path, error) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("asl_pinn")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # what the user should see is printed
    logger.addHandler(handler)
    try:
        logger.info(
            "asl_pinn %s, Python %s, %s", __version__, sys.version.split()[0], platform.platform()
        )
        logger.info("asl-pinn %s %s", command, " ".join(arguments))
        yield logger
        logger.info("end")
    except BaseException as error:
        with contextlib.suppress(OSError, ValueError):
            logger.error("stopped: %s", str(error) or type(error).__name__)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.close()
