"""The command line, `asl-pinn COMMAND ...`: each command is a module of `workflow.commands`."""

import contextlib
import importlib
import os
import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence

from absl import flags

from asl_pinn import __version__
from asl_pinn.errors import InputError, one_line

COMMANDS = {
    "demo": "simulate a brain slice, fit it, score it and draw it",
    "simulate": "write a simulated acquisition as a BIDS dataset, with its truth",
    "inspect": "show how a BIDS dataset is read and what is wrong with it, without fitting",
    "quantify": "turn a BIDS dataset into maps of CBF, ATT and what else a model has",
    "evaluate": "score maps against the truth",
    "completion": "print a script that completes commands and flags in a shell",
    "design": "compare protocols by what they can be expected to tell, and find better ones",
}

USAGE_ERROR = 2

_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
_BROKEN_PIPE = 141
_WIDTH = 100
_LEAST_ADDRESS_SPACE = 4_000_000_000  # bytes


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
    if "--version" in arguments:
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS and not {"participant", "group"}.isdisjoint(arguments):
        arguments.insert(0, "quantify")  # as BIDS Apps are called
    try:
        return _dispatch(*arguments)
    except InputError as error:
        return _complain(str(error))
    except MemoryError:
        return _complain("there is not enough memory; lift its limit (ulimit -v), or crop the data")


def entry_point() -> None:
    """Run a command and exit with its status.

    What libraries warn of is not for the people at the terminal: what they should know is a note.
    """
    warnings.simplefilter("ignore")
    interrupts = importlib.import_module("asl_pinn.workflow.interrupts")
    try:
        with interrupts.insistent():
            status = main(sys.argv)
        _flush()
    except KeyboardInterrupt:
        # other threads may be at work, for which an ordinary exit would wait
        with contextlib.suppress(OSError):
            _flush()
        os._exit(_INTERRUPTED)
    except BrokenPipeError:
        # Nobody reads on, as in `quantify --help | head`.
        _drop_output()
        status = _BROKEN_PIPE
    except OSError as error:
        _drop_output()
        status = _complain(f"standard output cannot be written ({error.strerror})")
    sys.exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as where the caller has closed it
            stream.flush()


def _drop_output() -> None:
    """Let the interpreter's own last flush go nowhere instead of failing."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> int:
    """Print the one line about a mistake; status for it."""
    with contextlib.suppress(OSError):
        print(f"asl-pinn: error: {one_line(message)}", file=sys.stderr)
    return USAGE_ERROR


def _dispatch(name: str, *arguments: str) -> int:
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}; choose {', '.join(COMMANDS)}")
    for argument in arguments:
        if not argument.isprintable():
            raise InputError(
                f"argument {argument} has characters that cannot be printed; rename it"
            )
    command = importlib.import_module(f"asl_pinn.workflow.commands.{name}")
    cache = importlib.import_module("asl_pinn.workflow.compilation_cache")
    values = define_flags(name)
    try:
        _, *positional = values([name, *with_underscores(arguments, values)])
    except flags.Error as error:
        raise InputError(f"{' '.join(str(error).split())}; see asl-pinn {name} --help") from None
    if values.help:
        print(f"usage: asl-pinn {name} {command.USAGE}\n\n{COMMANDS[name]}")
        print(_arguments(command.ARGUMENTS) + _flags(values))
        return 0
    _check_memory()
    fault = cache.enable(values.compilation_cache)
    if fault:
        line = one_line(f"compilation cache: {fault}; programs are compiled anew")
        print(f"asl-pinn: note: {line}", file=sys.stderr)
    return command.run(positional, values)


def _check_memory() -> None:
    """Refuse an address space in which XLA may end the process without a word."""
    try:
        import resource
    except ImportError:  # not a Unix system
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise InputError(
            f"the address space is limited to {limit / 1e9:.2g} GB, and at least "
            f"{_LEAST_ADDRESS_SPACE / 1e9:.2g} GB are needed; lift the limit (ulimit -v)"
        )


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


def with_underscores(arguments: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Arguments with the flags as absl has them: --n-jobs as --n_jobs, --no-resume as --noresume.

    Parameters
    ----------
    arguments : sequence of str
        Of a command.
    values : absl FlagValues
        With its flags.

    Returns
    -------
    list of str
        What is no known flag stays as it is.
    """
    known = {name: name for name in values}
    known |= {f"no{mark}{name}": f"no{name}" for name in values for mark in ("", "_")}
    named = []
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        other = known.get(name.replace("-", "_"))
        is_flag = argument.startswith("--") and other is not None
        named.append(f"--{other}{equals}{value}" if is_flag else argument)
    return named


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
            "BIDS Apps' form, asl-pinn BIDS_DIR OUTPUT_DIR participant, is that of quantify.",
        ]
    )


def _arguments(described: Mapping[str, str]) -> str:
    lines = ["", "arguments:"] if described else []
    for name, text in described.items():
        lines += [f"  {name}", _indented(text)]
    return "\n".join([*lines, ""])


def _indented(text: str) -> str:
    return textwrap.indent(textwrap.fill(text, _WIDTH - 6, break_on_hyphens=False), " " * 6)


def _flags(values: flags.FlagValues) -> str:
    flag_help = importlib.import_module("asl_pinn.workflow.commands.flag_help")
    lines = []
    for title, group in flag_help.group_flags(values).items():
        lines += ["", f"{title}:"]
        for flag in group:
            lines += [f"  --{flag.name}", _indented(flag_help.explain(flag))]
    return "\n".join(lines)
