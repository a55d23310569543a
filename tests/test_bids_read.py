"""Accepted variants of BIDS ASL datasets and what is read from them."""

import gzip
import itertools
import re
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
    accepted,
    save_json,
    save_nifti,
    write_dataset,
)
from numpy.typing import NDArray

from asl_pinn import models
from asl_pinn.acquisition.calibration import Calibration
from asl_pinn.acquisition.constants import RELAXATION_TIMES
from asl_pinn.acquisition.encoding import encode, encoding_matrix
from asl_pinn.acquisition.protocol import label_durations
from asl_pinn.data import AslData
from asl_pinn.evaluation.verdict import judge
from asl_pinn.io.bids import find_runs, maps_sidecar, read_run

INVIVO = Path(__file__).parents[1] / ".." / "shared" / "data" / "invivo-te-pcasl"
CONTROL = np.full((*SHAPE, 1), 500.0, np.float32)


def read(root: Path, **options) -> tuple[AslData, tuple[str, ...]]:
    data, notes = read_run(find_runs(root)[0], **options)
    return data, notes.messages


def mentions(messages: tuple[str, ...], *words: str) -> bool:
    return any(all(word in message for word in words) for message in messages)


@pytest.mark.accepted("Differences (`deltam`), one for each delay")
def test_decoded_series(tmp_path):
    data, messages = read(write_dataset(tmp_path))
    np.testing.assert_array_equal(data.delta_m, DELTA_M)
    assert data.delta_m.dtype == data.m0.dtype == data.t1_tissue.dtype == np.float32
    np.testing.assert_array_equal(data.m0, M0)
    np.testing.assert_array_equal(data.mask, MASK)
    np.testing.assert_array_equal(data.t1_tissue, np.float32(1.33))
    np.testing.assert_array_equal(data.readout_delay, np.zeros(SHAPE))
    np.testing.assert_array_equal(data.n_averages, [1, 1, 1])
    np.testing.assert_allclose(data.affine, AFFINE)
    np.testing.assert_allclose(data.protocol.label_duration, PROTOCOL.label_duration)
    np.testing.assert_allclose(data.protocol.pld, PROTOCOL.pld)
    assert (data.protocol.labeling_efficiency, data.protocol.t1_blood) == (0.8, 1.65)
    assert data.stem == "sub-01/perf/sub-01"
    assert messages == ()


def test_sources_are_relative_to_the_dataset(tmp_path):
    _, notes = read_run(find_runs(write_dataset(tmp_path))[0])
    assert notes.sources == (
        "sub-01/perf/sub-01_asl.nii.gz",
        "sub-01/perf/sub-01_asl.json",
        "sub-01/perf/sub-01_aslcontext.tsv",
        "sub-01/perf/sub-01_m0scan.nii.gz",
        "derivatives/masks/sub-01/perf/sub-01_desc-brain_mask.nii.gz",
    )


@pytest.mark.accepted("A 3D image: a series of one volume")
def test_a_3d_image_is_a_series_of_one(tmp_path):
    timing = {"LabelingDuration": 1.8, "PostLabelingDelay": 1.5}
    root = write_dataset(tmp_path, volumes=DELTA_M[..., 0], types=("deltam",), metadata=timing)
    data, _ = read(root)
    np.testing.assert_array_equal(data.delta_m, DELTA_M[..., :1])


def scaled_integers(values: NDArray, dtype: str) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.round(values * 10).astype(dtype), AFFINE)
    image.header.set_slope_inter(0.1, 2.0)
    return image


@pytest.mark.parametrize(
    "make",
    [
        accepted("16-bit integers with scale factors", lambda v: scaled_integers(v, "i2")),
        accepted("Unsigned integers with scale factors", lambda v: scaled_integers(v, "u2")),
        accepted("64-bit floats", lambda v: nib.Nifti1Image(v.astype("f8"), AFFINE)),
        accepted("Big-endian files", lambda v: nib.Nifti1Image(v.astype(">f4"), AFFINE)),
        accepted("NIfTI-2", lambda v: nib.Nifti2Image(v, AFFINE)),
    ],
)
@pytest.mark.parametrize(
    "ending", [accepted("Compressed images", ".nii.gz"), accepted("Images not compressed", ".nii")]
)
def test_forms_of_images(tmp_path, make, ending):
    root = write_dataset(tmp_path)
    perf = root / "sub-01" / "perf"
    for name, values in (("asl", DELTA_M), ("m0scan", M0)):
        (perf / f"sub-01_{name}.nii.gz").unlink()
        nib.save(make(values), perf / f"sub-01_{name}{ending}")
    data, messages = read(root)
    for found, name in ((data.delta_m, "asl"), (data.m0, "m0scan")):
        stored = nib.load(perf / f"sub-01_{name}{ending}").get_fdata()
        np.testing.assert_allclose(found, stored, rtol=1e-6)
    assert messages == ()


@pytest.mark.accepted("Header extensions, and a few bytes after the voxels")
def test_what_surrounds_the_voxels_is_left(tmp_path):
    root = write_dataset(tmp_path)
    path = root / "sub-01" / "perf" / "sub-01_asl.nii.gz"
    image = nib.Nifti1Image(DELTA_M, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 3000))
    path.write_bytes(gzip.compress(image.to_bytes() + bytes(512)))
    np.testing.assert_array_equal(read(root)[0].delta_m, DELTA_M)


@pytest.mark.accepted("aslcontext.tsv with further columns, Windows line ends or a byte-order mark")
def test_forms_of_tables(tmp_path):
    root = write_dataset(tmp_path)
    rows = ["volume_type\tnote", *["deltam\tx"] * 3, ""]
    text = "\ufeff" + "\r\n".join(rows)
    (root / "sub-01" / "perf" / "sub-01_aslcontext.tsv").write_bytes(text.encode())
    np.testing.assert_array_equal(read(root)[0].delta_m, DELTA_M)


@pytest.mark.accepted("A single delay: for `--fix=att=1.2`, a note says why")
def test_single_delay_is_noted(tmp_path):
    timing = {"LabelingDuration": 1.8, "PostLabelingDelay": 1.5}
    data, messages = read(write_dataset(tmp_path, metadata=timing))
    assert data.protocol.n_delays == 1
    assert mentions(messages, "a single delay", "--fix=att")


@pytest.mark.accepted("Phase images beside the magnitude (`part-phase`): left alone")
def test_phase_images_are_left(tmp_path):
    root = write_dataset(tmp_path, stem="sub-01_part-mag")
    write_dataset(tmp_path, stem="sub-01_part-phase")
    assert [run.stem for run in find_runs(root)] == ["sub-01_part-mag"]


