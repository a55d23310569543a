"""Every fault in a dataset ends in one line that names the file."""

import gzip
import os
import tracemalloc
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
    PULSED,
    SHAPE,
    refused,
    save_json,
    save_nifti,
    write_dataset,
)

from asl_pinn.acquisition.encoding import encode, encoding_matrix
from asl_pinn.errors import InputError
from asl_pinn.io.bids import find_runs, read_run
from asl_pinn.io.bids.images import load_image

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
    """The one line with which a dataset is refused."""
    with pytest.raises(InputError) as caught:
        read_run(find_runs(root)[0], **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        refused(
            "No `LabelingDuration`", {"LabelingDuration": None}, "'LabelingDuration' is missing"
        ),
        refused(
            "No `PostLabelingDelay`", {"PostLabelingDelay": None}, "'PostLabelingDelay' is missing"
        ),
        refused("No `M0Type`", {"M0Type": None}, "'M0Type' is missing"),
        refused(
            "No `ArterialSpinLabelingType`",
            {"ArterialSpinLabelingType": None},
            "'ArterialSpinLabelingType' is missing",
        ),
        refused(
            "Labelling that is neither continuous nor pulsed",
            {"ArterialSpinLabelingType": "VSASL"},
            "use PCASL, CASL, PASL",
        ),
        refused(
            "Pulsed labelling (PASL) without a cut-off of the bolus (`BolusCutOffFlag`)",
            PULSED | {"BolusCutOffFlag": False},
            "state BolusCutOffFlag, BolusCutOffTechnique, and BolusCutOffDelayTime in seconds",
        ),
        (PULSED | {"BolusCutOffFlag": None}, "duration of a pulsed bolus"),
        (PULSED | {"BolusCutOffFlag": "yes"}, "BolusCutOffFlag must be true or false"),
        refused(
            "PASL by QUIPSS, which saturates the imaged slices and not the bolus",
            PULSED | {"BolusCutOffTechnique": "QUIPSS"},
            "only QUIPSSII and Q2TIPS can be quantified",
        ),
        (PULSED | {"BolusCutOffTechnique": None}, "'BolusCutOffTechnique' is missing"),
        refused(
            "PASL without `BolusCutOffDelayTime`",
            PULSED | {"BolusCutOffDelayTime": None},
            "'BolusCutOffDelayTime' is missing",
        ),
        refused(
            "A `BolusCutOffDelayTime` in milliseconds",
            PULSED | {"BolusCutOffDelayTime": [700, 1600]},
            "BolusCutOffDelayTime holds 1600, too long for seconds",
        ),
        (PULSED | {"BolusCutOffDelayTime": 0}, "BolusCutOffDelayTime must be positive"),
        refused(
            "Saturation pulses of Q2TIPS out of order",
            PULSED | {"BolusCutOffDelayTime": [1.6, 0.7]},
            "from the first saturation pulse to the last, it holds 1.6, 0.7",
        ),
        refused(
            "An inversion time of zero",
            PULSED | {"PostLabelingDelay": [0.0, 1.2, 1.9]},
            "PostLabelingDelay must be positive, it holds 0",
        ),
        refused(
            "Volumes with vascular crushing among volumes without",
            {"VascularCrushingVENC": [0, 4, 4]},
            "VascularCrushingVENC is 0 for some volumes alone",
        ),
        refused(
            "`VascularCrushing` that `VascularCrushingVENC` contradicts",
            {"VascularCrushing": False, "VascularCrushingVENC": 4},
            "VascularCrushing is false, but VascularCrushingVENC is 4 cm/s",
        ),
        ({"VascularCrushing": "yes"}, "VascularCrushing must be true or false"),
        ({"VascularCrushingVENC": -4}, "VascularCrushingVENC must be zero or more"),
        refused(
            "Fewer delays than volumes",
            {"PostLabelingDelay": [0.5, 1.0]},
            "has 2 values for a series of 3 volumes",
        ),
        refused(
            "More durations than volumes",
            {"LabelingDuration": [1.0] * 4},
            "has 4 values for a series of 3 volumes",
        ),
        ({"LabelingDuration": [1.0]}, "has 1 values for a series of 3 volumes"),
        refused(
            "A duration of zero",
            {"LabelingDuration": [0.5, 0.0, 0.5]},
            "must be positive, it holds 0",
        ),
        refused(
            "A negative duration", {"LabelingDuration": -1.8}, "must be positive, it holds -1.8"
        ),
        refused(
            "A negative delay",
            {"PostLabelingDelay": [0.5, -0.1, 1.0]},
            "zero or more, it holds -0.1",
        ),
        refused(
            "A delay that is NaN", {"PostLabelingDelay": [0.5, float("nan"), 1.0]}, "it holds nan"
        ),
        refused("A duration that is infinite", {"LabelingDuration": float("inf")}, "it holds inf"),
        refused("Delays in milliseconds", {"PostLabelingDelay": 1800}, "not milliseconds"),
        refused("Durations in milliseconds", {"LabelingDuration": 1800}, "not milliseconds"),
        refused("A number written as text", {"PostLabelingDelay": "1.8"}, "must be a number"),
        ({"PostLabelingDelay": [True, True, True]}, "must be a number"),
        refused("An empty list of delays", {"PostLabelingDelay": []}, "must be a number"),
        refused("`LabelingEfficiency` in percent", {"LabelingEfficiency": 85}, "must be 0.1 to 1"),
        refused(
            "`LabelingEfficiency` in words", {"LabelingEfficiency": "high"}, "must be a number"
        ),
        (
            {
                "LabelingEfficiency": None,
                "BackgroundSuppression": True,
                "BackgroundSuppressionNumberPulses": -1,
            },
            "must be a count",
        ),
        refused(
            "`BackgroundSuppression` that is neither true nor false",
            {"LabelingEfficiency": None, "BackgroundSuppression": "no"},
            "true or false",
        ),
        refused("An unknown `M0Type`", {"M0Type": "Nearby"}, "M0Type is 'Nearby'"),
        refused(
            "`M0Type` Estimate without `M0Estimate`",
            {"M0Type": "Estimate"},
            "'M0Estimate' is missing",
        ),
        refused(
            "An `M0Estimate` of zero",
            {"M0Type": "Estimate", "M0Estimate": 0},
            "must be positive, it is 0",
        ),
        refused(
            "2D readout without `SliceTiming`", {"MRAcquisitionType": "2D"}, "needs SliceTiming"
        ),
        refused(
            "`SliceTiming` of another number of slices",
            {"MRAcquisitionType": "2D", "SliceTiming": [0.0, 0.1]},
            "2 values for 3 slices",
        ),
        refused(
            "A negative slice time",
            {"MRAcquisitionType": "2D", "SliceTiming": [0.0, -0.1, 0.1]},
            "zero or more",
        ),
        refused(
            "Volumes of several echoes in a series",
            {"EchoTime": [0.012, 0.03, 0.012]},
            "EchoTime holds several values (0.012, 0.03 s)",
        ),
        ({"EchoTime": [0.012, 0.03]}, "EchoTime holds several values (0.012, 0.03 s)"),
        ({"EchoTime": [0.012, float("nan"), 0.012]}, "EchoTime holds several values"),
        ({"EchoTime": "short"}, "EchoTime must be a number"),
        refused(
            "Look-Locker readouts, of several delays after one labelling",
            {"LookLocker": True},
            "Look-Locker series are not supported",
        ),
        ({"LookLocker": "yes"}, "LookLocker must be true or false"),
        refused(
            "Readouts of small flip angles, below 60 degrees",
            {"FlipAngle": 35},
            "FlipAngle is 35 degrees",
        ),
        ({"FlipAngle": [90, 25, 90]}, "FlipAngle is 25 degrees"),
        ({"FlipAngle": [8, 8, 8, 8, 90]}, "FlipAngle is 8 degrees"),
        ({"FlipAngle": float("nan")}, "FlipAngle is nan degrees"),
        ({"FlipAngle": "large"}, "FlipAngle must be a number"),
        refused(
            "A field strength at which T1 is not known, unless flags give T1",
            {"MagneticFieldStrength": 9.4},
            "give --t1_blood and --t1_tissue in seconds",
        ),
        ({"MagneticFieldStrength": 0}, "MagneticFieldStrength is 0 T"),
        ({"MagneticFieldStrength": "3T"}, "MagneticFieldStrength must be a number"),
        ({"MagneticFieldStrength": [3, 3, 3]}, "MagneticFieldStrength must be a number"),
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
        refused(
            "Encoded images that are no whole number of cycles",
            {},
            6,
            "6 encoded volumes are no whole number of cycles of 4",
        ),
        refused(
            "Encoded images without `TimeEncodedMatrixType`",
            {"TimeEncodedMatrixType": None},
            4,
            "'TimeEncodedMatrixType' is missing",
        ),
        refused(
            "An unknown `TimeEncodedMatrixType`",
            {"TimeEncodedMatrixType": "random"},
            4,
            "unknown matrix order 'random'",
        ),
        refused(
            "A custom encoding without its matrix",
            {"TimeEncodedMatrixType": "custom"},
            4,
            "'TimeEncodedMatrix' is missing",
        ),
        refused(
            "A matrix size that does not exist",
            {"TimeEncodedMatrixSize": 6},
            4,
            "no Hadamard matrix of size 6",
        ),
        ({"TimeEncodedMatrixSize": 4.5}, 4, "TimeEncodedMatrixSize is 4.5"),
        ({"TimeEncodedMatrixSize": 2**20}, 4, "the largest is 1024"),
        ({"TimeEncodedMatrix": 10**400}, 4, "rectangular table"),
        ({"TimeEncodedMatrixType": ["walsh"]}, 4, "unknown matrix order"),
        refused(
            "A matrix of another shape",
            {"TimeEncodedMatrix": [[1, 1], [1, -1], [-1, 1], [-1, -1]]},
            4,
            "N x (N-1), a row for each image",
        ),
        refused("A matrix that is none", {"TimeEncodedMatrix": "rows"}, 4, "rectangular table"),
        refused(
            "Encoded images without `TimeEncodedSubBolusDurations`",
            {"TimeEncodedSubBolusDurations": None},
            4,
            "'TimeEncodedSubBolusDurations' is missing",
        ),
        refused(
            "Another number of sub-boluses than the matrix has",
            {"TimeEncodedSubBolusDurations": [1.0, 1.0]},
            4,
            "2 values for the 3 sub-boluses",
        ),
        refused(
            "A sub-bolus of zero length",
            {"TimeEncodedSubBolusDurations": [1.0, 1.0, 0.0]},
            4,
            "must be positive",
        ),
        refused(
            "Sub-boluses that do not add up to `LabelingDuration`",
            {"LabelingDuration": 1.8},
            4,
            "add up to 2 s, but LabelingDuration is 1.8 s",
        ),
        refused(
            "Encoded images of different delays whose sub-boluses have durations of their own",
            {"PostLabelingDelay": [0.1, 0.1, 0.1, 0.2]},
            4,
            "PostLabelingDelay varies",
        ),
        refused(
            "A delay for each encoded image, with durations that do not fill the time between",
            {
                "PostLabelingDelay": [0.0, 2.0, 1.0, 0.2],
                "LabelingDuration": [0.0, 1.0, 0.5, 0.5],
                "TimeEncodedSubBolusDurations": None,
            },
            4,
            "one ends 2 s before the readout, and the next begins 1.5 s before it",
        ),
        refused(
            "A matrix of ExploreASL of another size than 4 and 8",
            {"TimeEncodedMatrixType": "Hadamard", "TimeEncodedMatrixSize": 12},
            12,
            "of size 4 or 8, not 12",
        ),
        refused(
            "Encoded images of pulsed labelling",
            PULSED | {"PostLabelingDelay": 1.8},
            4,
            "a pulse cannot be time-encoded",
        ),
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
        refused("An empty aslcontext.tsv", "", "no volumes listed"),
        ("volume_type\n", "no volumes listed"),
        refused(
            "aslcontext.tsv without a column volume_type",
            "type\ndeltam\ndeltam\ndeltam\n",
            "no volumes listed",
        ),
        refused(
            "aslcontext.tsv of another number of volumes",
            "volume_type\ndeltam\ndeltam\n",
            "lists 2 volumes, but sub-01_asl.nii.gz has 3",
        ),
        refused(
            "Volumes that are CBF already",
            "volume_type\ncbf\ncbf\ncbf\n",
            "'cbf' cannot be quantified",
        ),
        refused("M0 volumes alone", "volume_type\nm0scan\nm0scan\nm0scan\n", "nothing to quantify"),
        ("volume_type\nm0scan\nnoRF\nnoRF\n", "only m0scan and noRF volumes"),
        refused(
            "Differences among controls and labels",
            "volume_type\ndeltam\ncontrol\nlabel\n",
            "mixes deltam",
        ),
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
        refused(
            "A control without its label",
            ("control", "label", "control"),
            1.0,
            "2 control and 1 label volumes",
        ),
        refused(
            "Controls alone",
            ("control", "control", "control"),
            1.0,
            "3 control and 0 label volumes",
        ),
        refused(
            "A control and a label of different delays",
            ("control", "label"),
            [0.5, 1.0],
            "1 control and 0 label volumes",
        ),
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
    [
        refused("No aslcontext.tsv", CONTEXT, "no such file"),
        refused("`M0Type` Separate without an M0 scan", M0SCAN, "no such file"),
        refused("No sidecar", JSON, "is missing"),
    ],
)
def test_missing_file(tmp_path, missing, fault):
    root = write_dataset(tmp_path)
    (root / missing).unlink()
    message = refusal(root)
    assert fault in message
    assert (ASL if missing == JSON else missing) in message


