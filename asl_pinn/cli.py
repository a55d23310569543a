"""The command line: `asl-pinn COMMAND ...`; each command is a module of `asl_pinn.commands`."""

import importlib
import sys
from collections.abc import Sequence

from absl import flags

from asl_pinn import __version__
from asl_pinn.errors import InputError

COMMANDS = {
    "demo": "simulate a brain slice, fit it, score it and draw it",
    "simulate": "write a simulated acquisition as a BIDS dataset, with its truth",
    "quantify": "turn a BIDS dataset into CBF and ATT maps",
    "evaluate": "score maps against the truth",
}

USAGE_ERROR = 2


def main(argv: Sequence[str]) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str
        Arguments, the program's name first.

    Returns
    -------
    int
        Exit status: 0, or 2 for a fault in what the user gave, after one line about it on
        standard error.
    """
    arguments = list(argv[1:])
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        print(__version__)
        return 0
    try:
        return _dispatch(*arguments)
    except InputError as error:
        print(f"asl-pinn: error: {error}", file=sys.stderr)
        return USAGE_ERROR


def entry_point() -> None:
    """Run a command and exit with its status."""
    try:
        sys.exit(main(sys.argv))
    except KeyboardInterrupt:
        sys.exit(130)


def _dispatch(name: str, *arguments: str) -> int:
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}; choose {', '.join(COMMANDS)}")
    command = importlib.import_module(f"asl_pinn.commands.{name}")
    cache = importlib.import_module("asl_pinn.compilation_cache")
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    flags.DEFINE_bool("help", False, "Show this help.", flag_values=values, short_name="h")
    flags.DEFINE_string("compilation_cache", None, cache.HELP, flag_values=values)
    command.define_flags(values)
    try:
        _, *positional = values([name, *arguments])
    except flags.Error as error:
        raise InputError(f"{' '.join(str(error).split())}; see asl-pinn {name} --help") from None
    if values.help:
        print(f"usage: asl-pinn {name} {command.USAGE}\n\n{COMMANDS[name]}\n\n{_flags(values)}")
        return 0
    folder = values.compilation_cache
    if not cache.enable(folder) and folder is not None:
        line = f"--compilation_cache={folder} cannot be written; programs are compiled anew"
        print(f"asl-pinn: note: {line}", file=sys.stderr)
    return command.run(positional, values)


def _overview() -> str:
    lines = [f"  {name:<10} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: asl-pinn COMMAND [ARGUMENTS]",
            "",
            "CBF and ATT maps from time-encoded arterial spin labelling MRI.",
            "",
            *lines,
            "",
            "asl-pinn COMMAND --help lists what a command takes; --version prints the version.",
        ]
    )


def _flags(values: flags.FlagValues) -> str:
    return "\n".join(
        f"  --{name}\n      {values[name].help}" for name in sorted(values) if name != "h"
    )