@pytest.mark.accepted("Series and M0 of different scales: read, the verdict says so")
def test_differences_too_large_for_m0_are_told(tmp_path):
    _, notes = read_run(find_runs(write_dataset(tmp_path, volumes=100.0 * DELTA_M))[0])
    (reason,) = judge(notes.facts).reasons
    assert "same scale" in reason


@pytest.mark.accepted("`IntendedFor` that leads elsewhere: compared with names, never opened")
@pytest.mark.parametrize("value", [[], "", "../../../../etc/passwd", ["bids::../x.nii.gz", "/"]])
def test_intention_is_compared_and_never_followed(tmp_path, value):
    root = write_dataset(tmp_path)
    save_json(root / "sub-01" / "perf" / "sub-01_m0scan.json", {"IntendedFor": value})
    np.testing.assert_array_equal(read(root)[0].m0, M0)


@pytest.mark.parametrize(
    ("types", "plds", "n_averages"),
    [
        accepted(
            "Control and label in turn, several delays",
            ("control", "label") * 3,
            [1.0, 1.0, 0.5, 0.5, 2.0, 2.0],
            [1, 1, 1],
        ),
        accepted(
            "Label before control",
            ("label", "control") * 3,
            [1.0, 1.0, 0.5, 0.5, 2.0, 2.0],
            [1, 1, 1],
        ),
        accepted(
            "All controls, then all labels",
            ("control",) * 3 + ("label",) * 3,
            [1.0, 0.5, 2.0] * 2,
            [1, 1, 1],
        ),
        accepted(
            "Pairs of a delay repeated: averaged, and weighted in the fit",
            ("control", "label") * 3,
            [1.0, 1.0, 0.5, 0.5, 1.0, 1.0],
            [2, 1],
        ),
        accepted("Pairs of a single delay", ("control", "label") * 3, 1.0, [3]),
        accepted(
            "Differences of a delay repeated",
            ("deltam",) * 6,
            [1.0, 0.5, 1.0, 0.5, 1.0, 2.0],
            [3, 2, 1],
        ),
    ],
)
def test_pairs_are_subtracted_and_repeats_averaged(tmp_path, types, plds, n_averages):
    volumes = np.random.default_rng(1).normal(100.0, 10.0, (*SHAPE, 6)).astype(np.float32)
    metadata = {"LabelingDuration": 1.8, "PostLabelingDelay": plds}
    data, _ = read(write_dataset(tmp_path, volumes=volumes, types=types, metadata=metadata))
    kinds, times = np.array(types), np.broadcast_to(plds, 6)
    expected = []
    for pld in dict.fromkeys(times.tolist()):
        here = times == pld
        if "deltam" in types:
            expected.append(volumes[..., here].mean(-1))
        else:
            control = volumes[..., here & (kinds == "control")]
            expected.append((control - volumes[..., here & (kinds == "label")]).mean(-1))
    np.testing.assert_allclose(data.delta_m, np.stack(expected, -1), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(data.n_averages, n_averages)
    np.testing.assert_allclose(data.protocol.pld, list(dict.fromkeys(times.tolist())))


@pytest.mark.parametrize(
    "order",
    [
        accepted("Images encoded in Hadamard order", "hadamard"),
        accepted("Images encoded in Walsh order", "walsh"),
    ],
)
@pytest.mark.parametrize(
    "stated", ["type", accepted("Images encoded by a matrix in the sidecar", "matrix")]
)
@pytest.mark.parametrize(
    "sign_flip",
    [
        False,
        accepted("Encoded images of the complement (`TimeEncodedSignFlip`), several cycles", True),
    ],
)
@pytest.mark.parametrize(
    "with_m0", [False, accepted("Encoded images with `m0scan` volumes among them", True)]
)
def test_encoded_series_is_decoded(tmp_path, order, stated, sign_flip, with_m0):
    matrix = encoding_matrix(4, order)
    acquired = -matrix if sign_flip else matrix
    images = encode(DELTA_M, CONTROL[..., 0], acquired)
    kinds = ["control" if row.min() > 0 else "label" for row in acquired]
    noise = np.random.default_rng(2).normal(size=images.shape)
    volumes, types = np.concatenate([images + noise, images - noise], -1), kinds * 2
    pld = [0.25] * 8
    if with_m0:
        volumes = np.concatenate([M0[..., None], volumes], -1)
        types, pld = ["m0scan", *types], [0.0, *pld]
    metadata = {
        "LabelingDuration": 2.0,
        "PostLabelingDelay": pld,
        "TimeEncodedMatrixSize": 4,
        "TimeEncodedMatrixType": order if stated == "type" else "custom",
        "TimeEncodedMatrix": matrix.astype(int).tolist() if stated == "matrix" else None,
        "TimeEncodedSubBolusDurations": PROTOCOL.label_duration.tolist(),
        "TimeEncodedSignFlip": sign_flip or None,
        "M0Type": "Included" if with_m0 else "Separate",
    }
    root = write_dataset(
        tmp_path,
        volumes=volumes.astype(np.float32),
        types=tuple(types),
        metadata=metadata,
        m0=None if with_m0 else M0,
    )
    data, messages = read(root)
    np.testing.assert_allclose(data.delta_m, DELTA_M, atol=1e-3)
    np.testing.assert_allclose(data.protocol.pld, PROTOCOL.pld)
    np.testing.assert_array_equal(data.n_averages, [2, 2, 2])
    np.testing.assert_array_equal(data.m0, M0)
    assert messages == ()


@pytest.mark.accepted(
    "Encoded images that aslcontext.tsv calls otherwise: the matrix counts, a note says so"
)
def test_encoded_series_whose_context_disagrees_is_noted(tmp_path):
    images = encode(DELTA_M, CONTROL[..., 0], encoding_matrix(4)).astype(np.float32)
    metadata = {
        "LabelingDuration": 2.0,
        "PostLabelingDelay": 0.25,
        "TimeEncodedMatrixSize": 4,
        "TimeEncodedMatrixType": "hadamard",
        "TimeEncodedSubBolusDurations": PROTOCOL.label_duration.tolist(),
    }
    types = ("control", "label") * 2
    data, messages = read(write_dataset(tmp_path, volumes=images, types=types, metadata=metadata))
    np.testing.assert_allclose(data.delta_m, DELTA_M, atol=1e-3)
    assert mentions(messages, "aslcontext.tsv", "matrix was used")


# Rows of ExploreASL's matrices without the first, as its function for decoding has them.
EXPLOREASL = {
    ("Hadamard", 4): ["+-+-", "++--", "+--+"],
    ("Walsh", 4): ["+-+-", "+--+", "++--"],
    ("Hadamard", 8): [
        "+--+-++-",
        "++----++",
        "+-+--+-+",
        "++++----",
        "+--++--+",
        "++--++--",
        "+-+-+-+-",
    ],
    ("Walsh", 8): [
        "+-+-+-+-",
        "+-+--+-+",
        "+--+-++-",
        "+--++--+",
        "++--++--",
        "++----++",
        "++++----",
    ],
}


def explore_asl(order: str, size: int) -> NDArray:
    """Encoding matrix, a row for each image."""
    rows = EXPLOREASL[order, size]
    return np.array([[1.0 if sign == "+" else -1.0 for sign in row] for row in rows]).T


def encoded_by_image(size: int) -> tuple[NDArray, dict]:
    """Differences of sub-boluses, and their times as ExploreASL has them: latest bolus first."""
    durations = label_durations("t1_adjusted", size - 1)[::-1]
    plds = 0.2 + np.cumsum(durations) - durations
    differences = np.random.default_rng(3).normal(10.0, 3.0, (*SHAPE, size - 1))
    times = {
        "LabelingDuration": [0.0, *durations.tolist()],
        "PostLabelingDelay": [0.0, *plds.tolist()],
    }
    return differences.astype(np.float32), times


@pytest.mark.parametrize(
    ("order", "size"),
    [
        accepted("ExploreASL: `TimeEncodedMatrixType` Hadamard, with a capital", "Hadamard", 8),
        ("Hadamard", 4),
        accepted("ExploreASL: `TimeEncodedMatrixType` Walsh, with a capital", "Walsh", 8),
        ("Walsh", 4),
    ],
)
@pytest.mark.parametrize(
    "vendor",
    [
        "Siemens",
        accepted("ExploreASL: its matrices with the sign exchanged for Philips", "Philips"),
    ],
)
def test_explore_asl_names_its_own_matrices(tmp_path, order, size, vendor):
    differences, times = encoded_by_image(size)
    matrix = explore_asl(order, size)
    images = encode(differences, CONTROL[..., 0], -matrix if vendor == "Philips" else matrix)
    root = write_dataset(
        tmp_path,
        volumes=images.astype(np.float32),
        types=("control", *("label",) * (size - 1)),
        metadata={
            **times,
            "Manufacturer": vendor,
            "TimeEncodedMatrixSize": size,
            "TimeEncodedMatrixType": order,
        },
    )
    data, messages = read(root)
    np.testing.assert_allclose(data.delta_m, differences[..., ::-1], atol=1e-3)
    np.testing.assert_allclose(data.protocol.pld, times["PostLabelingDelay"][:0:-1])
    np.testing.assert_allclose(data.protocol.label_duration, times["LabelingDuration"][:0:-1])
    assert mentions(messages, f"'{order}'", "ExploreASL")
    assert mentions(messages, "Philips") == (vendor == "Philips")


@pytest.mark.parametrize(
    "square",
    [
        accepted("ExploreASL: a matrix of (N - 1) x N, a row for each delay: transposed", False),
        accepted("ExploreASL: a matrix of N x N with a first row of ones: transposed", True),
    ],
)
@pytest.mark.accepted(
    "ExploreASL: a delay and a duration for each encoded image, the first of a cycle a dummy"
)
def test_a_matrix_with_a_row_for_each_delay(tmp_path, square):
    differences, times = encoded_by_image(4)
    matrix = encoding_matrix(4, "walsh")
    rows = matrix.T.astype(int).tolist()
    images = encode(differences, CONTROL[..., 0], matrix).astype(np.float32)
    metadata = {**times, "TimeEncodedMatrix": [[1] * 4, *rows] if square else rows}
    types = ("control", "label", "label", "label")
    data, messages = read(write_dataset(tmp_path, volumes=images, types=types, metadata=metadata))
    np.testing.assert_allclose(data.delta_m, differences[..., ::-1], atol=1e-3)
    assert mentions(messages, "transposed")


@pytest.mark.accepted("ExploreASL: one duration for all sub-boluses, a delay for each image")
def test_equal_sub_boluses_with_a_delay_for_each_image(tmp_path):
    images = encode(DELTA_M, CONTROL[..., 0], encoding_matrix(4)).astype(np.float32)
    metadata = {
        "LabelingDuration": 0.6,
        "PostLabelingDelay": [1.5, 1.5, 0.9, 0.3],
        "TimeEncodedMatrix": encoding_matrix(4).astype(int).tolist(),
    }
    types = ("control", "label", "label", "label")
    data, _ = read(write_dataset(tmp_path, volumes=images, types=types, metadata=metadata))
    np.testing.assert_allclose(data.delta_m, DELTA_M, atol=1e-3)
    np.testing.assert_allclose(data.protocol.pld, [1.5, 0.9, 0.3])
    np.testing.assert_allclose(data.protocol.label_duration, 0.6)


@pytest.mark.parametrize(
    "keys",
    [
        accepted(
            "ExploreASL: `TimeEncodedMatrixSize` 0: not encoded", {"TimeEncodedMatrixSize": 0}
        ),
        {"TimeEncodedMatrixSize": [], "TimeEncodedMatrixType": "", "TimeEncodedMatrix": []},
    ],
)
def test_a_matrix_of_no_size_is_none(tmp_path, keys):
    volumes = np.stack([M0, 0.98 * M0], -1)
    metadata = {"LabelingDuration": 1.8, "PostLabelingDelay": 1.8, **keys}
    root = write_dataset(tmp_path, volumes=volumes, types=("control", "label"), metadata=metadata)
    np.testing.assert_allclose(read(root)[0].delta_m[..., 0], 0.02 * M0, rtol=1e-3)


@pytest.mark.accepted("Encoded cycles of several base delays in a series: decoded each")
def test_trains_of_two_base_delays(tmp_path):
    later = DELTA_M[..., ::-1] / 2.0
    trains = [encode(each, CONTROL[..., 0], encoding_matrix(4)) for each in (DELTA_M, later)]
    volumes = np.concatenate([trains[0], trains[1], trains[0]], -1).astype(np.float32)
    metadata = {
        "LabelingDuration": 2.0,
        "PostLabelingDelay": [0.25] * 4 + [0.75] * 4 + [0.25] * 4,
        "TimeEncodedMatrixSize": 4,
        "TimeEncodedMatrixType": "hadamard",
        "TimeEncodedSubBolusDurations": PROTOCOL.label_duration.tolist(),
    }
    types = ("control", "label", "label", "label") * 3
    data, messages = read(write_dataset(tmp_path, volumes=volumes, types=types, metadata=metadata))
    np.testing.assert_allclose(data.delta_m, np.concatenate([DELTA_M, later], -1), atol=1e-3)
    np.testing.assert_allclose(data.protocol.pld, [*PROTOCOL.pld, *(PROTOCOL.pld + 0.5)])
    np.testing.assert_array_equal(data.n_averages, [2, 2, 2, 1, 1, 1])
    assert messages == ()


@pytest.mark.accepted("Siemens XA: `LabelingDuration` that varies with the delay, which may be 0")
def test_durations_that_vary_with_the_delay(tmp_path):
    volumes = np.stack([M0, 0.98 * M0, M0, 0.97 * M0], -1)
    metadata = {"LabelingDuration": [0.4, 0.4, 1.8, 1.8], "PostLabelingDelay": [0.0, 0.0, 1.2, 1.2]}
    types = ("control", "label") * 2
    data, _ = read(write_dataset(tmp_path, volumes=volumes, types=types, metadata=metadata))
    np.testing.assert_allclose(data.protocol.label_duration, [0.4, 1.8])
    np.testing.assert_allclose(data.protocol.pld, [0.0, 1.2])


@pytest.mark.accepted("`ArterialSpinLabelingType` in small letters, as in pCASL")
def test_type_of_labelling_in_small_letters(tmp_path):
    data, notes = read_run(
        find_runs(write_dataset(tmp_path, metadata={"ArterialSpinLabelingType": "pCASL"}))[0]
    )
    assert notes.constants["ArterialSpinLabelingType"] == "PCASL"
    assert data.protocol.labeling == "continuous"


@pytest.mark.accepted(
    "GE: differences and M0 in one series, the differences scaled up by 32: `--m0_scale=32`"
)
def test_product_series_of_ge(tmp_path):
    root = write_dataset(
        tmp_path,
        volumes=np.stack([0.16 * M0, M0], -1),
        types=("deltam", "m0scan"),
        metadata={
            "Manufacturer": "GE",
            "M0Type": "Included",
            "LabelingDuration": [1.5, 0.0],
            "PostLabelingDelay": [2.0, 0.0],
            "RepetitionTimePreparation": [4.8, 2.0],
        },
        m0=None,
    )
    assert mentions(judge(read_run(find_runs(root)[0])[1].facts).reasons, "same scale")
    data, messages = read(root, calibration=Calibration(m0_scale=32.0))
    np.testing.assert_allclose(data.delta_m[..., 0] / data.m0, 0.005 * 0.7777, rtol=1e-3)
    assert mentions(messages, "2 s", "raises it by 28.6 %")


@pytest.mark.accepted("`M0Type` Separate, several volumes: their mean")
def test_m0_separate_is_averaged_over_volumes(tmp_path):
    data, _ = read(write_dataset(tmp_path, m0=np.stack([0.9 * M0, 1.1 * M0], -1)))
    np.testing.assert_allclose(data.m0, M0, rtol=1e-6)


@pytest.mark.accepted(
    "`M0Type` Separate, a scan of another name whose `IntendedFor` names the series"
)
def test_m0_separate_by_intention(tmp_path):
    root = write_dataset(tmp_path, m0=None)
    perf = root / "sub-01" / "perf"
    save_nifti(perf / "sub-01_acq-long_m0scan.nii.gz", 2 * M0)
    save_json(perf / "sub-01_acq-long_m0scan.json", {"IntendedFor": "perf/sub-01_asl.nii.gz"})
    save_nifti(perf / "sub-01_acq-other_m0scan.nii.gz", M0)
    data, _ = read(root)
    np.testing.assert_array_equal(data.m0, 2 * M0)


@pytest.mark.accepted("`M0Type` Included: `m0scan` volumes inside the series, wherever they stand")
def test_m0_included(tmp_path):
    volumes = np.concatenate([M0[..., None], DELTA_M, 3 * M0[..., None]], -1)
    root = write_dataset(
        tmp_path,
        volumes=volumes,
        types=("m0scan", "deltam", "deltam", "deltam", "m0scan"),
        metadata={
            "M0Type": "Included",
            "LabelingDuration": [0.0, *METADATA["LabelingDuration"], 0.0],
            "PostLabelingDelay": [0.0, *METADATA["PostLabelingDelay"], 0.0],
        },
        m0=None,
    )
    data, _ = read(root)
    np.testing.assert_array_equal(data.m0, 2 * M0)
    np.testing.assert_array_equal(data.delta_m, DELTA_M)


@pytest.mark.accepted("`M0Type` Estimate: one number for all voxels")
def test_m0_estimate(tmp_path):
    metadata = {"M0Type": "Estimate", "M0Estimate": 321}
    data, _ = read(write_dataset(tmp_path, metadata=metadata, m0=None))
    np.testing.assert_array_equal(data.m0, np.float32(321))


@pytest.mark.accepted(
    "`M0Type` Absent, no background suppression: the mean control image, a note says so"
)
def test_m0_absent_takes_the_mean_control(tmp_path):
    volumes = np.stack([M0, 0.98 * M0, 1.2 * M0, M0], -1)
    timing = {"LabelingDuration": 1.8, "PostLabelingDelay": 1.5, "M0Type": "Absent"}
    types = ("control", "label") * 2
    root = write_dataset(tmp_path, volumes=volumes, types=types, metadata=timing, m0=None)
    data, messages = read(root)
    np.testing.assert_allclose(data.m0, 1.1 * M0, rtol=1e-6)
    assert mentions(messages, "Absent", "mean control")


@pytest.mark.accepted(
    "An M0 scan with a repetition time below 5 s: divided by 1 - exp(-TR/T1), a note says by how "
    "much it rises; `--nom0_tr_correction` leaves it"
)
def test_short_repetition_time_of_m0_is_corrected(tmp_path):
    root = write_dataset(tmp_path)
    path = root / "sub-01" / "perf" / "sub-01_m0scan.json"
    save_json(path, {"RepetitionTimePreparation": 2.5})
    data, messages = read(root)
    np.testing.assert_allclose(data.m0, M0 / (1.0 - np.exp(-2.5 / 1.33)), rtol=1e-5)
    assert mentions(messages, "2.5 s", "raises it by 18.0 %")
    data, messages = read(root, calibration=Calibration(m0_tr_correction=False))
    np.testing.assert_array_equal(data.m0, M0)
    assert mentions(messages, "2.5 s", "not corrected")


@pytest.mark.accepted("An M0 scan that states `RepetitionTime` alone, or one time for each volume")
@pytest.mark.parametrize(
    ("keys", "note"),
    [
        ({"RepetitionTime": 2.5}, "2.5 s"),
        ({"RepetitionTime": 2.5, "RepetitionTimePreparation": 8.0}, None),
        ({"RepetitionTimePreparation": [8.0, 2.5]}, "2.5 s"),
        ({"RepetitionTimePreparation": [8.0, 9.0]}, None),
    ],
)
def test_repetition_times_of_an_m0_scan(tmp_path, keys, note):
    root = write_dataset(tmp_path, m0=np.stack([M0, M0], -1))
    save_json(root / "sub-01" / "perf" / "sub-01_m0scan.json", keys)
    messages = read(root)[1]
    assert mentions(messages, note, "raises it by") if note else messages == ()


@pytest.mark.accepted("M0 volumes in the series: each is corrected by its own repetition time")
@pytest.mark.parametrize(
    ("times", "note"),
    [([9.0, 3.0, 3.0, 3.0, 8.0], None), ([9.0, 3.0, 3.0, 3.0, 4.5], "4.5 s"), (4.0, "4 s")],
)
def test_repetition_times_of_m0_included(tmp_path, times, note):
    root = write_dataset(
        tmp_path,
        volumes=np.concatenate([M0[..., None], DELTA_M, M0[..., None]], -1),
        types=("m0scan", "deltam", "deltam", "deltam", "m0scan"),
        metadata={
            "M0Type": "Included",
            "LabelingDuration": [0.0, *METADATA["LabelingDuration"], 0.0],
            "PostLabelingDelay": [0.0, *METADATA["PostLabelingDelay"], 0.0],
            "RepetitionTimePreparation": times,
        },
        m0=None,
    )
    messages = read(root)[1]
    assert mentions(messages, note, "raises it by") if note else messages == ()


@pytest.mark.accepted("An M0 scan without a repetition time: not checked, a note says so")
def test_missing_repetition_time_of_m0_is_noted(tmp_path):
    root = write_dataset(tmp_path)
    (root / "sub-01" / "perf" / "sub-01_m0scan.json").unlink()
    assert mentions(read(root)[1], "sub-01_m0scan.nii.gz", "could not be checked")


WITH_M0 = ("m0scan", "deltam", "deltam", "deltam")


@pytest.mark.parametrize(
    ("types", "keys"),
    [
        accepted("One `EchoTime` for all volumes", ("deltam",) * 3, {"EchoTime": 0.03}),
        accepted("`EchoTime` of each volume, all alike", ("deltam",) * 3, {"EchoTime": [0.03] * 3}),
        accepted(
            "M0 volumes in the series of another `EchoTime` or `FlipAngle`",
            WITH_M0,
            {"EchoTime": [0.01, 0.03, 0.03, 0.03], "FlipAngle": [20, 90, 90, 90]},
        ),
        accepted(
            "`FlipAngle` of 60 degrees and more, as EPI, 3D GRASE and balanced SSFP have it",
            ("deltam",) * 3,
            {"FlipAngle": [60, 70, 180], "LookLocker": False},
        ),
        (("deltam",) * 3, {"FlipAngle": None, "EchoTime": None}),
    ],
)
def test_readouts(tmp_path, types, keys):
    extra = [0.0] * types.count("m0scan")
    timing = {key: extra + METADATA[key] for key in ("LabelingDuration", "PostLabelingDelay")}
    volumes = np.concatenate([M0[..., None]] * len(extra) + [DELTA_M], -1)
    kind = {"M0Type": "Included" if extra else "Separate"}
    root = write_dataset(tmp_path, volumes=volumes, types=types, metadata=timing | kind | keys)
    data, messages = read(root)
    np.testing.assert_array_equal(data.delta_m, DELTA_M)
    assert messages == ()


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        accepted(
            "Volumes without excitation (`noRF`): left out, a note says so",
            "noRF",
            "volumes without excitation (noRF)",
        ),
        accepted("Volumes of type `n/a`: left out, a note says so", "n/a", "volumes of type n/a"),
    ],
)
def test_volumes_that_are_no_perfusion_are_left_out(tmp_path, kind, what):
    noise = np.full((*SHAPE, 1), np.nan, np.float32)
    root = write_dataset(
        tmp_path,
        volumes=np.concatenate([noise, DELTA_M, noise], -1),
        types=(kind, "deltam", "deltam", "deltam", kind),
        metadata={
            "LabelingDuration": [0.0, *METADATA["LabelingDuration"], 0.0],
            "PostLabelingDelay": [-1.0, *METADATA["PostLabelingDelay"], 0.0],
            "FlipAngle": [0, 90, 90, 90, 0],
        },
    )
    data, messages = read(root)
    np.testing.assert_array_equal(data.delta_m, DELTA_M)
    np.testing.assert_allclose(data.protocol.pld, PROTOCOL.pld)
    assert messages == (f"{what} are left out: 2",)