@pytest.mark.refused(
    "A link whose content was not fetched (datalad, git-annex)", "fetch its content"
)
@pytest.mark.parametrize("target", [ASL, JSON, CONTEXT, M0SCAN, MASKFILE])
def test_link_to_nothing(tmp_path, target):
    root = write_dataset(tmp_path)
    (root / target).unlink()
    (root / target).symlink_to("../../.git/annex/objects/not/here")
    with pytest.raises(InputError, match=f"{target}: a link .* fetch its content"):
        read_run(find_runs(root)[0])


@pytest.mark.refused(
    "Series whose maps would have the same names: `.nii` beside `.nii.gz`, or another `desc`",
    "would have the same names",
)
@pytest.mark.parametrize("other", ["sub-01_asl.nii", "sub-01_desc-preproc_asl.nii.gz"])
def test_series_of_one_name(tmp_path, other):
    root = write_dataset(tmp_path)
    save_nifti(root / "sub-01" / "perf" / other, DELTA_M)
    for run in find_runs(root):
        with pytest.raises(InputError, match=r"maps of .* would have the same names"):
            read_run(run)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-40]))


def break_checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(bytes(content))


def fill_with_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"not an image"))


def fill_plain(path: Path) -> None:
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


def append_zeros(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**25), 1))


