"""What `--help` and the documentation say of flags, in groups."""

from typing import Any

from absl import flags

from asl_pinn import models

COMMON, READING, METHOD = "common flags", "reading", "method"
"""Groups; each is the module of its flags, as absl has it."""


def models_help() -> str:
    """The registered models with their parameters, units, bounds and priors.

    Returns
    -------
    str
        Sentences for `--help`.
    """
    return " ".join(f"{name}: {_table(make())}." for name, make in models.available().items())


def _table(model: models.KineticModel) -> str:
    rows = "; ".join(map(_row, model.parameters))
    return rows if model.has_signal else f"added to another model, {rows}"


def _row(p: models.Parameter) -> str:
    unit = "" if p.unit == "1" else f" [{p.unit}]"
    row = f"{p.name}{unit} {p.lower:g} to {p.upper:g}"
    if p.prior is None:
        return row
    mean = "as stated for the tissue" if p.prior.mean is None else f"{p.prior.mean:g}"
    return f"{row}, prior {mean} +- {p.prior.sd:g}{' (weak)' if p.prior.weak else ''}"


def group_flags(values: flags.FlagValues) -> dict[str, list[flags.Flag[Any]]]:
    """The flags of a command for people, by group.

    Parameters
    ----------
    values : absl FlagValues
        With the flags of a command.

    Returns
    -------
    dict of str to list of absl Flag
        In the order in which groups and flags were defined.
    """
    return {title: list(group) for title, group in values.flags_by_module_dict().items()}


def explain(flag: flags.Flag[Any]) -> str:
    """What a flag does, what it can be, and its default.

    Parameters
    ----------
    flag : absl Flag
        Of a command.

    Returns
    -------
    str
        Sentences.
    """
    said = flag.help.partition(_ADDED_BEHIND)[0]
    choices = getattr(flag.parser, "enum_values", None)
    if choices and said.startswith("<"):
        said = said.partition(">: ")[2]
    sentences = [" ".join(said.split())]
    if choices:
        sentences.insert(0, f"One of {', '.join(choices)}.")
    if flag.default not in (None, []):
        sentences.append(f"Default: {str(flag.default_as_str).strip(chr(39))}.")
    return " ".join(sentences)


_ADDED_BEHIND = ";\n    repeat this option"  # by absl, which also adds '<choices>: ' in front