def test_volumes_without_excitation_are_left_out_of_cycles(tmp_path):
    images = encode(DELTA_M, CONTROL[..., 0], encoding_matrix(4)).astype(np.float32)
    metadata = {
        "LabelingDuration": 2.0,
        "PostLabelingDelay": 0.25,
        "TimeEncodedMatrixSize": 4,
        "TimeEncodedMatrixType": "hadamard",
        "TimeEncodedSubBolusDurations": PROTOCOL.label_duration.tolist(),
    }
    volumes = np.concatenate([images, np.zeros((*SHAPE, 1), np.float32)], -1)
    types = ("control", "label", "label", "label", "noRF")
    data, _ = read(write_dataset(tmp_path, volumes=volumes, types=types, metadata=metadata))
    np.testing.assert_allclose(data.delta_m, DELTA_M, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "efficiency", "note"),
    [
        accepted(
            "`LabelingEfficiency` stated: used as it is",
            {"LabelingEfficiency": 0.7, "BackgroundSuppression": True},
            0.7,
            None,
        ),
        accepted(
            "`LabelingEfficiency` not stated: 0.85, a note says so",
            {"LabelingEfficiency": None},
            0.85,
            "default",
        ),
        accepted(
            "Background suppression with a count of pulses: 0.85 times 0.95 for each",
            {
                "LabelingEfficiency": None,
                "BackgroundSuppression": True,
                "BackgroundSuppressionNumberPulses": 2,
            },
            0.85 * 0.95**2,
            "2 background-suppression pulses",
        ),
        accepted(
            "Background suppression with pulses not counted: 0.85, a note says so",
            {"LabelingEfficiency": None, "BackgroundSuppression": True},
            0.85,
            "losses are left out",
        ),
        accepted("Continuous labelling (CASL)", {"ArterialSpinLabelingType": "CASL"}, 0.8, None),
        accepted(
            "CASL without `LabelingEfficiency`: 0.68 (amplitude-modulated control), a note says so",
            {"ArterialSpinLabelingType": "CASL", "LabelingEfficiency": None},
            0.68,
            "default for CASL",
        ),
        accepted(
            "PASL without `LabelingEfficiency`: 0.98, a note says so",
            PULSED | {"LabelingEfficiency": None},
            0.98,
            "default for PASL",
        ),
    ],
)
def test_labeling_efficiency(tmp_path, changes, efficiency, note):
    data, notes = read_run(find_runs(write_dataset(tmp_path, metadata=changes))[0])
    assert data.protocol.labeling_efficiency == pytest.approx(efficiency)
    assert notes.constants["LabelingEfficiency"] == pytest.approx(efficiency)
    assert mentions(notes.messages, note) if note else notes.messages == ()