def begin_late(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[108:112] = np.array(1e12, "<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def make_huge_voxels(path: Path) -> None:
    image = nib.load(path)
    save_nifti(path, np.asarray(image.dataobj), np.diag([3000.0, 3000.0, 4000.0, 1.0]))


def break_codes(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[252:256] = np.array([77, 77], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def turn_voxels(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = np.array(-3.0, "<f4").tobytes()
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
    ("spoil", "fault"),
    [
        refused("A truncated image", truncate, "unreadable or truncated"),
        refused("A compressed image whose content is truncated", truncate_inside, "truncated"),
        refused(
            "A compressed image with a wrong checksum", break_checksum, "unreadable or truncated"
        ),
        refused("A file that is no image", fill_with_text, "not a NIfTI image"),
        refused(
            "A file that is not compressed, though named .gz", fill_plain, "Not a gzipped file"
        ),
        refused("An empty file", empty, "not a NIfTI image"),
        refused(
            "A header that claims 10^14 voxels, before memory is taken",
            claim_absurd_shape,
            "impossible shape",
        ),
        refused(
            "A header that claims more than the file can hold",
            claim_more_than_the_file_holds,
            "more than a file of this size can hold",
        ),
        refused("A header of negative size", claim_negative_shape, "impossible shape"),
        refused("Complex images", make_complex, "real-valued magnitude data are needed"),
        refused("Colour images", make_rgb, "real-valued magnitude data are needed"),
        refused("Images of five dimensions", make_five_dimensional, "image is 5D"),
        refused("An affine that is not invertible", make_singular, "affine is not invertible"),
        refused("A bomb: zeros without end behind a small image", append_zeros, "far more than"),
        refused("Voxels that begin far behind the header", begin_late, "begin at byte"),
        refused("Voxels of impossible size", make_huge_voxels, "voxels of"),
        refused("Header codes that must be guessed", break_codes, "unreadable"),
        refused("Voxels of negative size", turn_voxels, "pixdim[1,2,3] should be positive"),
    ],
)
def test_unreadable_image(tmp_path, spoil, fault, capsys):
    """Refused by a line, and before memory is taken for what a header claims."""
    path = tmp_path / "series.nii.gz"
    save_nifti(path, DELTA_M)
    spoil(path)
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        load_image(path, ndim=(3, 4))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert fault in message
    assert peak < 2**23
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("target", [ASL, M0SCAN, MASKFILE])
def test_unreadable_image_of_a_dataset(tmp_path, target):
    root = write_dataset(tmp_path)
    truncate(root / target)
    assert target in refusal(root)


def test_truncated_image_without_compression(tmp_path):
    root = write_dataset(tmp_path)
    path = tmp_path / "own.nii"
    save_nifti(path, MASK.astype(np.uint8))
    truncate(path)
    assert f"{path}: " in refusal(root, mask=path)


@pytest.mark.refused("M0, mask or T1 map on another grid", "resample it to the ASL grid")
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
        refused("An empty mask", MASKFILE, np.zeros(SHAPE, np.uint8), "mask is empty"),
        refused(
            "A mask of more than one value",
            MASKFILE,
            np.linspace(0, 1, MASK.size, dtype="f4").reshape(SHAPE),
            "threshold it",
        ),
        (MASKFILE, np.full(SHAPE, np.nan, np.float32), "threshold it"),
        refused(
            "M0 of zero everywhere", M0SCAN, np.zeros(SHAPE, np.float32), "M0 is nowhere positive"
        ),
        (M0SCAN, -M0, "M0 is nowhere positive"),
        (M0SCAN, np.full(SHAPE, np.nan, np.float32), "M0 is nowhere positive"),
        refused(
            "Differences that are NaN everywhere",
            ASL,
            np.full_like(DELTA_M, np.nan),
            "nothing is left",
        ),
        (ASL, np.full_like(DELTA_M, np.inf), "nothing is left"),
        refused(
            "A T1 map in milliseconds",
            T1MAP,
            np.full(SHAPE, 1300.0, np.float32),
            "BIDS wants seconds",
        ),
        refused("A T1 map of zeros", T1MAP, np.zeros(SHAPE, np.float32), "T1 is nowhere positive"),
    ],
)
def test_image_values(tmp_path, target, values, fault):
    root = write_dataset(tmp_path)
    save_nifti(root / target, values)
    message = refusal(root, t1_tissue="map" if target == T1MAP else 1.33)
    assert target in message
    assert fault in message


@pytest.mark.refused("M0 negative in the whole mask", "nothing is left")
def test_m0_negative_in_the_whole_mask(tmp_path):
    message = refusal(write_dataset(tmp_path, m0=np.where(MASK, -1.0, 1.0).astype(np.float32)))
    assert ASL in message
    assert "nothing is left" in message


@pytest.mark.refused("`M0Type` Included without an `m0scan` volume", "no volume is an m0scan")
def test_m0_included_without_m0_volumes(tmp_path):
    message = refusal(write_dataset(tmp_path, metadata={"M0Type": "Included"}))
    assert CONTEXT in message
    assert "no volume is an m0scan" in message


@pytest.mark.refused(
    "An M0 of a repetition time that cannot be: 0 or in milliseconds", "RepetitionTimePreparation"
)
@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"RepetitionTimePreparation": 0}, "RepetitionTimePreparation must be positive"),
        ({"RepetitionTimePreparation": [8.0, 0.0]}, "RepetitionTimePreparation must be positive"),
        ({"RepetitionTimePreparation": 6000}, "not milliseconds"),
        ({"RepetitionTimePreparation": "long"}, "RepetitionTimePreparation must be a number"),
        ({"RepetitionTime": 0}, "RepetitionTime must be positive"),
    ],
)
def test_repetition_time_of_m0(tmp_path, keys, fault):
    root = write_dataset(tmp_path)
    sidecar = M0SCAN.replace(".nii.gz", ".json")
    save_json(root / sidecar, keys)
    message = refusal(root)
    assert sidecar in message
    assert fault in message


