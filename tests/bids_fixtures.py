"""Tiny BIDS datasets, made in a test's own folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from asl_pinn.acquisition.protocol import label_durations, time_encoded_protocol
from asl_pinn.data import AslData, Phantom

SHAPE = (6, 6, 3)
AFFINE = np.array([[-3.0, 0, 0, 9], [0, 3, 0, -12], [0, 0, 4, 5], [0, 0, 0, 1]])
MASK = np.zeros(SHAPE, bool)
MASK[1:5, 1:5] = True
M0 = np.where(MASK, 1000.0, 10.0).astype(np.float32)
VALIDATOR = Path(sys.executable).parent / "bids-validator-deno"
PROTOCOL = time_encoded_protocol(label_durations("t1_adjusted", 3, 2.0), 0.25)
DELTA_M = np.random.default_rng(0).normal(10.0, 3.0, (*SHAPE, 3)).astype(np.float32)

METADATA = {
    "ArterialSpinLabelingType": "PCASL",
    "MRAcquisitionType": "3D",
    "LabelingDuration": PROTOCOL.label_duration.tolist(),
    "PostLabelingDelay": PROTOCOL.pld.tolist(),
    "LabelingEfficiency": 0.8,
    "BackgroundSuppression": False,
    "M0Type": "Separate",
    "RepetitionTimePreparation": 6.0,
    "EchoTime": 0.012,
    "FlipAngle": 90,
    "MagneticFieldStrength": 3,
}

PULSED = {
    "ArterialSpinLabelingType": "PASL",
    "LabelingDuration": None,
    "BolusCutOffFlag": True,
    "BolusCutOffTechnique": "QUIPSSII",
    "BolusCutOffDelayTime": 0.7,
    "PostLabelingDelay": [0.5, 1.2, 1.9],
}


def accepted(text: str, *values: Any) -> Any:
    """Parameters of a test that are a row of the table of what is accepted."""
    return pytest.param(*values, marks=pytest.mark.accepted(text), id=text)


def refused(text: str, *values: Any) -> Any:
    """Parameters of a test that are a row of the table of what is refused."""
    return pytest.param(*values, marks=pytest.mark.refused(text), id=text)


def save_nifti(path: Path, volume: NDArray, affine: NDArray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine), path)


def save_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_dataset(
    root: Path,
    *,
    volumes: NDArray = DELTA_M,
    types: tuple[str, ...] = ("deltam",) * 3,
    metadata: dict[str, Any] | None = None,
    stem: str = "sub-01",
    folder: str = "sub-01/perf",
    m0: NDArray | None = M0,
    mask: NDArray | None = MASK,
) -> Path:
    """Add one ASL run to a dataset; a key whose value is None is left out of the sidecar."""
    keys = {k: v for k, v in {**METADATA, **(metadata or {})}.items() if v is not None}
    perf = root / folder
    save_json(root / "dataset_description.json", {"Name": "tiny", "BIDSVersion": "1.10.0"})
    save_nifti(perf / f"{stem}_asl.nii.gz", volumes)
    save_json(perf / f"{stem}_asl.json", keys)
    (perf / f"{stem}_aslcontext.tsv").write_text("\n".join(["volume_type", *types, ""]))
    if m0 is not None:
        save_nifti(perf / f"{stem}_m0scan.nii.gz", m0)
        save_json(perf / f"{stem}_m0scan.json", {"RepetitionTimePreparation": 10.0})
    if mask is not None:
        name = f"{stem}_desc-brain_mask.nii.gz"
        save_nifti(root / "derivatives" / "masks" / folder / name, mask.astype(np.uint8))
    return root


def validation_errors(root: Path) -> list[dict[str, Any]]:
    """What the official validator finds wrong with a dataset."""
    result = subprocess.run(
        [VALIDATOR, root, "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(result.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue["severity"] == "error"]


def phantom() -> Phantom:
    return Phantom(
        {"cbf": np.where(MASK, 60.0, 0.0), "att": np.where(MASK, 1.2, 0.0)},
        m0=M0,
        t1_tissue=np.full(SHAPE, 1.3),
        mask=MASK,
        grey_matter=MASK & (DELTA_M[..., 0] > 10.0),
        affine=AFFINE,
    )


def asl_data() -> AslData:
    return AslData(
        delta_m=DELTA_M,
        m0=M0,
        mask=MASK,
        t1_tissue=np.full(SHAPE, 1.3, np.float32),
        readout_delay=np.zeros(SHAPE, np.float32),
        n_averages=np.ones(3, np.float32),
        protocol=PROTOCOL,
        affine=AFFINE,
    )