@pytest.mark.parametrize(
    "changes",
    [
        accepted(
            "Pulsed labelling (PASL) cut off by QUIPSS II: `PostLabelingDelay` is the inversion "
            "time, `BolusCutOffDelayTime` the duration of the bolus",
            {},
        ),
        accepted(
            "PASL cut off by Q2TIPS: the first of the two times of `BolusCutOffDelayTime`",
            {"BolusCutOffTechnique": "Q2TIPS", "BolusCutOffDelayTime": [0.7, 1.6]},
        ),
        {"LabelingDuration": 0.01},  # of the pulse, and no business of the bolus
    ],
)
def test_pulsed_labelling(tmp_path, changes):
    """The first image is read before the bolus is cut off, so that its delay is negative."""
    data, notes = read_run(find_runs(write_dataset(tmp_path, metadata=PULSED | changes))[0])
    assert data.protocol.labeling == "pulsed"
    np.testing.assert_allclose(data.protocol.t, [0.5, 1.2, 1.9])
    np.testing.assert_allclose(data.protocol.label_duration, 0.7)
    np.testing.assert_allclose(data.protocol.pld, [-0.2, 0.5, 1.2])
    np.testing.assert_array_equal(data.delta_m, DELTA_M)
    assert notes.constants["ArterialSpinLabelingType"] == "PASL"
    assert notes.messages == ()


