"""`asl-pinn completion`."""

from collections.abc import Sequence

from absl import flags

from asl_pinn.errors import InputError
from asl_pinn.workflow.commands.arguments import positional

USAGE = "bash|zsh"

ARGUMENTS = {
    "bash|zsh": 'The shell. Put eval "$(asl-pinn completion bash)" into ~/.bashrc, or the same '
    "with zsh into ~/.zshrc.",
}

_SHELLS = {"bash": "", "zsh": "autoload -U +X bashcompinit && bashcompinit\n"}


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of this command: none of its own."""


def run(arguments: Sequence[str], values: flags.FlagValues) -> int:
    """Print the script."""
    (shell,) = positional(arguments, USAGE, 1)
    if shell not in _SHELLS:
        raise InputError(f"shell {shell!r} is unknown; choose {' or '.join(_SHELLS)}")
    print(_SHELLS[shell] + _script())
    return 0


def _script() -> str:
    from asl_pinn.workflow.cli import COMMANDS, define_flags  # they import the commands

    cases = []
    for name in COMMANDS:
        names = (
            flag for group in define_flags(name).flags_by_module_dict().values() for flag in group
        )
        words = " ".join(f"--{flag.name}{'' if flag.boolean else '='}" for flag in names)
        cases.append(f"    {name}) words='{words}' ;;")
    return f"""\
_asl_pinn() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words=
  case ${{COMP_WORDS[1]}} in
{chr(10).join(cases)}
  esac
  [ "$COMP_CWORD" = 1 ] && words='{" ".join(COMMANDS)}'
  case $word in -*) ;; *) [ "$COMP_CWORD" -gt 1 ] && words= ;; esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  case ${{COMPREPLY[0]}} in *=) compopt -o nospace 2>/dev/null ;; esac
}}
complete -o default -F _asl_pinn asl-pinn"""
