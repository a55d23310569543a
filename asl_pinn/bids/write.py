"""Perfusion maps and simulated acquisitions as BIDS datasets."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

import asl_pinn
from asl_pinn.arrays import FloatArray
from asl_pinn.bids.dataset import AslRun
from asl_pinn.bids.series import time_encoding
from asl_pinn.bids.sidecar import Sidecar, read_json
from asl_pinn.data import AslData, PerfusionMaps, Phantom, Status
from asl_pinn.errors import InputError
from asl_pinn.files import json_bytes, nifti_bytes, sha256, write_files

BIDS_VERSION = "1.10.0"
SIMULATION_NAME = "asl_pinn simulation"

_CBF = {"Units": "mL/100g/min", "Description": "Cerebral blood flow"}
_ATT = {"Units": "s", "Description": "Arterial transit time"}
_STATUS = {
    Status.OUTSIDE: "Outside the mask",
    Status.FITTED: "Fitted",
    Status.ON_BOUND: "Fitted, with a parameter on a bound of its range",
    Status.NOT_CONVERGED: "Fit did not converge",
    Status.SKIPPED: "Inside the mask, but the data cannot be quantified",
}
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
    """
    first, *others = re.findall(r"[A-Za-z0-9]+", method)
    return first + "".join(word[0].upper() + word[1:] for word in others)