@pytest.mark.accepted("Control and label images of PASL, repeated: averaged")
def test_pulsed_pairs(tmp_path):
    volumes = np.concatenate([CONTROL, CONTROL - DELTA_M[..., :1]] * 2 + [CONTROL], axis=-1)
    timing = {"PostLabelingDelay": [1.8] * 4 + [0.0]}
    types = ("control", "label", "control", "label", "m0scan")
    root = write_dataset(tmp_path, volumes=volumes, types=types, metadata=PULSED | timing)
    data, _ = read(root)
    np.testing.assert_allclose(data.delta_m, DELTA_M[..., :1], rtol=1e-4)
    np.testing.assert_array_equal(data.n_averages, [2.0])
    np.testing.assert_allclose(data.protocol.t, [1.8])


@pytest.mark.parametrize(
    ("changes", "crushing"),
    [
        ({}, None),
        accepted(
            "`VascularCrushing`: whether arterial signal is suppressed, stated in sidecars and "
            "report",
            {"VascularCrushing": True},
            True,
        ),
        ({"VascularCrushing": False}, False),
        accepted(
            "`VascularCrushingVENC` alone: crushed", {"VascularCrushingVENC": [4, 4, 5]}, True
        ),
        ({"VascularCrushing": False, "VascularCrushingVENC": 0}, False),
    ],
)
def test_vascular_crushing(tmp_path, changes, crushing):
    data, notes = read_run(find_runs(write_dataset(tmp_path, metadata=changes))[0])
    assert data.protocol.vascular_crushing is crushing
    assert data.protocol.labeling == "continuous"
    assert notes.constants.get("VascularCrushing") is crushing


