"""Every fault in a dataset ends in one line that names the file."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_fixtures import (
    AFFINE,
    DELTA_M,
    M0,
    MASK,
    METADATA,
    PROTOCOL,
    SHAPE,
    save_json,
    save_nifti,
    write_dataset,
)

from asl_pinn.bids import find_runs, read_run
from asl_pinn.errors import InputError

ASL = "sub-01/perf/sub-01_asl.nii.gz"
JSON = "sub-01/perf/sub-01_asl.json"
CONTEXT = "sub-01/perf/sub-01_aslcontext.tsv"
M0SCAN = "sub-01/perf/sub-01_m0scan.nii.gz"
MASKFILE = "derivatives/masks/sub-01/perf/sub-01_desc-brain_mask.nii.gz"
T1MAP = "sub-01/anat/sub-01_T1map.nii.gz"
ENCODED = {
    "LabelingDuration": 2.0,
    "PostLabelingDelay": 0.25,
    "TimeEncodedMatrixSize": 4,
    "TimeEncodedMatrixType": "hadamard",
    "TimeEncodedSubBolusDurations": PROTOCOL.label_duration.tolist(),
}


def refusal(root: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_run(find_runs(root)[0], **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"LabelingDuration": None}, "'LabelingDuration' is missing"),
        ({"PostLabelingDelay": None}, "'PostLabelingDelay' is missing"),
        ({"M0Type": None}, "'M0Type' is missing"),
        ({"ArterialSpinLabelingType": None}, "'ArterialSpinLabelingType' is missing"),
        ({"ArterialSpinLabelingType": "PASL"}, "'PASL'"),
        ({"PostLabelingDelay": [0.5, 1.0]}, "has 2 values for a series of 3 volumes"),
        ({"LabelingDuration": [1.0] * 4}, "has 4 values for a series of 3 volumes"),
        ({"LabelingDuration": [1.0]}, "has 1 values for a series of 3 volumes"),
        ({"LabelingDuration": [0.5, 0.0, 0.5]}, "must be positive, it holds 0"),
        ({"LabelingDuration": -1.8}, "must be positive, it holds -1.8"),
        ({"PostLabelingDelay": [0.5, -0.1, 1.0]}, "zero or more, it holds -0.1"),
        ({"PostLabelingDelay": [0.5, float("nan"), 1.0]}, "it holds nan"),
        ({"LabelingDuration": float("inf")}, "it holds inf"),
        ({"PostLabelingDelay": 1800}, "not milliseconds"),
        ({"LabelingDuration": 1800}, "not milliseconds"),
        ({"PostLabelingDelay": "1.8"}, "must be a number"),
        ({"PostLabelingDelay": [True, True, True]}, "must be a number"),
        ({"PostLabelingDelay": []}, "must be a number"),
        ({"LabelingEfficiency": 85}, "at most 1"),
        ({"LabelingEfficiency": "high"}, "must be a number"),
        (
            {
                "LabelingEfficiency": None,
                "BackgroundSuppression": True,
                "BackgroundSuppressionNumberPulses": -1,
            },
            "must be a count",
        ),
        ({"LabelingEfficiency": None, "BackgroundSuppression": "no"}, "true or false"),
        ({"M0Type": "Nearby"}, "M0Type is 'Nearby'"),
        ({"M0Type": "Estimate"}, "'M0Estimate' is missing"),
        ({"M0Type": "Estimate", "M0Estimate": 0}, "must be positive, it is 0"),
        ({"MRAcquisitionType": "2D"}, "needs SliceTiming"),
        ({"MRAcquisitionType": "2D", "SliceTiming": [0.0, 0.1]}, "2 values for 3 slices"),
        ({"MRAcquisitionType": "2D", "SliceTiming": [0.0, -0.1, 0.1]}, "zero or more"),
        (
            {"MRAcquisitionType": "2D", "SliceTiming": [0.0], "SliceEncodingDirection": "z"},
            "SliceEncodingDirection is 'z'",
        ),
    ],
)
def test_sidecar_values(tmp_path, changes, fault):
    message = refusal(write_dataset(tmp_path, metadata=changes))
    assert JSON in message
    assert fault in message


@pytest.mark.parametrize(
    ("changes", "n_volumes", "fault"),
    [
        ({}, 6, "6 encoded volumes are no whole number of cycles of 4"),
        ({"TimeEncodedMatrixType": None}, 4, "'TimeEncodedMatrixType' is missing"),
        ({"TimeEncodedMatrixType": "random"}, 4, "unknown matrix order 'random'"),
        ({"TimeEncodedMatrixType": "custom"}, 4, "'TimeEncodedMatrix' is missing"),
        ({"TimeEncodedMatrixSize": 6}, 4, "no Hadamard matrix of size 6"),
        ({"TimeEncodedMatrixSize": 4.5}, 4, "TimeEncodedMatrixSize is 4.5"),
        ({"TimeEncodedMatrix": [[1, 1], [1, -1]]}, 4, "N x (N-1)"),
        ({"TimeEncodedMatrix": "rows"}, 4, "rectangular table"),
        ({"TimeEncodedSubBolusDurations": None}, 4, "'TimeEncodedSubBolusDurations' is missing"),
        ({"TimeEncodedSubBolusDurations": [1.0, 1.0]}, 4, "2 values for the 3 sub-boluses"),
        ({"TimeEncodedSubBolusDurations": [1.0, 1.0, 0.0]}, 4, "must be positive"),
        ({"LabelingDuration": 1.8}, 4, "add up to 2 s, but LabelingDuration is 1.8 s"),
        ({"PostLabelingDelay": [0.1, 0.1, 0.1, 0.2]}, 4, "PostLabelingDelay varies"),
    ],
)
def test_encoding_keys(tmp_path, changes, n_volumes, fault):
    root = write_dataset(
        tmp_path,
        volumes=np.ones((*SHAPE, n_volumes), np.float32),
        types=("control",) + ("label",) * (n_volumes - 1),
        metadata={**ENCODED, **changes},
    )
    message = refusal(root)
    assert JSON in message
    assert fault in message


@pytest.mark.parametrize(
    ("context", "fault"),
    [
        ("", "no volumes listed"),
        ("volume_type\n", "no volumes listed"),
        ("type\ndeltam\ndeltam\ndeltam\n", "no volumes listed"),
        ("volume_type\ndeltam\ndeltam\n", "lists 2 volumes, but sub-01_asl.nii.gz has 3"),
        ("volume_type\ncbf\ncbf\ncbf\n", "'cbf' cannot be quantified"),
        ("volume_type\ndeltam\nn/a\ndeltam\n", "'n/a' cannot be quantified"),
        ("volume_type\nm0scan\nm0scan\nm0scan\n", "nothing to quantify"),
        ("volume_type\ndeltam\ncontrol\nlabel\n", "mixes deltam"),
    ],
)
def test_volume_types(tmp_path, context, fault):
    root = write_dataset(tmp_path)
    (root / CONTEXT).write_text(context)
    message = refusal(root)
    assert CONTEXT in message
    assert fault in message


@pytest.mark.parametrize(
    ("types", "plds", "fault"),
    [
        (("control", "label", "control"), 1.0, "2 control and 1 label volumes"),
        (("control", "control", "control"), 1.0, "3 control and 0 label volumes"),
        (("control", "label"), [0.5, 1.0], "1 control and 0 label volumes"),
    ],
)
def test_controls_and_labels_must_pair_up(tmp_path, types, plds, fault):
    volumes = np.ones((*SHAPE, len(types)), np.float32)
    metadata = {"LabelingDuration": 1.8, "PostLabelingDelay": plds}
    message = refusal(write_dataset(tmp_path, volumes=volumes, types=types, metadata=metadata))
    assert JSON in message
    assert fault in message


@pytest.mark.parametrize(
    ("missing", "fault"),
    [(CONTEXT, "no such file"), (M0SCAN, "no such file"), (JSON, "is missing")],
)
def test_missing_file(tmp_path, missing, fault):
    root = write_dataset(tmp_path)
    (root / missing).unlink()
    message = refusal(root)
    assert fault in message
    assert (ASL if missing == JSON else missing) in message


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-40]))


def break_checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(bytes(content))


def fill_with_text(path: Path) -> None:
    path.write_text("not an image")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def claim_absurd_shape(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[40:56] = np.array([4, 30000, 30000, 30000, 3, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def claim_more_than_the_file_holds(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[40:56] = np.array([4, 1000, 1000, 200, 3, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def claim_negative_shape(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[40:56] = np.array([3, -6, 6, 3, 1, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def make_complex(path: Path) -> None:
    save_nifti(path, np.ones(SHAPE, np.complex64))


def make_rgb(path: Path) -> None:
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save_nifti(path, colour)


def make_five_dimensional(path: Path) -> None:
    save_nifti(path, np.ones((*SHAPE, 1, 3), np.float32))


def make_singular(path: Path) -> None:
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.header["sform_code"] = 1
    image.header["srow_x"] = image.header["srow_y"] = [1, 0, 0, 0]
    nib.save(image, path)


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        truncate_inside,
        break_checksum,
        fill_with_text,
        empty,
        claim_absurd_shape,
        claim_more_than_the_file_holds,
        claim_negative_shape,
        make_complex,
        make_rgb,
        make_five_dimensional,
        make_singular,
    ],
)
@pytest.mark.parametrize("target", [ASL, M0SCAN, MASKFILE])
def test_unreadable_image(tmp_path, spoil, target):
    root = write_dataset(tmp_path)
    spoil(root / target)
    assert target in refusal(root)


def test_truncated_image_without_compression(tmp_path):
    root = write_dataset(tmp_path)
    path = tmp_path / "own.nii"
    save_nifti(path, MASK.astype(np.uint8))
    truncate(path)
    assert f"{path}: " in refusal(root, mask=path)


@pytest.mark.parametrize("target", [M0SCAN, MASKFILE, T1MAP])
@pytest.mark.parametrize(
    ("shape", "affine", "fault"),
    [
        ((6, 6, 2), AFFINE, "shape (6, 6, 2) is not that of sub-01_asl.nii.gz, (6, 6, 3)"),
        (SHAPE, AFFINE + np.eye(4, k=3) * 0.01, "affine differs"),
        (SHAPE, AFFINE @ np.diag([-1.0, 1, 1, 1]), "affine differs"),
    ],
)
def test_other_grid(tmp_path, target, shape, affine, fault):
    root = write_dataset(tmp_path)
    save_nifti(root / target, np.ones(shape, np.float32), affine)
    message = refusal(root, t1_tissue="map" if target == T1MAP else 1.33)
    assert target in message
    assert fault in message


@pytest.mark.parametrize(
    ("target", "values", "fault"),
    [
        (MASKFILE, np.zeros(SHAPE, np.uint8), "mask is empty"),
        (MASKFILE, np.linspace(0, 1, MASK.size, dtype="f4").reshape(SHAPE), "threshold it"),
        (MASKFILE, np.full(SHAPE, np.nan, np.float32), "threshold it"),
        (M0SCAN, np.zeros(SHAPE, np.float32), "M0 is nowhere positive"),
        (M0SCAN, -M0, "M0 is nowhere positive"),
        (M0SCAN, np.full(SHAPE, np.nan, np.float32), "M0 is nowhere positive"),
        (ASL, np.full_like(DELTA_M, np.nan), "nothing is left"),
        (ASL, np.full_like(DELTA_M, np.inf), "nothing is left"),
        (T1MAP, np.full(SHAPE, 1300.0, np.float32), "BIDS wants seconds"),
        (T1MAP, np.zeros(SHAPE, np.float32), "T1 is nowhere positive"),
    ],
)
def test_image_values(tmp_path, target, values, fault):
    root = write_dataset(tmp_path)
    save_nifti(root / target, values)
    message = refusal(root, t1_tissue="map" if target == T1MAP else 1.33)
    assert target in message
    assert fault in message


def test_m0_negative_in_the_whole_mask(tmp_path):
    message = refusal(write_dataset(tmp_path, m0=np.where(MASK, -1.0, 1.0).astype(np.float32)))
    assert ASL in message
    assert "nothing is left" in message


def test_m0_included_without_m0_volumes(tmp_path):
    message = refusal(write_dataset(tmp_path, metadata={"M0Type": "Included"}))
    assert CONTEXT in message
    assert "no volume is an m0scan" in message


@pytest.mark.parametrize(
    ("types", "suppressed", "fault"),
    [
        (("deltam",) * 4, False, "no control images"),
        (("control", "label") * 2, True, "background suppression spoils"),
        (("control", "label") * 2, None, "'BackgroundSuppression' is missing"),
    ],
)
def test_m0_absent(tmp_path, types, suppressed, fault):
    metadata = {
        "LabelingDuration": 1.8,
        "PostLabelingDelay": 1.8,
        "M0Type": "Absent",
        "BackgroundSuppression": suppressed,
    }
    volumes = np.ones((*SHAPE, 4), np.float32)
    root = write_dataset(tmp_path, volumes=volumes, types=types, metadata=metadata, m0=None)
    message = refusal(root)
    assert "sub-01_asl." in message
    assert fault in message


def test_several_m0_scans(tmp_path):
    root = write_dataset(tmp_path, m0=None)
    for acquisition in ("a", "b"):
        path = root / "sub-01" / "perf" / f"sub-01_acq-{acquisition}_m0scan.nii.gz"
        save_nifti(path, M0)
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        save_json(sidecar, {"IntendedFor": ["bids::sub-01/perf/sub-01_asl.nii.gz"]})
    assert "sub-01_acq-a_m0scan.nii.gz, sub-01_acq-b_m0scan.nii.gz" in refusal(root)


def test_several_masks(tmp_path):
    root = write_dataset(tmp_path)
    other = MASKFILE.replace("masks", "other")
    save_nifti(root / other, MASK.astype(np.uint8))
    message = refusal(root)
    assert MASKFILE in message
    assert other in message
    assert "--mask" in message


def test_given_files_must_exist(tmp_path):
    root = write_dataset(tmp_path)
    assert "nowhere.nii: no such file" in refusal(root, mask=tmp_path / "nowhere.nii")
    assert "nowhere.nii: no such file" in refusal(root, t1_tissue=tmp_path / "nowhere.nii")
    assert "no *_T1map.nii.gz" in refusal(root, t1_tissue="map")


@pytest.mark.parametrize("value", [0.0, -1.0, 1330.0, float("nan")])
def test_t1_constants(tmp_path, value):
    root = write_dataset(tmp_path)
    assert "--t1_tissue" in refusal(root, t1_tissue=value)
    assert "--t1_blood" in refusal(root, t1_blood=value)


def test_several_t1_maps(tmp_path):
    root = write_dataset(tmp_path)
    for acquisition in ("a", "b"):
        save_nifti(root / f"sub-01/anat/sub-01_acq-{acquisition}_T1map.nii.gz", M0)
    assert "several T1 maps" in refusal(root, t1_tissue="map")


def test_no_mask_and_nothing_to_make_it_from(tmp_path):
    metadata = {"M0Type": "Estimate", "M0Estimate": 10.0}
    message = refusal(write_dataset(tmp_path, metadata=metadata, mask=None))
    assert ASL in message
    assert "--mask" in message


def test_no_brain_in_m0(tmp_path):
    m0 = (np.indices((12, 12, 3)).sum(axis=0) % 2 + 1).astype(np.float32)
    volumes = np.ones((12, 12, 3, 3), np.float32)
    message = refusal(write_dataset(tmp_path, volumes=volumes, m0=m0, mask=None))
    assert "no brain was found in M0" in message


@pytest.mark.parametrize("content", [b"{ not JSON", b"", b"[1, 2]", b"\xff\xfe\x00", b"null"])
@pytest.mark.parametrize("target", [JSON, "asl.json", "dataset_description.json"])
def test_sidecar_that_is_no_json(tmp_path, content, target):
    root = write_dataset(tmp_path)
    (root / target).write_bytes(content)
    with pytest.raises(InputError, match="JSON") as caught:
        find_runs(root)
    assert str(root / target) in str(caught.value)


def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no dataset_description\.json"):
        find_runs(tmp_path)
    save_json(tmp_path / "dataset_description.json", METADATA)
    with pytest.raises(InputError, match="nothing to quantify"):
        find_runs(tmp_path)


def test_unknown_participant(tmp_path):
    write_dataset(tmp_path, stem="sub-02", folder="sub-02/perf")
    root = write_dataset(tmp_path)
    save_nifti(root / "sub-03" / "anat" / "sub-03_T1w.nii.gz", M0)
    with pytest.raises(InputError, match="no participant sub-9; present: sub-01, sub-02, sub-03"):
        find_runs(root, ["01", "9"])
    with pytest.raises(InputError, match="sub-03 has no perf"):
        find_runs(root, ["sub-03"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_image_without_permission(tmp_path):
    root = write_dataset(tmp_path)
    (root / ASL).chmod(0)
    assert ASL in refusal(root)
