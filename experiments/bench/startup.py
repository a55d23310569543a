"""Start of the command line, and a fit from a cold start to maps on disk."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import Timing, row, time_calls


def rows(repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of the start-up, and of the network on one slice unless `quick`.

    Parameters
    ----------
    repeats : int
        Runs of each.
    quick : bool
        Whether to leave the fit out.

    Returns
    -------
    list of dict
    """
    python = sys.executable
    commands = {
        "asl-pinn --help": [python, "-m", "asl_pinn", "--help"],
        "import asl_pinn": [python, "-c", "import asl_pinn"],
    }
    found = [row(work, _timed(command, repeats)) for work, command in commands.items()]
    if quick:
        return found
    with tempfile.TemporaryDirectory() as folder:
        dataset, maps, cache = (str(Path(folder) / name) for name in ("bids", "maps", "cache"))
        _run([python, "-m", "asl_pinn", "simulate", f"--output_dir={dataset}"])
        fit = [python, "-m", "asl_pinn", "quantify", dataset, maps, "participant", "--noresume"]
        for cached, setting in (("no cache", "off"), ("compiled before", cache)):
            command = [*fit, "--method=neural-field", f"--compilation_cache={setting}"]
            work = (
                f"quantify --method=neural-field, one slice, cold start to maps on disk, {cached}"
            )
            found.append(row(work, _timed(command, repeats)))
    return found


def _timed(command: list[str], repeats: int) -> Timing:
    return time_calls(lambda: _run(command), repeats)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
