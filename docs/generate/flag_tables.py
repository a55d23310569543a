"""Every flag of every command, as `--help` knows it."""

import importlib

from absl import flags

from asl_pinn.cli import COMMANDS


def page() -> str:
    """Markdown of the page."""
    sections = [_section(name, summary) for name, summary in COMMANDS.items()]
    intro = "# Flags\n\nThis page is made from the code. `asl-pinn COMMAND --help` says the same."
    return "\n\n".join([intro, *sections]) + "\n"


def _section(name: str, summary: str) -> str:
    command = importlib.import_module(f"asl_pinn.commands.{name}")
    values = flags.FlagValues()
    command.define_flags(values)
    rows = [_row(values[flag]) for flag in sorted(values)]
    return "\n".join(
        [
            f"## {name}",
            "",
            f"    asl-pinn {name} {command.USAGE}",
            "",
            f"{summary[0].upper()}{summary[1:]}.",
            "",
            "| flag | default | what it does |",
            "| --- | --- | --- |",
            *rows,
        ]
    )


def _row(flag: flags.Flag) -> str:
    help_text, _, by_method = " ".join(flag.help.split()).partition(" Default: ")
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        help_text = help_text.partition(">: ")[2]
        help_text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    default = by_method.removesuffix(".") or _default(flag)
    cells = [f"`--{flag.name}`", default, help_text]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _default(flag: flags.Flag) -> str:
    return "" if flag.default in (None, []) else f"`{flag.default_as_str.strip(chr(39))}`"