@pytest.mark.parametrize(
    ("direction", "axis", "reverse"),
    [
        accepted("2D readout with `SliceTiming`", None, 2, False),
        ("k", 2, False),
        accepted("`SliceEncodingDirection` of any axis and sign", "k-", 2, True),
        ("j", 1, False),
        ("i-", 0, True),
    ],
)
def test_slices_of_a_2d_readout_are_later(tmp_path, direction, axis, reverse):
    times = [round(0.04 * k, 2) for k in range(SHAPE[axis])]
    metadata = {
        "MRAcquisitionType": "2D",
        "SliceTiming": times,
        "SliceEncodingDirection": direction,
    }
    data, _ = read(write_dataset(tmp_path, metadata=metadata))
    delays = np.moveaxis(data.readout_delay, axis, -1)
    expected = times[::-1] if reverse else times
    np.testing.assert_allclose(delays, np.broadcast_to(expected, delays.shape), rtol=1e-6)


@pytest.mark.accepted("`SliceTiming` beside a 3D readout: ignored, a note says so")
def test_slice_timing_of_a_3d_readout_is_ignored(tmp_path):
    data, messages = read(write_dataset(tmp_path, metadata={"SliceTiming": [0.0, 0.1, 0.2]}))
    assert not data.readout_delay.any()
    assert mentions(messages, "SliceTiming ignored")


@pytest.mark.accepted(
    "Keys of a sidecar inherited from the dataset or the participant, the nearest first"
)
def test_sidecar_keys_are_inherited(tmp_path):
    root = write_dataset(tmp_path, metadata={"LabelingEfficiency": None, "M0Type": None})
    save_json(root / "asl.json", {"LabelingEfficiency": 0.6, "M0Type": "Absent"})
    save_json(root / "sub-01" / "sub-01_asl.json", {"M0Type": "Separate"})
    assert read(root)[0].protocol.labeling_efficiency == 0.6


@pytest.mark.accepted("Sidecars and tables of another acquisition: left alone")
def test_what_has_other_entities_is_not_inherited(tmp_path):
    root = write_dataset(tmp_path)
    perf = root / "sub-01" / "perf"
    (perf / "sub-01_acq-other_asl.json").write_text("{ not JSON")
    (perf / "sub-01_acq-other_aslcontext.tsv").write_text("volume_type\ncbf\n")
    np.testing.assert_array_equal(read(root)[0].delta_m, DELTA_M)


@pytest.mark.accepted("The whole sidecar and aslcontext.tsv inherited from the root of the dataset")
def test_all_metadata_and_volume_types_inherited(tmp_path):
    root = write_dataset(tmp_path)
    perf = root / "sub-01" / "perf"
    (perf / "sub-01_asl.json").rename(root / "asl.json")
    (perf / "sub-01_aslcontext.tsv").rename(root / "aslcontext.tsv")
    np.testing.assert_array_equal(read(root)[0].delta_m, DELTA_M)


