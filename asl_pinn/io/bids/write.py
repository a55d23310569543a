"""Perfusion maps and simulated acquisitions as BIDS datasets."""

import contextlib
import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

import asl_pinn
from asl_pinn.acquisition.protocol import Protocol
from asl_pinn.arrays import FloatArray
from asl_pinn.data import AslData, Maps, Phantom, Status
from asl_pinn.errors import InputError
from asl_pinn.io.atomic import json_bytes, nifti_bytes, sha256, write_files
from asl_pinn.io.bids.encoded import encoding_of, sub_bolus_durations
from asl_pinn.io.bids.sidecar import Sidecar, read_json
from asl_pinn.models import KineticModel, Parameter, get
from asl_pinn.models.partial_volume import TISSUE_LABELS

BIDS_VERSION = "1.11.0"
SOURCE_DATASET = "raw"
"""Name by which maps refer to the dataset that they were made from."""

SIMULATION_NAME = "asl_pinn simulation"

_STATUS = {
    Status.OUTSIDE: "Outside the mask",
    Status.FITTED: "Fitted",
    Status.ON_BOUND: "Fitted, with a parameter on a bound of its range",
    Status.NOT_CONVERGED: "Fit did not converge",
    Status.SKIPPED: "Inside the mask, but the data cannot be quantified",
}
_OF_KIND = {"": "", "Sd": "standard deviation of "}
_REPETITION_TIME = 5.0
_ECHO_TIME = 0.01


def desc_label(method: str) -> str:
    """BIDS label of a method: letters and digits alone, 'nlls-smoothed' as 'nllsSmoothed'.

    Parameters
    ----------
    method : str

    Returns
    -------
    str

    Raises
    ------
    InputError
        If the name has neither letters nor digits.
    """
    words = re.findall(r"[A-Za-z0-9]+", method)
    if not words:
        raise InputError(f"method {method!r} gives no name to files; use letters or digits")
    first, *others = words
    return first + "".join(word[0].upper() + word[1:] for word in others)


def map_base(base: str, parameter: Parameter, kind: str = "") -> str:
    """Name of the files of a parameter's map, without extension.

    Parameters
    ----------
    base : str
        Up to the label of the method, 'sub-01_desc-nlls'.
    parameter : Parameter
        The label of its tissue, if it has one, follows that of the method.
    kind : str
        'Sd' for standard deviations.

    Returns
    -------
    str

    Examples
    --------
    >>> map_base("sub-01_desc-nlls", get("partial-volume")["cbf_gm"], "Sd")
    'sub-01_desc-nllsGMSd_cbf'
    """
    return f"{base}{parameter.tissue}{kind}_{parameter.file_suffix}"


