"""Every flag of every command, as `--help` knows it."""

import importlib
from typing import Any

from absl import flags

from asl_pinn.workflow.cli import COMMANDS, define_flags
from asl_pinn.workflow.commands.flag_help import explain, group_flags


def page() -> str:
    """Markdown of the page."""
    sections = [_section(name, summary) for name, summary in COMMANDS.items()]
    intro = "# Flags\n\nThis page is made from the code. `asl-pinn COMMAND --help` says the same."
    return "\n\n".join([intro, *sections]) + "\n"


def _section(name: str, summary: str) -> str:
    command = importlib.import_module(f"asl_pinn.workflow.commands.{name}")
    lines = [
        f"## {name}",
        "",
        f"    asl-pinn {name} {command.USAGE}",
        "",
        f"{summary[0].upper()}{summary[1:]}.",
    ]
    for title, group in group_flags(define_flags(name)).items():
        lines += ["", f"### {title[0].upper()}{title[1:]}", ""]
        lines += ["| flag | what it does |", "| --- | --- |", *map(_row, group)]
    return "\n".join(lines)


def _row(flag: flags.Flag[Any]) -> str:
    cells = [f"`--{flag.name}`", explain(flag)]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
