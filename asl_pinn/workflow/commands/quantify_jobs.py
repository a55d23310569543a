"""From the flags of `asl-pinn quantify` to the jobs that they ask for."""

import dataclasses
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from asl_pinn.acquisition.calibration import check_calibration
from asl_pinn.errors import InputError
from asl_pinn.estimators.options import from_mapping, options_from_flags
from asl_pinn.estimators.registry import option_types
from asl_pinn.io import bids
from asl_pinn.io.bids.atlases import roi_files, table_beside
from asl_pinn.io.bids.sidecar import read_json
from asl_pinn.models import fix
from asl_pinn.models.base import KineticModel
from asl_pinn.workflow import provenance
from asl_pinn.workflow.commands.arguments import by_name, pair, positional, require
from asl_pinn.workflow.config import Config, Job, adjusted, most_general

_LEVEL = "participant"
_TAKEN = "--{}: --from takes it from the sidecar; leave it out"
_STATED = (
    "participant_label",
    "method",
    "bounds",
    "prior",
    "fix",
    "seed",
    "dtype",
    "t1_blood",
    "keep_sign",
    "preprocessed",
)
_FILES = {
    "mask": "mask",
    "t1_tissue": "t1_tissue",
    "gm": "gm",
    "wm": "wm",
    "readout_delay": "readout",
}
"""Flags for images, and what `bids.read_run` calls them."""

_CALIBRATION_FILES = ("m0", "m0_reference_mask")
_PATHS = (*_FILES, *_CALIBRATION_FILES, "rois")


def jobs_from_flags(arguments: Sequence[str], values: flags.FlagValues, usage: str) -> list[Job]:
    """Make the jobs for all runs that were asked for.

    Parameters
    ----------
    arguments : sequence of str
        Positional arguments.
    values : absl FlagValues
        Parsed flags.
    usage : str
        What to tell a user who gave others.

    Returns
    -------
    list of Job
        At least one.

    Raises
    ------
    InputError
        If an argument or flag is at fault, or there is no such dataset or participant.
    """
    if values["from"].value is not None:
        return [_again(arguments, values)]
    further, three = _split(arguments)
    labels = participant_labels(further, values)
    bids_dir, output_dir, level = positional(three if labels else arguments, usage, 3)
    if level != _LEVEL:
        raise InputError(f"analysis level {level!r} is unknown; choose {_LEVEL} or group")
    config = _config(values)
    runs = bids.find_runs(Path(bids_dir), labels)
    return [_job(found, config, Path(output_dir), values) for found in runs]


def _split(arguments: Sequence[str]) -> tuple[list[str], Sequence[str]]:
    """Further labels of participants, and the three arguments, wherever the labels stand.

    After `--participant-label 01 02`, absl leaves the second label among the positional arguments:
    in front of the three, or behind them.
    """
    at = next((k for k, word in enumerate(arguments) if k > 1 and word == _LEVEL), 2)
    return [*arguments[: at - 2], *arguments[at + 1 :]], arguments[at - 2 : at + 1]