def write_maps(
    output_dir: Path,
    maps: Maps,
    provenance: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write the maps of one run into a BIDS derivative dataset.

    For each parameter of the model that is not held, `<stem>_desc-<method>_<suffix>` is written
    (of a single tissue `_desc-<method>GM_<suffix>`), its standard deviation as
    `_desc-<method>Sd_<suffix>` where there is one, then
    `_desc-<method>Status_dseg`, the probability that a voxel has a sparse component as
    `_desc-<method>ABV_probseg` (in place of ABV, the symbol of its amplitude), and a JSON file
    beside each; and a dataset_description.json, with
    a .bidsignore for the names that BIDS does not know yet, if there is none. The sidecar of the
    first parameter's map is written last and holds the checksums of the run's other files, for
    `read_finished`. Files of earlier maps of the same run and method that are not written anew,
    such as those of a parameter that the model no longer has, are removed.

    Parameters
    ----------
    output_dir : Path
        Made where needed; one that holds another raw dataset is refused.
    maps : Maps
        Values, status and standard deviations; samples and history are not written.
    provenance : mapping, optional
        Further keys of every sidecar: options, version, seed, sources. 'InputDataset' is what the
        dataset of maps links to, by the name that sources have.
    extra_files : mapping of str to bytes, optional
        Further files by what follows the stem, {'_desc-nlls_cbf.png': ...}.

    Returns
    -------
    list of Path
        All files written, in that order.

    Raises
    ------
    InputError
        If `output_dir` is no place for derivatives or cannot be written; what was in it is
        then unchanged.
    """
    output_dir = Path(output_dir)
    base = f"{output_dir / maps.stem}_desc-{desc_label(maps.method)}"
    common = {**_what_maps_know(maps), **(provenance or {})}
    contents: dict[Path, bytes] = {}
    for kind, volumes in (("", maps.values), ("Sd", maps.sd)):
        for p in maps.model.parameters:
            if p.name in volumes:
                sidecar = {**_described(p, _OF_KIND[kind]), **common}
                name = map_base(base, p, kind)
                contents |= _image(name, _float32(volumes[p.name]), maps.affine, sidecar)
    status = {
        "Description": "What became of each voxel",
        "LabelMap": {str(int(code)): meaning for code, meaning in _STATUS.items()},
        **common,
    }
    codes = np.asarray(maps.status).astype(np.uint8)
    contents |= _image(f"{base}Status_dseg", codes, maps.affine, status)
    for name, volume in maps.probability.items():
        p = maps.model[name]
        described = {"Description": f"Probability that there is any {p.label}", **common}
        label = f"{p.symbol[0].upper()}{p.symbol[1:]}"
        contents |= _image(f"{base}{label}_probseg", _float32(volume), maps.affine, described)
    for ending, content in (extra_files or {}).items():
        contents[Path(f"{output_dir / maps.stem}{ending}")] = content
    seal = maps_sidecar(output_dir, maps.stem, maps.method, maps.model)
    del contents[seal]
    outputs = {path.name: sha256(content) for path, content in contents.items()}
    if not holds_derivatives(output_dir):
        source = (provenance or {}).get("InputDataset")
        contents |= _derivatives(output_dir, "asl_pinn perfusion maps", source)
    first = _described(maps.model.parameters[0], _OF_KIND[""])
    contents[seal] = json_bytes({**first, **common, "Outputs": outputs})
    earlier = _earlier_files(base)
    write_files(contents)
    for path in earlier - set(contents):
        with contextlib.suppress(OSError):
            path.unlink()
    return list(contents)


def _what_maps_know(maps: Maps) -> dict[str, Any]:
    known: dict[str, Any] = {
        "Method": maps.method,
        "Model": maps.model.name,
        "ModelDescription": maps.model.description,
    }
    if maps.choice is not None:
        known |= {"ModelChoice": maps.choice.stated()}
    return known if maps.noise_sd is None else {**known, "NoiseSD": float(maps.noise_sd)}


def _earlier_files(base: str) -> set[Path]:
    """Files of earlier maps of a run and method, if they are as `write_maps` left them."""
    found = set()
    beginning = glob.escape(Path(base).name)
    patterns = [f"{beginning}{tissue}_*.json" for tissue in ("", *TISSUE_LABELS)]
    for sidecar in (path for each in patterns for path in Path(base).parent.glob(each)):
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
            outputs = read_json(sidecar)["Outputs"].items()
            found.add(sidecar)
            for name, checksum in outputs:
                path = sidecar.with_name(name)
                if path.is_file() and sha256(path) == checksum:
                    found.add(path)
    return found


def holds_derivatives(folder: Path) -> bool:
    """Whether a folder is a derivatives dataset already.

    Parameters
    ----------
    folder : Path
        Where maps are to be written.

    Returns
    -------
    bool
        False where there is no dataset_description.json.

    Raises
    ------
    InputError
        If it is another kind of dataset.
    """
    path = folder / "dataset_description.json"
    if not path.exists():
        return False
    kind = read_json(path).get("DatasetType", "raw")
    if kind != "derivative":
        raise InputError(
            f"{path}: describes a {kind} dataset; choose another output folder for the maps"
        )
    return True


def maps_sidecar(output_dir: Path, stem: str, method: str, model: KineticModel) -> Path:
    """Path of the sidecar that `write_maps` writes last, that of the first parameter's map.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset.
    stem : str
        Of the data and maps, 'sub-01/perf/sub-01'.
    method : str
        Name of the estimator.
    model : KineticModel
        What was fitted.

    Returns
    -------
    Path
    """
    base = f"{Path(output_dir) / stem}_desc-{desc_label(method)}"
    return Path(f"{map_base(base, model.parameters[0])}.json")


def read_finished(
    output_dir: Path, stem: str, method: str, model: KineticModel
) -> dict[str, Any] | None:
    """Sidecar of the first parameter's map, of maps whose files are all as `write_maps` left them.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset.
    stem : str
        Of the data and maps, 'sub-01/perf/sub-01'.
    method : str
        Name of the estimator.
    model : KineticModel
        What is fitted.

    Returns
    -------
    dict or None
        None where a file is missing, or is not the one that was written with the others:
        after a kill between two files, or a change by somebody else.
    """
    seal = maps_sidecar(output_dir, stem, method, model)
    try:
        record = read_json(seal)
        outputs = record["Outputs"].items()
        whole = all(sha256(seal.with_name(name)) == checksum for name, checksum in outputs)
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return record if whole else None


def write_simulation(
    output_dir: Path,
    phantom: Phantom,
    data: AslData,
    *,
    seed: int,
    model: KineticModel | None = None,
    images: FloatArray | None = None,
    encoding: Mapping[str, Any] | None = None,
    description: Mapping[str, Any] | None = None,
) -> None:
    """Write a simulated acquisition as a BIDS dataset, the truth beside it as derivatives.

    The same input gives the same bytes. A folder that holds anything but an earlier
    simulation is refused; an earlier one is replaced file by file.

    Parameters
    ----------
    output_dir : Path
        Made where needed.
    phantom : Phantom
        The truth.
    data : AslData
        The simulated differences, M0, T1 and timing.
    seed : int
        Of the noise; written into the sidecar.
    model : KineticModel, optional
        Whose parameters the truth is of; Buxton's unless given.
    images : ndarray, shape (X, Y, Z, C * N), optional
        Encoded images of C cycles [a.u.], written instead of the differences.
    encoding : mapping, optional
        The sidecar keys that say how `images` were encoded: TimeEncodedMatrixSize,
        TimeEncodedMatrixType, TimeEncodedMatrix, TimeEncodedSignFlip;
        TimeEncodedSubBolusDurations are those of `data` unless stated.
    description : mapping, optional
        Further facts about the simulation, written under 'Simulation' in the sidecar.

    Raises
    ------
    InputError
        If `output_dir` holds something else or cannot be written, if `encoding` cannot be
        decoded or does not fit `images`, if pulsed labelling has several label durations or is
        encoded, or if the phantom does not know a parameter.
    """
    output_dir = Path(output_dir)
    _check_simulation_dir(output_dir)
    sidecar = _asl_sidecar(data, {"Seed": seed, **(description or {})})
    if images is None:
        volumes, types = data.delta_m, ["deltam"] * data.delta_m.shape[-1]
        sidecar |= _timing(data.protocol)
    else:
        volumes = images
        encoded, types = _encoded_sidecar(data, encoding or {}, images.shape[-1])
        sidecar |= encoded
    sidecar["TotalAcquiredPairs"] = max(1, types.count("control"))
    contents = {
        output_dir / "dataset_description.json": json_bytes(_dataset(SIMULATION_NAME, "raw")),
        output_dir / "README": _README.encode(),
        output_dir / "participants.tsv": b"participant_id\nsub-01\n",
        output_dir / "participants.json": json_bytes(
            {"participant_id": {"Description": "The simulated participant"}}
        ),
    }
    perf = output_dir / "sub-01" / "perf"
    contents |= _image(perf / "sub-01_asl", _float32(volumes), data.affine, sidecar)
    context = "\n".join(["volume_type", *types, ""])
    contents[perf / "sub-01_aslcontext.tsv"] = context.encode()
    m0_sidecar = {
        "IntendedFor": "bids::sub-01/perf/sub-01_asl.nii.gz",
        "EchoTime": _ECHO_TIME,
        "RepetitionTimePreparation": 2.0 * _REPETITION_TIME,
        "MagneticFieldStrength": 3.0,
        "MRAcquisitionType": sidecar["MRAcquisitionType"],
        "AcquisitionVoxelSize": sidecar["AcquisitionVoxelSize"],
    }
    contents |= _image(perf / "sub-01_m0scan", _float32(data.m0), data.affine, m0_sidecar)
    t1_sidecar = {"Units": "s", "Description": "Longitudinal relaxation time of tissue"}
    anat = output_dir / "sub-01" / "anat"
    contents |= _image(anat / "sub-01_T1map", _float32(data.t1_tissue), data.affine, t1_sidecar)
    write_files(contents | _truth(output_dir / "derivatives" / "truth", phantom, model))


def _truth(folder: Path, phantom: Phantom, model: KineticModel | None) -> dict[Path, bytes]:
    base = folder / "sub-01" / "perf" / "sub-01"
    model = model or get("buxton")
    truth = phantom.truth(model)
    brain = {"Type": "Brain", "Description": "Voxels whose true values are known"}
    grey = {"Type": "ROI", "Description": "Voxels that are mostly grey matter"}
    volumes = [
        (map_base("desc-truth", p), _float32(truth[p.name]), _described(p, "true "))
        for p in model.parameters
    ]
    volumes += [
        ("desc-brain_mask", np.asarray(phantom.mask, bool), brain),
        ("desc-greymatter_mask", np.asarray(phantom.grey_matter, bool), grey),
    ]
    if model.needs_fractions:
        volumes += [
            (f"label-{name.upper()}_probseg", _float32(volume), {"Description": "True fraction"})
            for name, volume in phantom.fractions.items()
        ]
    contents = _derivatives(folder, f"{SIMULATION_NAME}: truth")
    for name, volume, sidecar in volumes:
        contents |= _image(f"{base}_{name}", volume, phantom.affine, sidecar)
    return contents


def _asl_sidecar(data: AslData, simulation: Mapping[str, Any]) -> dict[str, Any]:
    protocol, slice_times = data.protocol, np.asarray(data.readout_delay)[0, 0]
    known = protocol.vascular_crushing is not None
    crushing = {"VascularCrushing": protocol.vascular_crushing} if known else {}
    readout = (
        {"MRAcquisitionType": "2D", "SliceTiming": slice_times}
        if slice_times.any()
        else {"MRAcquisitionType": "3D"}
    )
    return {
        "MagneticFieldStrength": 3.0,
        **readout,
        "EchoTime": _ECHO_TIME,
        "RepetitionTimePreparation": _REPETITION_TIME,
        "AcquisitionVoxelSize": voxel_sizes(data.affine),
        "ArterialSpinLabelingType": "PASL" if protocol.labeling == "pulsed" else "PCASL",
        **crushing,
        "BackgroundSuppression": True,
        "LabelingEfficiency": protocol.labeling_efficiency,
        "M0Type": "Separate",
        "Simulation": dict(simulation),
    }


def _timing(protocol: Protocol) -> dict[str, Any]:
    if protocol.labeling == "continuous":
        return {"LabelingDuration": protocol.label_duration, "PostLabelingDelay": protocol.pld}
    if np.ptp(protocol.label_duration):
        raise InputError(
            "pulsed labelling has one label duration in BIDS, that of BolusCutOffDelayTime, not "
            f"{', '.join(f'{duration:g}' for duration in protocol.label_duration)} s"
        )
    return {
        "BolusCutOffFlag": True,
        "BolusCutOffDelayTime": protocol.label_duration[0],
        "BolusCutOffTechnique": "QUIPSSII",
        "PostLabelingDelay": protocol.t,  # BIDS counts from the pulse
    }


def _encoded_sidecar(
    data: AslData, encoding: Mapping[str, Any], n_volumes: int
) -> tuple[dict[str, Any], list[str]]:
    if data.protocol.labeling == "pulsed":
        raise InputError("encoding: a pulsed bolus cannot be time-encoded; leave `images` out")
    durations = data.protocol.label_duration
    keys = {"TimeEncodedSubBolusDurations": durations.tolist(), **encoding}
    sidecar = Sidecar(Path("encoding"), keys)
    encoded = encoding_of(sidecar, [])
    sub_bolus_durations(sidecar, encoded.matrix.shape[1])
    n_cycles, rest = divmod(n_volumes, len(encoded.matrix))
    if rest or not n_cycles:
        raise InputError(
            f"encoding: {n_volumes} images are no whole number of cycles of {len(encoded.matrix)}"
        )
    train = {"LabelingDuration": durations.sum(), "PostLabelingDelay": data.protocol.pld.min()}
    return {**train, **keys}, encoded.volume_types * n_cycles


def _image(
    base: Path | str, volume: NDArray[Any], affine: FloatArray, sidecar: Mapping[str, Any]
) -> dict[Path, bytes]:
    repetition_time = sidecar.get("RepetitionTimePreparation") if volume.ndim == 4 else None
    return {
        Path(f"{base}.nii.gz"): nifti_bytes(volume, affine, repetition_time),
        Path(f"{base}.json"): json_bytes(sidecar),
    }


def _described(parameter: Parameter, before: str) -> dict[str, str]:
    description = f"{before}{parameter.label}"
    return {
        "Units": parameter.unit,
        "Description": f"{description[0].upper()}{description[1:]}",
    }


def _float32(volume: FloatArray) -> NDArray[np.float32]:
    return np.asarray(volume, dtype=np.float32)


def _derivatives(folder: Path, name: str, source: Path | str | None = None) -> dict[Path, bytes]:
    description = _dataset(name, "derivative")
    if source is not None:
        link = _link(folder, Path(source))
        description |= {"SourceDatasets": [{"URL": link}], "DatasetLinks": {SOURCE_DATASET: link}}
    return {
        folder / ".bidsignore": _BIDSIGNORE.encode(),
        folder / "dataset_description.json": json_bytes(description),
    }


def _link(folder: Path, source: Path) -> str:
    """Where a dataset is from the folder of another: relative inside it, as both move together."""
    here, there = folder.absolute(), source.absolute()
    if here.is_relative_to(there):
        return "/".join([".."] * len(here.relative_to(there).parts)) or "."
    return there.as_uri()


def _dataset(name: str, kind: str) -> dict[str, Any]:
    return {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": kind,
        "GeneratedBy": [{"Name": "asl_pinn", "Version": asl_pinn.__version__}],
    }


def _check_simulation_dir(folder: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    path = folder / "dataset_description.json"
    if not path.is_file() or read_json(path).get("Name") != SIMULATION_NAME:
        raise InputError(f"{folder}: holds something else than a simulation; choose a new folder")


# BIDS has no rules yet for the names of perfusion derivatives
_BIDSIGNORE = """\
*_desc-*
*.html
*.png
logs/
"""

_README = """\
A simulated acquisition of arterial spin labelling, written by asl_pinn.

The images, M0 and T1 are in sub-01. The true maps, such as that of cerebral blood flow, and
the masks of brain and grey matter are in derivatives/truth. The settings of the simulation
are under 'Simulation' in sub-01/perf/sub-01_asl.json.
"""
