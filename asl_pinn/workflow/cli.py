"""The command line, `asl-pinn COMMAND ...`: each command is a module of `workflow.commands`."""

import importlib
import os
import sys
import textwrap
from collections.abc import Sequence

from absl import flags

from asl_pinn import __version__
from asl_pinn.errors import InputError

COMMANDS = {
    "demo": "simulate a brain slice, fit it, score it and draw it",
    "simulate": "write a simulated acquisition as a BIDS dataset, with its truth",
    "quantify": "turn a BIDS dataset into maps of CBF, ATT and what else a model has",
    "evaluate": "score maps against the truth",
    "design": "compare protocols by what they can be expected to tell, and find better ones",
}

USAGE_ERROR = 2

_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
_BROKEN_PIPE = 141
_WIDTH = 100


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
        status = main(sys.argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on, as in `quantify --help | head`; the interpreter flushes once more at
        # its end, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _BROKEN_PIPE
    sys.exit(status)


def _dispatch(name: str, *arguments: str) -> int:
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}; choose {', '.join(COMMANDS)}")
    command = importlib.import_module(f"asl_pinn.workflow.commands.{name}")
    cache = importlib.import_module("asl_pinn.workflow.compilation_cache")
    values = define_flags(name)
    try:
        _, *positional = values([name, *arguments])
    except flags.Error as error:
        raise InputError(f"{' '.join(str(error).split())}; see asl-pinn {name} --help") from None
    if values.help:
        print(f"usage: asl-pinn {name} {command.USAGE}\n\n{COMMANDS[name]}\n{_flags(values)}")
        return 0
    folder = values.compilation_cache
    if not cache.enable(folder) and folder is not None:
        line = f"--compilation_cache={folder} cannot be written; programs are compiled anew"
        print(f"asl-pinn: note: {line}", file=sys.stderr)
    return command.run(positional, values)


def define_flags(name: str) -> flags.FlagValues:
    """All flags of a command, each in a group.

    Parameters
    ----------
    name : str
        Of the command.

    Returns
    -------
    absl FlagValues
        Not parsed.
    """
    command = importlib.import_module(f"asl_pinn.workflow.commands.{name}")
    flag_help = importlib.import_module("asl_pinn.workflow.commands.flag_help")
    cache = importlib.import_module("asl_pinn.workflow.compilation_cache")
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    to = {"flag_values": values, "module_name": flag_help.COMMON}
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", **to)
    flags.DEFINE_string("compilation_cache", None, cache.HELP, **to)
    command.define_flags(values)
    return values


def _overview() -> str:
    lines = [f"  {name:<10} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: asl-pinn COMMAND [ARGUMENTS]",
            "",
            "Perfusion maps from time-encoded and other multi-delay arterial spin labelling MRI.",
            "",
            *lines,
            "",
            "asl-pinn COMMAND --help lists what a command takes; --version prints the version.",
        ]
    )


def _flags(values: flags.FlagValues) -> str:
    flag_help = importlib.import_module("asl_pinn.workflow.commands.flag_help")
    lines = []
    for title, group in flag_help.group_flags(values).items():
        lines += ["", f"{title}:"]
        for flag in group:
            text = textwrap.fill(flag_help.explain(flag), _WIDTH - 6, break_on_hyphens=False)
            lines += [f"  --{flag.name}", textwrap.indent(text, " " * 6)]
    return "\n".join(lines)