@pytest.mark.accepted("Several participants, sessions and runs")
def test_sessions_runs_and_participants(tmp_path):
    write_dataset(tmp_path, stem="sub-01_ses-a_run-2", folder="sub-01/ses-a/perf")
    write_dataset(tmp_path, stem="sub-01_ses-a_run-1", folder="sub-01/ses-a/perf")
    write_dataset(tmp_path, stem="sub-02", folder="sub-02/perf")
    runs = find_runs(tmp_path)
    assert [run.stem for run in runs] == ["sub-01_ses-a_run-1", "sub-01_ses-a_run-2", "sub-02"]
    assert runs[0].folder == Path("sub-01/ses-a/perf")
    assert runs[0].entities == {"sub": "01", "ses": "a", "run": "1"}
    for run in runs:
        _, notes = read_run(run)
        assert (run.folder / f"{run.stem}_m0scan.nii.gz").as_posix() in notes.sources
        assert f"{run.stem}_desc-brain_mask.nii.gz" in notes.sources[-1]
    for label in ("02", "sub-02"):
        assert [run.stem for run in find_runs(tmp_path, [label])] == ["sub-02"]


@pytest.mark.accepted("Links to files, as git-annex and datalad make them")
def test_links(tmp_path):
    root = write_dataset(tmp_path / "dataset")
    store = root / ".git" / "annex"
    store.mkdir(parents=True)
    for path in (root / "sub-01" / "perf").iterdir():
        path.rename(store / path.name)
        path.symlink_to(f"../../.git/annex/{path.name}")
    np.testing.assert_array_equal(read(root)[0].mask, MASK)


@pytest.mark.accepted("A series with a description (`desc-preproc`): maps have that of the method")
def test_description_of_a_series_is_not_that_of_its_maps(tmp_path):
    write_dataset(tmp_path, stem="sub-01_desc-preproc", mask=None)
    (run,) = find_runs(tmp_path)
    assert run.path.name == "sub-01_desc-preproc_asl.nii.gz"
    path = maps_sidecar(tmp_path, run.maps_stem, "nlls", models.get("buxton"))
    assert path == tmp_path / "sub-01" / "perf" / "sub-01_desc-nlls_cbf.json"


@pytest.mark.accepted("A mask given with `--mask`")
def test_given_mask_comes_first(tmp_path):
    root = write_dataset(tmp_path)
    own = np.zeros(SHAPE, np.int16)
    own[2, 2, 1] = 255
    save_nifti(tmp_path / "own.nii", own)
    assert read(root, mask=tmp_path / "own.nii")[0].mask.sum() == 1


@pytest.mark.parametrize(
    "other",
    [
        "masks/sub-01/perf/sub-01_desc-greymatter_mask.nii.gz",
        "masks/sub-01/perf/sub-01_label-WM_mask.nii.gz",
        "masks/sub-01/perf/sub-01_space-T1w_desc-brain_mask.nii.gz",
        "masks/sub-01/perf/sub-01_run-2_desc-brain_mask.nii.gz",
        "masks/sub-01/perf/sub-01_desc-lesion_mask.nii.gz",
        "masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
    ],
)
@pytest.mark.accepted("Masks of a tissue, a lesion, another space or another run: left alone")
def test_mask_of_something_else_is_left(tmp_path, other):
    root = write_dataset(tmp_path)
    save_nifti(root / "derivatives" / other, np.ones(SHAPE, np.uint8))
    np.testing.assert_array_equal(read(root)[0].mask, MASK)


@pytest.mark.accepted("A mask without a description among the derivatives")
def test_mask_without_description_is_found(tmp_path):
    root = write_dataset(tmp_path, mask=None)
    path = root / "derivatives" / "other" / "sub-01" / "perf" / "sub-01_mask.nii"
    save_nifti(path, MASK.astype(np.uint8))
    np.testing.assert_array_equal(read(root)[0].mask, MASK)


@pytest.mark.accepted("ASLPrep: its mask in ASL space (`space-aslref`) beside one in T1w space")
def test_mask_in_the_space_of_the_series(tmp_path):
    root = write_dataset(tmp_path, mask=None)
    place = root / "derivatives" / "aslprep" / "sub-01" / "perf"
    inside = MASK.copy()
    inside[1] = False
    save_nifti(place / "sub-01_space-aslref_desc-brain_mask.nii.gz", inside.astype(np.uint8))
    save_nifti(place / "sub-01_space-T1w_desc-brain_mask.nii.gz", MASK.astype(np.uint8))
    np.testing.assert_array_equal(read(root)[0].mask, inside)


@pytest.mark.accepted(
    "A mask of the anatomy (`derivatives/*/sub-*/anat`) that is on the grid of the series"
)
@pytest.mark.parametrize("on_grid", [True, False])
def test_mask_of_the_anatomy(tmp_path, on_grid):
    root = write_dataset(tmp_path, mask=None)
    place = root / "derivatives" / "smriprep" / "sub-01" / "anat"
    inside = MASK.astype(np.uint8) if on_grid else np.ones((9, 9, 9), np.uint8)
    save_nifti(place / "sub-01_acq-mprage_desc-brain_mask.nii.gz", inside)
    data, messages = read(root)
    assert mentions(messages, "no mask in the dataset") != on_grid
    if on_grid:
        np.testing.assert_array_equal(data.mask, MASK)


@pytest.mark.accepted(
    "ASLPrep: its preprocessed series in ASL space, in place of the acquired one (`--preprocessed`)"
)
def test_preprocessed_series(tmp_path):
    root = write_dataset(tmp_path)
    place = root / "derivatives" / "aslprep" / "sub-01" / "perf"
    save_nifti(place / "sub-01_desc-preproc_asl.nii.gz", 2 * DELTA_M)
    save_nifti(place / "sub-01_space-T1w_desc-preproc_asl.nii.gz", DELTA_M[:-1])
    np.testing.assert_array_equal(read(root)[0].delta_m, DELTA_M)
    data, notes = read_run(find_runs(root)[0], use_preprocessed=True)
    np.testing.assert_array_equal(data.delta_m, 2 * DELTA_M)
    assert "derivatives/aslprep/sub-01/perf/sub-01_desc-preproc_asl.nii.gz" in notes.sources


@pytest.mark.accepted("A delay of the readout for each voxel (`--readout_delay=FILE`)")
def test_readout_delay_of_each_voxel(tmp_path):
    root = write_dataset(tmp_path)
    delays = np.random.default_rng(4).uniform(0.0, 0.5, SHAPE).astype(np.float32)
    save_nifti(root / "delays.nii.gz", delays)
    data, _ = read(root, readout=root / "delays.nii.gz")
    np.testing.assert_array_equal(data.readout_delay, delays)