def test_repetition_time_of_an_included_m0(tmp_path):
    root = write_dataset(
        tmp_path,
        types=("m0scan", "deltam", "deltam"),
        metadata={"M0Type": "Included", "RepetitionTimePreparation": [0.0, 4.0, 4.0]},
    )
    message = refusal(root)
    assert JSON in message
    assert "RepetitionTimePreparation must be positive, it holds 0" in message


def test_field_strength_without_one_of_the_flags(tmp_path):
    root = write_dataset(tmp_path, metadata={"MagneticFieldStrength": 9.4})
    assert "give --t1_tissue in seconds" in refusal(root, t1_blood=2.4)
    assert "give --t1_blood in seconds" in refusal(root, t1_tissue=1.9)


@pytest.mark.parametrize(
    ("types", "suppressed", "fault"),
    [
        refused(
            "`M0Type` Absent without control images", ("deltam",) * 4, False, "no control images"
        ),
        refused(
            "`M0Type` Absent with background suppression",
            ("control", "label") * 2,
            True,
            "background suppression spoils",
        ),
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


@pytest.mark.refused("Two M0 scans intended for one series", "several M0 scans are intended for it")
def test_several_m0_scans(tmp_path):
    root = write_dataset(tmp_path, m0=None)
    for acquisition in ("a", "b"):
        path = root / "sub-01" / "perf" / f"sub-01_acq-{acquisition}_m0scan.nii.gz"
        save_nifti(path, M0)
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        save_json(sidecar, {"IntendedFor": ["bids::sub-01/perf/sub-01_asl.nii.gz"]})
    assert "sub-01_acq-a_m0scan.nii.gz, sub-01_acq-b_m0scan.nii.gz" in refusal(root)


@pytest.mark.refused("Two masks that fit equally well", "several masks fit")
def test_several_masks(tmp_path):
    root = write_dataset(tmp_path)
    other = MASKFILE.replace("masks", "other")
    save_nifti(root / other, MASK.astype(np.uint8))
    message = refusal(root)
    assert MASKFILE in message
    assert other in message
    assert "--mask" in message


@pytest.mark.refused("A file named by a flag that is not there", "no such file")
def test_given_files_must_exist(tmp_path):
    root = write_dataset(tmp_path)
    assert "nowhere.nii: no such file" in refusal(root, mask=tmp_path / "nowhere.nii")
    assert "nowhere.nii: no such file" in refusal(root, t1_tissue=tmp_path / "nowhere.nii")
    assert "no *_T1map.nii.gz" in refusal(root, t1_tissue="map")


@pytest.mark.refused(
    "A T1 constant that is not positive, or in milliseconds", "must be a positive number of seconds"
)
@pytest.mark.parametrize("value", [0.0, -1.0, 1330.0, float("nan")])
def test_t1_constants(tmp_path, value):
    root = write_dataset(tmp_path)
    assert "--t1_tissue" in refusal(root, t1_tissue=value)
    assert "--t1_blood" in refusal(root, t1_blood=value)


@pytest.mark.refused("Two T1 maps of a participant", "several T1 maps")
def test_several_t1_maps(tmp_path):
    root = write_dataset(tmp_path)
    for acquisition in ("a", "b"):
        save_nifti(root / f"sub-01/anat/sub-01_acq-{acquisition}_T1map.nii.gz", M0)
    assert "several T1 maps" in refusal(root, t1_tissue="map")


@pytest.mark.refused("No mask, and one number as M0", "no mask, and M0 is the same everywhere")
def test_no_mask_and_nothing_to_make_it_from(tmp_path):
    metadata = {"M0Type": "Estimate", "M0Estimate": 10.0}
    message = refusal(write_dataset(tmp_path, metadata=metadata, mask=None))
    assert ASL in message
    assert "--mask" in message


@pytest.mark.refused("No mask, and no brain to be seen in M0", "no brain was found in M0")
def test_no_brain_in_m0(tmp_path):
    m0 = (np.indices((12, 12, 3)).sum(axis=0) % 2 + 1).astype(np.float32)
    volumes = np.ones((12, 12, 3, 3), np.float32)
    message = refusal(write_dataset(tmp_path, volumes=volumes, m0=m0, mask=None))
    assert "no brain was found in M0" in message


@pytest.mark.refused("An `IntendedFor` that is no name", "IntendedFor must be")
@pytest.mark.parametrize("value", [None, 7, {}, [None]])
def test_intention_of_another_type(tmp_path, value):
    root = write_dataset(tmp_path, m0=None)
    scan = root / "sub-01" / "perf" / "sub-01_acq-other_m0scan.nii.gz"
    save_nifti(scan, M0)
    sidecar = scan.with_name("sub-01_acq-other_m0scan.json")
    save_json(sidecar, {"IntendedFor": value})
    assert refusal(root).startswith(f"{sidecar}: IntendedFor must be")


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        refused(
            "Differences of the wrong sign: mean negative",
            "deltam",
            "change the sign of the deltam",
        ),
        refused("Control and label exchanged", "pairs", "exchange control and label"),
        refused(
            "Encoded images of the complement, not said so",
            "encoded",
            "TimeEncodedSignFlip to true",
        ),
        refused(
            "Encoded images said to be the complement, and not so",
            "flipped",
            "TimeEncodedSignFlip to false",
        ),
    ],
)
def test_differences_of_the_wrong_sign(tmp_path, kind, remedy):
    control = np.full((*SHAPE, 3), 500.0, np.float32)
    pairs = np.concatenate([control, control + DELTA_M], -1)
    images = encode(DELTA_M, control[..., 0], encoding_matrix(4)).astype(np.float32)
    complement = encode(DELTA_M, control[..., 0], -encoding_matrix(4)).astype(np.float32)
    plain = {key: METADATA[key] * 2 for key in ("LabelingDuration", "PostLabelingDelay")}
    types = ("control", "label", "label", "label")
    root = write_dataset(
        tmp_path,
        **{
            "deltam": {"volumes": -DELTA_M},
            "pairs": {
                "volumes": pairs,
                "types": ("control",) * 3 + ("label",) * 3,
                "metadata": plain,
            },
            "encoded": {"volumes": complement, "types": types, "metadata": ENCODED},
            "flipped": {
                "volumes": images,
                "types": types,
                "metadata": {**ENCODED, "TimeEncodedSignFlip": True},
            },
        }[kind],
    )
    message = refusal(root)
    assert JSON in message
    assert "as if label and control were interchanged" in message
    assert "--keep_sign" in message
    assert remedy in message


