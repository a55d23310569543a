"""From the files of a BIDS dataset to `AslData`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asl_pinn.acquisition.calibration import DEFAULT_CALIBRATION, Calibration, check_calibration
from asl_pinn.acquisition.protocol import MAX_SECONDS, Protocol
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.evaluation.verdict import Facts
from asl_pinn.io.bids.acquired import measure, repeat_noise
from asl_pinn.io.bids.calibration import calibrate, read_m0
from asl_pinn.io.bids.calibration_checks import m0_remarks
from asl_pinn.io.bids.dataset import IMAGE_EXTENSIONS, AslRun, find_runs
from asl_pinn.io.bids.derived import check_image_type
from asl_pinn.io.bids.faults import describe_volumes, refuse
from asl_pinn.io.bids.images import Image, check_same_grid, load_image
from asl_pinn.io.bids.inheritance import file_entities
from asl_pinn.io.bids.labeling import labeling_efficiency, vascular_crushing
from asl_pinn.io.bids.masks import find_mask, load_mask, mask_from_m0
from asl_pinn.io.bids.preprocessed import preprocessed
from asl_pinn.io.bids.relaxation import read_relaxation
from asl_pinn.io.bids.sanity_checks import check_differences
from asl_pinn.io.bids.series import differences
from asl_pinn.io.bids.timing import labeling_type, readout_delay
from asl_pinn.io.bids.tissues import Source, known_fractions, read_fractions
from asl_pinn.io.bids.volume_types import LEFT_OUT

__all__ = ["AslRun", "ReadNotes", "find_runs", "read_run"]


@dataclasses.dataclass(frozen=True)
class ReadNotes:
    """What a user should know of how a run was read.

    Attributes
    ----------
    messages : tuple of str
        One line each: assumptions, things ignored, voxels skipped.
    sources : tuple of str
        Files that the data came from, relative to the dataset where they are in it.
    n_skipped : int
        Voxels of the mask that cannot be quantified.
    constants : mapping of str to Any
        What the maps rest on, as a sidecar states it: ArterialSpinLabelingType, LabelingEfficiency
        and its source, VascularCrushing where it is known, LabelingDuration, PostLabelingDelay and
        averages of each difference, PartitionCoefficient, the source of M0 and what was done to
        it, the source of the mask; T1Blood, T1BloodSource, T1Tissue and T1TissueSource: values
        [s] and the flag or the work that they come from, or the map of T1.
    facts : Facts
        What was measured for the verdict.
    noise_sd : float or None
        Noise of one difference in the median voxel, from the scatter of repeats [unit of delta_m].
    """

    messages: tuple[str, ...]
    sources: tuple[str, ...]
    n_skipped: int
    constants: Mapping[str, Any]
    facts: Facts = dataclasses.field(default_factory=Facts)
    noise_sd: float | None = None

    def extended(
        self, messages: Sequence[str], sources: Sequence[Path], bids_dir: Path
    ) -> "ReadNotes":
        """The same with what was read besides.

        Parameters
        ----------
        messages : sequence of str
            One line each.
        sources : sequence of Path
            Files; those that are known already are not repeated.
        bids_dir : Path
            The dataset.

        Returns
        -------
        ReadNotes
        """
        names = (_relative(path, bids_dir) for path in sources)
        return dataclasses.replace(
            self,
            messages=(*self.messages, *messages),
            sources=tuple(dict.fromkeys((*self.sources, *names))),
        )


def read_run(
    run: AslRun,
    *,
    mask: Path | None = None,
    t1_tissue: float | Path | Literal["map"] | None = None,
    t1_blood: float | None = None,
    gm: Source | None = None,
    wm: Source | None = None,
    keep_sign: bool = False,
    calibration: Calibration = DEFAULT_CALIBRATION,
    readout: Path | None = None,
    use_preprocessed: bool = False,
) -> tuple[AslData, ReadNotes]:
    """Read one ASL series with its M0, mask and timing.

    Parameters
    ----------
    run : AslRun
        From `find_runs`.
    mask : Path, optional
        Image of the voxels to quantify; else the dataset's own brain mask among its
        derivatives, else one made from M0.
    t1_tissue : float or Path or 'map', optional
        One T1 [s], an image of T1 [s], or 'map' for the participant's anat/*_T1map.nii[.gz];
        by the scanner's field strength unless given.
    t1_blood : float, optional
        T1 of arterial blood [s]; likewise.
    gm, wm : Path or 'derivatives' or 't1', optional
        Fractions of grey and white matter, as `read_fractions` takes them; not read unless given.
    keep_sign : bool
        Whether to take differences as they are though their mean is negative.
    calibration : Calibration
        Constants, M0 and what is done to it.
    readout : Path, optional
        Image of what the readout adds to every delay [s], in place of SliceTiming.
    use_preprocessed : bool
        Whether to read the preprocessed series among the derivatives in place of the acquired.

    Returns
    -------
    data : AslData
        Images as float32; voxels without a finite value are NaN.
    notes : ReadNotes

    Raises
    ------
    InputError
        If a file is missing or unreadable, files contradict one another, a value is out of
        range, or no voxel is left to quantify.
    """
    messages: list[str] = []
    check_calibration(calibration)
    _refuse_namesakes(run)
    if use_preprocessed:
        run = preprocessed(run)
    series = load_image(run.images or run.path, ndim=(3, 4))
    if series.values.ndim == 3:
        series = dataclasses.replace(series, values=series.values[..., None])
    m0_given = calibration.m0 is not None
    types, faults = describe_volumes(run, series.values.shape, m0_given=m0_given)
    refuse(faults, run.sidecar)
    _note_left_out(types, messages)
    remarks: list[str] = []
    check_image_type(run.sidecar, types, remarks)
    kind, crushing = labeling_type(run.sidecar), vascular_crushing(run.sidecar, types)
    efficiency, efficiency_source = labeling_efficiency(
        run.sidecar, messages, calibration.labeling_efficiency
    )
    decoded = differences(series.values, types, run.sidecar, messages)
    measured = read_m0(run, series, types, decoded.control, calibration.m0, messages)
    if measured.source is not None and not m0_given:
        remarks += m0_remarks(run, types, measured.source)
    inside, mask_source = _mask(run, mask, measured.mean, series, messages)
    relaxation = read_relaxation(run, series, t1_tissue, t1_blood, messages)
    fractions = read_fractions(run, series, gm, wm, relaxation, messages)
    known = known_fractions(run, series, fractions, relaxation)
    m0, m0_stated = calibrate(
        measured, run, inside, series, relaxation, known, calibration, messages
    )
    data = AslData(
        delta_m=decoded.delta_m,
        m0=m0,
        mask=inside,
        t1_tissue=relaxation.t1_tissue,
        readout_delay=_readout_delay(run, readout, series, messages),
        n_averages=decoded.n_averages,
        protocol=Protocol(
            decoded.label_duration,
            decoded.pld,
            relaxation.t1_blood,
            efficiency,
            calibration.partition_coefficient,
            labeling="pulsed" if kind == "PASL" else "continuous",
            vascular_crushing=crushing,
            t1_gm=fractions.t1_gm,
            t1_wm=fractions.t1_wm,
        ),
        affine=series.affine,
        stem=run.maps_stem,
        gm=fractions.gm,
        wm=fractions.wm,
    )
    n_skipped = _count_skipped(run, data, messages)
    check_differences(data, run.sidecar, types, keep_sign=keep_sign)
    if data.protocol.n_delays == 1:
        messages.append(
            "a single delay determines one parameter alone: hold the others, as --fix=att=1.2 does"
        )
    reference_mask = calibration.m0_reference_mask
    files = [run.path, series.path, run.sidecar.path, run.context, measured.source, mask_source]
    files += [
        relaxation.t1_map,
        readout,
        *fractions.sources,
        *([Path(reference_mask)] if reference_mask else []),
    ]
    sources = dict.fromkeys(_relative(path, run.bids_dir) for path in files if path is not None)
    constants = {
        "ArterialSpinLabelingType": kind,
        "LabelingEfficiency": efficiency,
        "LabelingEfficiencySource": efficiency_source,
        **({} if crushing is None else {"VascularCrushing": crushing}),
        "LabelingDuration": decoded.label_duration.tolist(),
        "PostLabelingDelay": decoded.pld.tolist(),
        "Averages": decoded.n_averages.tolist(),
        "PartitionCoefficient": calibration.partition_coefficient,
        "M0Source": _relative(measured.source, run.bids_dir) if measured.source else calibration.m0,
        **m0_stated,
        "MaskSource": _relative(mask_source, run.bids_dir) if mask_source else "made from M0",
        **relaxation.constants,
        **fractions.constants,
    }
    if crushing is not None:
        constants["VascularCrushing"] = crushing
    constants |= relaxation.constants | fractions.constants
    return data, ReadNotes(
        tuple(messages),
        tuple(sources),
        n_skipped,
        constants,
        measure(run.sidecar, series, types, decoded, data, remarks),
        repeat_noise(decoded, data),
    )


def _refuse_namesakes(run: AslRun) -> None:
    """Refuse a series beside another whose maps would have the same names."""
    namesakes = [
        path.name
        for path in sorted(run.path.parent.glob("*_asl.nii*"))
        if path.name.endswith(IMAGE_EXTENSIONS)
        and dataclasses.replace(run, entities=file_entities(path)).output_stem == run.output_stem
    ]
    if len(namesakes) > 1:
        raise InputError(
            f"{run.path}: maps of {', '.join(namesakes)} would have the same names; keep one"
        )


def _note_left_out(types: Sequence[str], messages: list[str]) -> None:
    for kind, what in zip(
        LEFT_OUT, ("volumes without excitation (noRF)", "volumes of type n/a"), strict=True
    ):
        if kind in types:
            messages.append(f"{what} are left out: {types.count(kind)}")


def _readout_delay(
    run: AslRun, given: Path | None, series: Image, messages: list[str]
) -> NDArray[np.float32]:
    if given is None:
        return readout_delay(run.sidecar, series.values.shape[:3], messages)
    image = load_image(given)
    check_same_grid(image, series)
    delays = np.nan_to_num(image.values)
    if not 0.0 <= delays.min() <= delays.max() <= MAX_SECONDS:
        raise InputError(
            f"{given}: --readout_delay must be 0 to {MAX_SECONDS:g} s, it goes from "
            f"{delays.min():g} to {delays.max():g}"
        )
    return delays


def _mask(
    run: AslRun,
    given: Path | None,
    m0: NDArray[np.float32],
    series: Image,
    messages: list[str],
) -> tuple[NDArray[np.bool_], Path | None]:
    path = given or find_mask(run, series)
    if path is not None:
        return load_mask(path, series), path
    if np.ptp(m0[np.isfinite(m0)]) == 0.0:
        raise InputError(
            f"{run.path}: no mask, and M0 is the same everywhere; give one with --mask"
        )
    inside = mask_from_m0(m0, series.affine)
    if not inside.any():
        raise InputError(f"{run.path}: no brain was found in M0; give a mask with --mask")
    messages.append(f"no mask in the dataset: made one of {inside.sum()} voxels from M0")
    return inside, None


def _count_skipped(run: AslRun, data: AslData, messages: list[str]) -> int:
    n_inside, n_valid = int(data.mask.sum()), int(data.valid.sum())
    fault = (
        "hold NaN, Inf or values beyond all sense, an M0 that is not positive, or a T1 below 0.1 s"
    )
    if n_valid == 0:
        raise InputError(f"{run.path}: all {n_inside} voxels of the mask {fault}; nothing is left")
    if n_valid < n_inside:
        messages.append(f"{n_inside - n_valid} of {n_inside} voxels of the mask {fault}: skipped")
    return n_inside - n_valid


def _relative(path: Path, bids_dir: Path) -> str:
    path = path.absolute()
    return (path.relative_to(bids_dir) if path.is_relative_to(bids_dir) else path).as_posix()