def participant_labels(further: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Participants as they are named: '01', 'sub-01', '01,02', and after spaces as BIDS Apps do.

    absl leaves what stands after a space behind the first label among the positional arguments.

    Parameters
    ----------
    further : sequence of str
        Those arguments.
    values : absl FlagValues
        Parsed flags.

    Returns
    -------
    list of str
        Labels without 'sub-'; empty for all.

    Raises
    ------
    InputError
        If a label is empty.
    """
    given = values["participant_label"]
    if not given.present:
        return []
    texts: list[str] = [*(given.value or []), *further]
    labels = [label.strip() for text in texts for label in text.split(",")]
    if not all(labels):
        raise InputError("--participant_label is empty; leave it out for all participants")
    return list(dict.fromkeys(label.removeprefix("sub-") for label in labels))


def _config(values: flags.FlagValues) -> Config:
    """The choices that the flags make, checked."""
    bounds = by_name(values.bounds, "bounds", pair)
    priors = by_name(values.prior, "prior", pair)
    held = by_name(values.fix, "fix", float)
    model = most_general(values.model, held)
    for flag, names in (("bounds", [*bounds]), ("prior", [*priors]), ("fix", [*held])):
        for name in names:
            if name not in model.names:
                known = ", ".join(model.names)
                raise InputError(f"--{flag}: model {model.name} has no {name!r}, only {known}")
    config = Config(
        values.method,
        options_from_flags(
            option_types(), values.method, values, [n for n in model.names if n not in held]
        ),
        values.model,
        bounds,
        priors,
        held,
        values.seed,
        values.dtype,
        reading_from_flags(values, _grey_matter(model, values)),
        tuple(":".join(map(str, _roi_files(text))) for text in values.rois),
    )
    fix(adjusted(model, bounds, priors), **held)  # refuses what is out of range
    return config


def reading_from_flags(values: flags.FlagValues, gm: str | None) -> dict[str, Any]:
    """How a dataset is to be read.

    Parameters
    ----------
    values : absl FlagValues
        Parsed flags.
    gm : str or None
        Where the fractions of grey matter come from, as `provenance.reading` takes it.

    Returns
    -------
    dict of str to Any
        Keyword arguments of `bids.read_run`.

    Raises
    ------
    InputError
        If a value is empty or out of range.
    """
    return provenance.reading(
        values.mask,
        values.t1_tissue,
        values.t1_blood,
        gm,
        values.wm,
        values.keep_sign,
        _calibration(values),
        values.readout_delay,
        values.preprocessed,
    )


def _roi_files(text: str) -> tuple[Path, ...]:
    if not text:
        raise InputError("--rois is empty; name an image, or leave it out")
    return roi_files(text)


def _calibration(values: flags.FlagValues) -> dict[str, Any]:
    """What the user says of constants and M0, checked."""
    names = [field.name for field in dataclasses.fields(bids.Calibration)]
    given = {name: values[name].value for name in names if values[name].present}
    check_calibration(from_mapping(bids.Calibration, given, (), "calibration"))
    return given


def _grey_matter(model: KineticModel, values: flags.FlagValues) -> str | None:
    """Where the fractions of grey matter come from; nowhere for models that do not need them."""
    given: str | None = values.gm
    unsaid = given is None and values.wm is None
    return "derivatives" if unsaid and model.needs_fractions else given


def _again(arguments: Sequence[str], values: flags.FlagValues) -> Job:
    """Job that repeats the one that a sidecar tells of."""
    sidecar = Path(require(values, "from"))
    if arguments and not arguments[0]:
        raise InputError("OUTPUT_DIR is empty; name a folder, or leave it out")
    if len(arguments) > 1:
        raise InputError("with --from, OUTPUT_DIR is the one argument; the sidecar has the rest")
    origin = read_json(sidecar)
    _refuse_choices(origin, sidecar, values)
    config = provenance.restore(origin, sidecar)
    bids_dir = Path(os.path.normpath(origin["InputDataset"]))
    trusted = _trusted_files(config, values)
    _refuse_files_outside(config, sidecar, bids_dir, trusted)
    provenance.check_sources(origin, bids_dir, trusted)
    runs = [
        found
        for found in bids.find_runs(bids_dir)
        if provenance.is_source(found.path, origin, bids_dir)
    ]
    if len(runs) != 1:
        raise InputError(f"{sidecar}: names {len(runs)} ASL series of {bids_dir}, not one")
    folder = sidecar.absolute().parent
    depth = len(runs[0].folder.parts)
    if not arguments and folder.parts[-depth:] != runs[0].folder.parts:
        raise InputError(f"{sidecar}: lies in no dataset of maps; give an OUTPUT_DIR")
    output_dir = Path(arguments[0]) if arguments else folder.parents[depth - 1]
    for key, here in provenance.circumstances().items():
        if origin[key] != here and not values.quiet:
            print(f"{runs[0].stem}: note: made with other {key}; bits may differ", file=sys.stderr)
    job = _job(runs[0], config, output_dir, values)
    return dataclasses.replace(job, resume=False, fingerprint=origin["InputFingerprint"])


def _named_files(config: Config) -> list[tuple[str, Path]]:
    """Files that the choices name, each behind the flag for it."""
    calibration = config.reading["calibration"]
    named = [(flag, config.reading[key]) for flag, key in _FILES.items()]
    for flag in _CALIBRATION_FILES:
        text = getattr(calibration, flag)
        if text is not None and Path(text).is_absolute():  # else it is a number
            named.append((flag, Path(text)))
    named += [("rois", path) for text in config.rois for path in roi_files(text)]
    return [(flag, _normal(path)) for flag, path in named if isinstance(path, Path)]


def _trusted_files(config: Config, values: flags.FlagValues) -> list[Path]:
    """Files that the user names as well as the sidecar; others are refused."""
    named, trusted = _named_files(config), []
    for flag in _PATHS:
        if not values[flag].present:
            continue
        if flag == "rois":
            given = [_normal(path) for text in values.rois for path in roi_files(text)]
        else:
            given = [_normal(Path(str(values[flag].value)))]
        if not {(flag, path) for path in given} <= set(named):
            raise InputError(_TAKEN.format(flag))
        beside = [table_beside(path) for path in given] if flag == "rois" else []
        trusted += [*given, *beside]
    return trusted


def _normal(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _refuse_files_outside(
    config: Config, sidecar: Path, bids_dir: Path, trusted: Collection[Path]
) -> None:
    """Refuse files outside the dataset that nobody but the sidecar names."""
    for flag, path in _named_files(config):
        if path not in trusted and not path.is_relative_to(bids_dir):
            raise InputError(
                f"{sidecar}: its {flag} {path} lies outside the dataset; if you trust it, add "
                f"--{flag}={path}"
            )


def _refuse_choices(origin: Mapping[str, Any], sidecar: Path, values: flags.FlagValues) -> None:
    """Refuse flags for what the sidecar states, and code that nobody but the sidecar names."""
    kinds = (bids.Calibration, *option_types().values())
    of_methods = (field.name for kind in kinds for field in dataclasses.fields(kind))
    model = origin.get("Model")
    chosen = [
        name for name in (*_STATED, *of_methods) if values[name].present and name not in _PATHS
    ]
    if values["model"].present and values.model != model:
        chosen.append("model")
    if chosen:
        raise InputError(_TAKEN.format(chosen[0]))
    if isinstance(model, str) and ":" in model and values.model != model:
        raise InputError(
            f"{sidecar}: its model {model} is code that would be run; if you trust it, add "
            f"--model={model}"
        )


def _job(found: bids.AslRun, config: Config, output_dir: Path, values: flags.FlagValues) -> Job:
    kept = values.checkpoint_dir
    return Job(
        found,
        config,
        output_dir.absolute(),
        None if kept is None else Path(kept).absolute(),
        values.resume,
        progress=values.n_jobs == 1 and values.scheduler is None and not values.quiet,
        cache=values.compilation_cache,
    )