def test_noise_without_perfusion_has_no_sign(tmp_path):
    noise = np.random.default_rng(5).normal(0.0, 5.0, DELTA_M.shape).astype(np.float32)
    noise -= noise[MASK].mean() + 0.3
    data, _ = read_run(find_runs(write_dataset(tmp_path, volumes=noise))[0])
    assert data.valid.all() == MASK.all()


@pytest.mark.refused("A sidecar or table of more than 16 MiB", "is larger than")
@pytest.mark.parametrize("target", [CONTEXT, JSON, "dataset_description.json"])
def test_texts_have_a_limit(tmp_path, target):
    root = write_dataset(tmp_path)
    with open(root / target, "ab") as file:
        file.write(b" " * (2**24 + 1))
    assert "is larger than" in refusal(root)


@pytest.mark.refused("A folder or pipe in place of a sidecar or table", "is no regular file")
@pytest.mark.parametrize("target", [CONTEXT, JSON])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_texts_are_files(tmp_path, target, make):
    root = write_dataset(tmp_path)
    (root / target).unlink()
    make(root / target)
    assert refusal(root).startswith(f"{root / target}: is no regular file")


@pytest.mark.refused("A sidecar nested without end, or with numbers beyond all bounds", "repair")
@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"M0Estimate": 1' + b"0" * 5000 + b"}"])
def test_json_that_cannot_be_parsed(tmp_path, content):
    root = write_dataset(tmp_path)
    (root / JSON).write_bytes(content)
    assert "cannot be read as JSON" in refusal(root)