def write_maps(
    output_dir: Path,
    run: AslRun,
    maps: PerfusionMaps,
    affine: FloatArray,
    method: str,
    provenance: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write the maps of one run into a BIDS derivative dataset.

    Written are `<run>_desc-<method>_cbf` and `_att`, their standard deviations
    `_desc-<method>Sd_cbf` and `_att` where there are any, `_desc-<method>Status_dseg`, and
    a JSON file beside each; and a dataset_description.json, with a .bidsignore for the names
    that BIDS does not know yet, if there is none. The sidecar of the CBF map is written last
    and holds the checksums of the run's other files, for `read_finished`.

    Parameters
    ----------
    output_dir : Path
        Made where needed; one that holds another raw dataset is refused.
    run : AslRun
        What was quantified; gives folder and names.
    maps : PerfusionMaps
        Volumes of shape (X, Y, Z).
    affine : ndarray, shape (4, 4)
        Voxel indices to scanner coordinates [mm].
    method : str
        Name of the estimator.
    provenance : mapping
        Further keys of every sidecar: options, version, seed, sources.
    extra_files : mapping of str to bytes, optional
        Further files by what follows the run's name, {'_desc-nlls_cbf.png': ...}.

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
    base = output_dir / run.folder / run.output_stem
    label = desc_label(method)
    common = {"Method": method, **provenance}
    contents: dict[Path, bytes] = {}
    volumes = [
        ("cbf", "", maps.cbf, _CBF),
        ("att", "", maps.att, _ATT),
        ("cbf", "Sd", maps.cbf_sd, _standard_deviation(_CBF)),
        ("att", "Sd", maps.att_sd, _standard_deviation(_ATT)),
    ]
    for suffix, kind, volume, description in volumes:
        if volume is not None:
            values = np.asarray(volume, dtype=np.float32)
            name = f"{base}_desc-{label}{kind}_{suffix}"
            contents |= _image(name, values, affine, {**description, **common})
    status = {
        "Description": "What became of each voxel",
        "LabelMap": {str(int(code)): meaning for code, meaning in _STATUS.items()},
        **common,
    }
    codes = np.asarray(maps.status).astype(np.uint8)
    contents |= _image(f"{base}_desc-{label}Status_dseg", codes, affine, status)
    for suffix, content in (extra_files or {}).items():
        contents[Path(f"{base}{suffix}")] = content
    seal = maps_sidecar(output_dir, run, method)
    del contents[seal]
    outputs = {path.name: sha256(content) for path, content in contents.items()}
    if not holds_derivatives(output_dir):
        contents |= _derivatives(output_dir, "asl_pinn perfusion maps")
    contents[seal] = json_bytes({**_CBF, **common, "Outputs": outputs})
    write_files(contents)
    return list(contents)


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


def maps_sidecar(output_dir: Path, run: AslRun, method: str) -> Path:
    """Path of the sidecar that `write_maps` writes last, that of the CBF map."""
    return output_dir / run.folder / f"{run.output_stem}_desc-{desc_label(method)}_cbf.json"


def read_finished(output_dir: Path, run: AslRun, method: str) -> dict[str, Any] | None:
    """Sidecar of the CBF map of a run whose files are all as `write_maps` left them.

    Parameters
    ----------
    output_dir : Path
        Derivatives dataset.
    run : AslRun
        What was quantified.
    method : str
        Name of the estimator.

    Returns
    -------
    dict or None
        None where a file is missing, or is not the one that was written with the others:
        after a kill between two files, or a change by somebody else.
    """
    seal = maps_sidecar(output_dir, run, method)
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
    images : ndarray, shape (X, Y, Z, C * N), optional
        Encoded images of C cycles [a.u.], written instead of the differences.
    encoding : mapping, optional
        The sidecar keys that say how `images` were encoded: TimeEncodedMatrixSize,
        TimeEncodedMatrixType, TimeEncodedMatrix, TimeEncodedSignFlip;
        TimeEncodedSubBolusDurations are those of `data` unless stated.
    description : mapping, optional
        Further settings of the simulation, written under 'Simulation' in the sidecar.

    Raises
    ------
    InputError
        If `output_dir` holds something else or cannot be written, or if `encoding` cannot be
        decoded or does not fit `images`.
    """
    output_dir = Path(output_dir)
    _check_simulation_dir(output_dir)
    sidecar = _asl_sidecar(data, {"Seed": seed, **(description or {})})
    if images is None:
        volumes, types = data.delta_m, ["deltam"] * data.delta_m.shape[-1]
        sidecar["LabelingDuration"] = data.protocol.label_duration
        sidecar["PostLabelingDelay"] = data.protocol.pld
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
    write_files(contents | _truth(output_dir / "derivatives" / "truth", phantom))


def _truth(folder: Path, phantom: Phantom) -> dict[Path, bytes]:
    base = folder / "sub-01" / "perf" / "sub-01"
    brain = {"Type": "Brain", "Description": "Voxels with a true CBF and ATT"}
    grey = {"Type": "ROI", "Description": "Voxels that are mostly grey matter"}
    true_cbf = {**_CBF, "Description": "True cerebral blood flow"}
    true_att = {**_ATT, "Description": "True arterial transit time"}
    volumes = [
        ("desc-truth_cbf", _float32(phantom.cbf), true_cbf),
        ("desc-truth_att", _float32(phantom.att), true_att),
        ("desc-brain_mask", np.asarray(phantom.mask, bool), brain),
        ("desc-greymatter_mask", np.asarray(phantom.grey_matter, bool), grey),
    ]
    contents = _derivatives(folder, f"{SIMULATION_NAME}: truth")
    for name, volume, sidecar in volumes:
        contents |= _image(f"{base}_{name}", volume, phantom.affine, sidecar)
    return contents


def _asl_sidecar(data: AslData, simulation: Mapping[str, Any]) -> dict[str, Any]:
    slice_times = np.asarray(data.readout_delay)[0, 0]
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
        "ArterialSpinLabelingType": "PCASL",
        "BackgroundSuppression": True,
        "LabelingEfficiency": data.protocol.labeling_efficiency,
        "M0Type": "Separate",
        "Simulation": dict(simulation),
    }


def _encoded_sidecar(
    data: AslData, encoding: Mapping[str, Any], n_volumes: int
) -> tuple[dict[str, Any], list[str]]:
    durations = data.protocol.label_duration
    keys = {"TimeEncodedSubBolusDurations": durations.tolist(), **encoding}
    encoded = time_encoding(Sidecar(Path("encoding"), keys))
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


def _standard_deviation(sidecar: Mapping[str, str]) -> dict[str, str]:
    quantity = sidecar["Description"]
    return {**sidecar, "Description": f"Standard deviation of {quantity[0].lower()}{quantity[1:]}"}


def _float32(volume: FloatArray) -> NDArray[np.float32]:
    return np.asarray(volume, dtype=np.float32)


def _derivatives(folder: Path, name: str) -> dict[Path, bytes]:
    return {
        folder / ".bidsignore": _BIDSIGNORE.encode(),
        folder / "dataset_description.json": json_bytes(_dataset(name, "derivative")),
    }


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
*_att.*
*_cbf.*
*_dseg.*
*_mask.*
*.html
*.png
logs/
"""

_README = """\
A simulated time-encoded pCASL acquisition, written by asl_pinn.

The images, M0 and T1 are in sub-01. The true cerebral blood flow, the true arterial
transit time and the masks of brain and grey matter are in derivatives/truth. The settings
of the simulation are under 'Simulation' in sub-01/perf/sub-01_asl.json.
"""
