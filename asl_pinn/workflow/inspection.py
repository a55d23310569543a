"""How a run is read, as text: volumes, timing, M0, faults and notes, without fitting anything.

Another section is a function from what was found to lines, and one entry of `SECTIONS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData
from asl_pinn.errors import InputError, one_line
from asl_pinn.evaluation.verdict import judge
from asl_pinn.io import bids
from asl_pinn.io.bids.calibration import read_m0
from asl_pinn.io.bids.faults import describe_volumes
from asl_pinn.io.bids.images import Image, load_image
from asl_pinn.io.bids.preprocessed import preprocessed
from asl_pinn.io.bids.sidecar import Sidecar, numbers
from asl_pinn.workflow.columns import aligned


@dataclasses.dataclass(frozen=True)
class Inspected:
    """What was found in one run; None or empty where it could not be read.

    Attributes
    ----------
    run : AslRun
    series : Image or None
        Four-dimensional.
    types : tuple of str
        Type of each volume.
    faults : tuple of str
        What stands in the way of quantifying it.
    data : AslData or None
        What would be fitted.
    notes : ReadNotes or None
        What reading had to say.
    """

    run: bids.AslRun
    series: Image | None = None
    types: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    data: AslData | None = None
    notes: bids.ReadNotes | None = None


def inspect_run(run: bids.AslRun, reading: Mapping[str, Any]) -> Inspected:
    """Read a run as far as it can be, and collect what is wrong with it.

    Parameters
    ----------
    run : AslRun
    reading : mapping
        Keyword arguments of `bids.read_run`.

    Returns
    -------
    Inspected
        Nothing is raised for faults of the run.
    """
    calibration = reading.get("calibration", bids.Calibration())
    try:
        if reading.get("use_preprocessed"):
            run = preprocessed(run)
        series = load_image(run.images or run.path, ndim=(3, 4))
        values = series.values if series.values.ndim == 4 else series.values[..., None]
        series = dataclasses.replace(series, values=values)
        types, faults = describe_volumes(run, values.shape)
    except InputError as error:
        return Inspected(run, faults=(str(error),))
    found = Inspected(run, series, tuple(types), tuple(faults))
    if faults:
        return dataclasses.replace(found, faults=(*faults, *_m0_faults(found, calibration.m0)))
    try:
        data, notes = bids.read_run(run, **reading)
    except InputError as error:
        return dataclasses.replace(found, faults=(str(error),))
    return dataclasses.replace(found, data=data, notes=notes)


def describe(found: Inspected) -> str:
    """Text about a run, for people.

    Parameters
    ----------
    found : Inspected

    Returns
    -------
    str
        A heading and the sections that have something to say.
    """
    lines = [one_line(found.run.path.relative_to(found.run.bids_dir).as_posix())]
    for title, section in SECTIONS.items():
        told = section(found)
        if told:
            lines += [f"  {title}", *(f"    {line}" for line in told)]
    return "\n".join(lines)


def _m0_faults(found: Inspected, given: str | None) -> list[str]:
    """What is wrong with M0, where other faults keep the run from being read."""
    assert found.series is not None  # or there would be no volumes
    stated = found.run.sidecar.metadata.get("M0Type")
    if given is None and stated not in ("Separate", "Included", "Estimate"):
        return []
    try:
        read_m0(found.run, found.series, found.types, None, given, [])
    except InputError as error:
        return [str(error)]
    return []


def _volumes(found: Inspected) -> list[str]:
    """Each volume: its type, timing and mean over the mask, or over all voxels without one."""
    if found.series is None:
        return []
    values = found.series.values
    where = np.isfinite(values).all(axis=-1) if found.data is None else found.data.valid
    means = values[where].astype(np.float64).mean(axis=0) if where.any() else np.zeros(0)
    times = [
        _times(found.run.sidecar, key, len(found.types))
        for key in ("LabelingDuration", "PostLabelingDelay")
    ]
    rows = [
        [str(number), kind, *(column[number - 1] for column in times), f"{mean:.6g}"]
        for number, (kind, mean) in enumerate(zip(found.types, means, strict=False), 1)
    ]
    over = "all voxels" if found.data is None else "mask"
    header = ["volume", "type", "label duration [s]", "delay [s]", f"mean over {over}"]
    return aligned([header, *rows])


def _times(sidecar: Sidecar, key: str, n_volumes: int) -> list[str]:
    try:
        stated: FloatArray = numbers(sidecar, key)
    except InputError:
        return ["?"] * n_volumes
    stated = np.repeat(stated, n_volumes) if len(stated) == 1 else stated
    told = [f"{value:g}" for value in stated[:n_volumes]]
    return told + ["?"] * (n_volumes - len(told))


def _timing(found: Inspected) -> list[str]:
    """Differences that would be fitted."""
    if found.data is None:
        return []
    protocol = found.data.protocol
    columns = (protocol.label_duration, protocol.pld, found.data.n_averages)
    rows = [
        [f"{value:.4g}" for value in row] for row in zip(*map(np.asarray, columns), strict=True)
    ]
    return aligned([["label duration [s]", "delay [s]", "averages"], *rows])


def _m0(found: Inspected) -> list[str]:
    if not found.types:
        return []  # its sidecar cannot be read
    kind = found.run.sidecar.metadata.get("M0Type", "not stated")
    if found.data is None or found.notes is None:
        return [f"M0Type: {kind}"]
    data, facts = found.data, found.notes.facts
    m0 = data.m0[data.valid].astype(np.float64)
    told = [f"M0Type: {kind}; median over the mask {np.median(m0):.6g}"]
    if facts.signal_over_m0 is not None:
        told.append(f"largest median difference: {100.0 * facts.signal_over_m0:.3g} % of M0")
    if facts.control_over_m0 is not None:
        told.append(f"control images: {100.0 * facts.control_over_m0:.3g} % of M0")
    return told


def _files(found: Inspected) -> list[str]:
    return [] if found.notes is None else [str(Path(name)) for name in found.notes.sources]


def _faults(found: Inspected) -> list[str]:
    return [f"({number}) {fault}" for number, fault in enumerate(found.faults, 1)]


def _notes(found: Inspected) -> list[str]:
    return [] if found.notes is None else list(found.notes.messages)


def _verdict(found: Inspected) -> list[str]:
    return [] if found.notes is None else [judge(found.notes.facts).sentence]


SECTIONS: dict[str, Callable[[Inspected], list[str]]] = {
    "volumes": _volumes,
    "differences": _timing,
    "M0": _m0,
    "files": _files,
    "faults": _faults,
    "notes": _notes,
    "verdict before any fit": _verdict,
}
"""What is told of a run, by heading: functions from what was found to lines."""