@pytest.mark.refused("A sidecar that is no JSON object", "cannot be read as JSON")
@pytest.mark.parametrize("content", [b"{ not JSON", b"", b"[1, 2]", b"\xff\xfe\x00", b"null"])
@pytest.mark.parametrize("target", [JSON, "asl.json", "dataset_description.json"])
def test_sidecar_that_is_no_json(tmp_path, content, target):
    root = write_dataset(tmp_path)
    (root / target).write_bytes(content)
    message = refusal(root)
    assert "JSON" in message
    assert str(root / target) in message


@pytest.mark.refused(
    "A folder without dataset_description.json or ASL series", "no dataset_description.json"
)
def test_no_dataset(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no dataset_description\.json"):
        find_runs(tmp_path)
    save_json(tmp_path / "dataset_description.json", METADATA)
    with pytest.raises(InputError, match="nothing to quantify"):
        find_runs(tmp_path)


@pytest.mark.refused("A participant that is not there", "no participant")
def test_unknown_participant(tmp_path):
    write_dataset(tmp_path, stem="sub-02", folder="sub-02/perf")
    root = write_dataset(tmp_path)
    save_nifti(root / "sub-03" / "anat" / "sub-03_T1w.nii.gz", M0)
    with pytest.raises(InputError, match="no participant sub-9; present: sub-01, sub-02, sub-03"):
        find_runs(root, ["01", "9"])
    with pytest.raises(InputError, match="sub-03 has no perf"):
        find_runs(root, ["sub-03"])


@pytest.mark.refused("An image that may not be read", "Permission denied")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_image_without_permission(tmp_path):
    root = write_dataset(tmp_path)
    (root / ASL).chmod(0)
    assert ASL in refusal(root)


@pytest.mark.refused("`--preprocessed` without a preprocessed series in ASL space", "found: none")
def test_no_preprocessed_series(tmp_path):
    message = refusal(write_dataset(tmp_path), use_preprocessed=True)
    assert "--preprocessed needs one *_desc-preproc_asl.nii.gz" in message
    assert "found: none" in message


@pytest.mark.refused(
    "ASLPrep's derivatives as a dataset, which lack aslcontext.tsv", "--preprocessed"
)
def test_derivatives_as_a_dataset(tmp_path):
    root = write_dataset(tmp_path, stem="sub-01_desc-preproc")
    (root / "sub-01" / "perf" / "sub-01_desc-preproc_aslcontext.tsv").unlink()
    message = refusal(root)
    assert "sub-01_desc-preproc_aslcontext.tsv: no such file" in message
    assert "quantify the acquired dataset with --preprocessed" in message


@pytest.mark.refused("A readout delay in milliseconds", "--readout_delay must be 0 to 30 s")
def test_readout_delay_in_milliseconds(tmp_path):
    root = write_dataset(tmp_path)
    save_nifti(root / "delays.nii.gz", np.full(SHAPE, 45.0, np.float32))
    assert "--readout_delay must be 0 to 30 s" in refusal(root, readout=root / "delays.nii.gz")
