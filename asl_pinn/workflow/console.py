"""What a command says while it runs, and where."""

import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

from asl_pinn.io.atomic import json_bytes


@dataclasses.dataclass(frozen=True)
class Console:
    """Standard output and error, as much of them as the user wants.

    Attributes
    ----------
    quiet : bool
        Whether errors alone are written.
    verbose : bool
        Whether what goes to the log is written to standard error, too.
    as_json : bool
        Whether standard output has one JSON object in place of lines for people.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def say(self, line: str) -> None:
        """Write a result to standard output, unless it is for a program or nobody listens."""
        if not (self.quiet or self.as_json):
            tqdm.write(line, file=sys.stdout)

    def note(self, line: str) -> None:
        """Write what the user should know to standard error."""
        if not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def summarise(self, content: Mapping[str, Any]) -> None:
        """Write the summary for programs to standard output, if one is wanted."""
        if self.as_json:
            print(json.dumps(json.loads(json_bytes(content))))

    @contextlib.contextmanager
    def echoing(self, logger: logging.Logger) -> Iterator[None]:
        """Write what is logged in a block to standard error as well, if the user wants to see it.

        Parameters
        ----------
        logger : logging.Logger
            Whose records are meant.

        Yields
        ------
        None
            There is nothing to bind.
        """
        if not self.verbose:
            yield
            return
        handler = _Echo()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Echo(logging.Handler):
    """Writes each record between the lines of a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        tqdm.write(self.format(record), file=sys.stderr)