@pytest.mark.accepted("No mask: one is made from M0, a note says so")
def test_mask_made_from_m0(tmp_path):
    shape = (24, 24, 3)
    brain = np.zeros(shape, bool)
    brain[4:20, 4:20] = True
    m0 = np.where(brain, 1000.0, 10.0) + np.random.default_rng(0).normal(0, 5, shape)
    volumes = np.ones((*shape, 3), np.float32)
    data, messages = read(
        write_dataset(tmp_path, volumes=volumes, m0=m0.astype(np.float32), mask=None)
    )
    overlap = 2 * (data.mask & brain).sum() / (data.mask.sum() + brain.sum())
    assert overlap > 0.9
    assert mentions(messages, "made one", "M0")


@pytest.mark.accepted(
    "NaN, infinite values or M0 of zero in some voxels: skipped and counted, a note says so"
)
def test_bad_voxels_are_kept_as_nan_and_counted(tmp_path):
    volumes, m0 = DELTA_M.copy(), M0.copy()
    volumes[2, 2, 0, 1] = np.nan
    volumes[2, 3, 0, 0] = np.inf
    volumes[0, 0, 0, 0] = np.nan
    m0[3, 3, 1] = -1.0
    data, notes = read_run(find_runs(write_dataset(tmp_path, volumes=volumes, m0=m0))[0])
    assert notes.n_skipped == 3
    assert mentions(notes.messages, f"3 of {MASK.sum()}", "skipped")
    assert np.isnan(data.delta_m[2, 2, 0, 1])
    assert data.valid.sum() == MASK.sum() - 3


@pytest.mark.parametrize(
    "place",
    [
        accepted("A T1 map of the participant (`--t1_tissue=map`)", "map"),
        accepted("A T1 map given with `--t1_tissue=FILE`", "path"),
    ],
)
def test_t1_map(tmp_path, place):
    root = write_dataset(tmp_path)
    t1 = np.linspace(0.8, 1.6, MASK.size, dtype=np.float32).reshape(SHAPE)
    path = root / "sub-01" / "anat" / "sub-01_T1map.nii.gz"
    save_nifti(path, t1)
    given = "map" if place == "map" else path
    data, notes = read_run(find_runs(root)[0], t1_tissue=given, t1_blood=1.6)
    np.testing.assert_array_equal(data.t1_tissue, t1)
    assert data.protocol.t1_blood == 1.6
    assert (notes.constants["T1Blood"], notes.constants["T1BloodSource"]) == (1.6, "--t1_blood")
    assert "T1Tissue" not in notes.constants
    assert notes.sources[-1] == "sub-01/anat/sub-01_T1map.nii.gz"


@pytest.mark.parametrize(
    ("field_strength", "t1_blood", "t1_tissue", "noted"),
    [
        accepted(
            "`MagneticFieldStrength` of 1.5 or 7 T: T1 of blood and tissue are those there, "
            "notes say so",
            1.5,
            1.35,
            1.20,
            "1.5 T",
        ),
        (7, 2.09, 1.94, "7 T"),
        (6.98, 2.09, 1.94, "7 T"),
        accepted(
            "`MagneticFieldStrength` within 10 % of 3 T: T1 of blood and tissue are those at 3 T",
            2.89362,
            1.65,
            1.33,
            None,
        ),
        (3.0, 1.65, 1.33, None),
        accepted(
            "No `MagneticFieldStrength`: taken as 3 T, a note says so", None, 1.65, 1.33, "3 T"
        ),
    ],
)
def test_t1_by_field_strength(tmp_path, field_strength, t1_blood, t1_tissue, noted):
    root = write_dataset(tmp_path, metadata={"MagneticFieldStrength": field_strength})
    data, notes = read_run(find_runs(root)[0])
    assert data.protocol.t1_blood == t1_blood
    np.testing.assert_array_equal(data.t1_tissue, np.float32(t1_tissue))
    assert (notes.constants["T1Blood"], notes.constants["T1Tissue"]) == (t1_blood, t1_tissue)
    for name in ("T1Blood", "T1Tissue"):
        assert re.fullmatch(
            r".+ et al\., .+ 20\d\d;\d+:\d+-\d+, at .+ T", notes.constants[f"{name}Source"]
        )
    if noted is None:
        assert notes.messages == ()
    else:
        assert mentions(notes.messages, "arterial blood", f"{t1_blood:g} s", noted)
        assert mentions(notes.messages, "of tissue", f"{t1_tissue:g} s", noted)


@pytest.mark.accepted("Another field strength, where `--t1_blood` and `--t1_tissue` give T1")
def test_given_t1_comes_before_the_field_strength(tmp_path):
    root = write_dataset(tmp_path, metadata={"MagneticFieldStrength": 9.4})
    data, notes = read_run(find_runs(root)[0], t1_blood=2.4, t1_tissue=1.9)
    assert data.protocol.t1_blood == 2.4
    np.testing.assert_array_equal(data.t1_tissue, np.float32(1.9))
    assert notes.messages == ()
    assert (
        notes.constants.items()
        >= {
            "ArterialSpinLabelingType": "PCASL",
            "LabelingEfficiency": 0.8,
            "T1Blood": 2.4,
            "T1BloodSource": "--t1_blood",
            "T1Tissue": 1.9,
            "T1TissueSource": "--t1_tissue",
        }.items()
    )


def test_one_given_t1_leaves_the_other_to_the_field_strength(tmp_path):
    root = write_dataset(tmp_path, metadata={"MagneticFieldStrength": 7})
    data, notes = read_run(find_runs(root)[0], t1_tissue=1.5)
    assert data.protocol.t1_blood == 2.09
    np.testing.assert_array_equal(data.t1_tissue, np.float32(1.5))
    assert mentions(notes.messages, "arterial blood")
    assert not mentions(notes.messages, "of tissue")


def test_t1_rises_with_the_field():
    for lower, higher in itertools.pairwise(RELAXATION_TIMES):
        assert lower.field_strength < higher.field_strength
        assert lower.t1_blood < higher.t1_blood
        assert lower.t1_tissue < higher.t1_tissue


@pytest.mark.skipif(not INVIVO.is_dir(), reason="the in vivo dataset is not beside the repository")
def test_in_vivo_dataset():
    (run,) = find_runs(INVIVO, ["01"])
    data, notes = read_run(run)
    assert data.delta_m.shape == (35, 35, 5, 7)
    np.testing.assert_allclose(data.protocol.label_duration.sum(), 3.5)
    np.testing.assert_allclose(data.protocol.t[-1], 3.67)
    assert data.valid.sum() == data.mask.sum() == 5800
    assert data.protocol.labeling_efficiency == 0.85
    assert mentions(notes.messages, "background-suppression")
