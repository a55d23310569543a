"""M0, labelling efficiency, partition coefficient and T1 of blood, as the user wants them."""

import json

import numpy as np
import pytest
from bids_fixtures import AFFINE, DELTA_M, M0, MASK, SHAPE, save_json, save_nifti, write_dataset

import asl_pinn as asl
from asl_pinn.acquisition.calibration import Calibration
from asl_pinn.acquisition.equilibrium import (
    from_reference,
    reference,
    relaxed_fraction,
    relaxed_fraction_of_tissues,
    smoothed,
    without_rim,
)
from asl_pinn.errors import InputError
from asl_pinn.io.bids import find_runs, read_run
from asl_pinn.workflow.cli import main


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data")


def read(root, **calibration):
    return read_run(find_runs(root)[0], calibration=Calibration(**calibration))


def repetition_time(root, seconds):
    save_json(root / "sub-01/perf/sub-01_m0scan.json", {"RepetitionTimePreparation": seconds})


def test_constants_of_the_user_come_before_those_of_the_dataset(dataset):
    data, notes = read(dataset, labeling_efficiency=0.7, partition_coefficient=0.95)
    assert (data.protocol.labeling_efficiency, data.protocol.partition_coefficient) == (0.7, 0.95)
    assert notes.constants["LabelingEfficiencySource"] == "--labeling_efficiency"
    assert notes.constants["PartitionCoefficient"] == 0.95


def test_every_assumption_is_stated(dataset):
    repetition_time(dataset, 2.0)
    stated = read(dataset)[1].constants
    assert stated["M0Source"] == "sub-01/perf/sub-01_m0scan.nii.gz"
    assert stated["M0RepetitionTime"] == [2.0]
    expected = 100.0 * (1.0 / (1.0 - np.exp(-2.0 / 1.33)) - 1.0)
    assert stated["M0RelaxationCorrectionPercent"] == pytest.approx(expected, abs=1e-3)
    assert stated["MaskSource"].endswith("sub-01_desc-brain_mask.nii.gz")
    assert stated["LabelingEfficiencySource"] == "LabelingEfficiency"
    assert (len(stated["LabelingDuration"]), len(stated["PostLabelingDelay"])) == (3, 3)
    assert stated["Averages"] == [1.0, 1.0, 1.0]
    assert (stated["M0Type"], stated["M0Scale"], stated["M0Reference"]) == (
        "Separate",
        1.0,
        "voxel",
    )


def test_a_given_m0_takes_the_place_of_the_datasets(dataset):
    data, notes = read(dataset, m0="250", m0_scale=2.0)
    np.testing.assert_array_equal(data.m0, np.float32(500.0))
    assert notes.constants["M0Source"] == "250"
    path = dataset / "sub-01" / "perf" / "other.nii.gz"
    save_nifti(path, 3 * M0)
    data, notes = read(dataset, m0=str(path))
    np.testing.assert_array_equal(data.m0, 3 * M0)
    assert "sub-01/perf/other.nii.gz" in notes.sources
    save_json(path.with_name("other.json"), {"RepetitionTimePreparation": 2.5})
    data, notes = read(dataset, m0=str(path))
    np.testing.assert_allclose(data.m0, 3 * M0 / relaxed_fraction(2.5, 1.33), rtol=1e-5)


def test_each_m0_volume_is_corrected_by_its_own_repetition_time(tmp_path):
    back = relaxed_fraction(2.0, 1.33)
    root = write_dataset(tmp_path, m0=np.stack([M0, back * M0], -1).astype(np.float32))
    repetition_time(root, [8.0, 2.0])
    np.testing.assert_allclose(read(root)[0].m0, M0, rtol=1e-5)


def test_relaxation_follows_the_tissues(dataset):
    place = dataset / "derivatives" / "tissues" / "sub-01" / "perf"
    gm = np.zeros(SHAPE, np.float32)
    gm[:3] = 1.0
    save_nifti(place / "sub-01_label-GM_probseg.nii.gz", gm)
    save_nifti(place / "sub-01_label-WM_probseg.nii.gz", np.where(MASK, 1.0 - gm, 0.0))
    repetition_time(dataset, 2.0)
    data, _ = read(dataset)
    ratio = (data.m0 / M0)[:, 2, 1]
    np.testing.assert_allclose(ratio[1:5], 1.0 / relaxed_fraction(2.0, [1.33, 1.33, 0.83, 0.83]))
    np.testing.assert_allclose(ratio[5], 1.0 / relaxed_fraction(2.0, 4.3))  # fluid


def test_relaxation_of_a_mixture_lies_between_those_of_its_tissues():
    grey, white = relaxed_fraction(2.0, 1.33), relaxed_fraction(2.0, 0.83)
    half = relaxed_fraction_of_tissues(2.0, np.array([0.5]), np.array([0.5]), 1.33, 0.83)
    assert grey < half[0] < white
    assert half[0] == pytest.approx((0.98 * grey + 0.82 * white) / 1.8)


def test_a_rim_takes_the_values_inside_it():
    mask = np.zeros((12, 12, 1), bool)
    mask[1:11, 1:11] = True
    m0 = np.where(mask, 100.0, 5.0).astype(np.float32)
    m0[1], m0[3, 3] = 20.0, 120.0
    found = without_rim(m0, mask, 1, AFFINE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1, 6:10], 100.0, rtol=1e-3)
    np.testing.assert_array_equal(found[2:10, 2:10], m0[2:10, 2:10])
    np.testing.assert_array_equal(found[~mask], m0[~mask])
    assert 100.0 < found[1, 3, 0] < 110.0  # averaged over the neighbours of the nearest
    with pytest.raises(InputError, match="a rim of 9 voxels is all of the mask"):
        without_rim(m0, mask, 9, AFFINE)


def test_the_edge_of_the_image_is_no_edge_of_the_brain():
    mask = np.ones((6, 6, 3), bool)
    m0 = np.random.default_rng(0).uniform(1.0, 2.0, mask.shape)
    np.testing.assert_array_equal(without_rim(m0, mask, 1, AFFINE), m0)


def test_smoothing_keeps_to_the_mask():
    m0 = np.where(MASK, 100.0, 0.0)
    np.testing.assert_allclose(smoothed(m0, MASK, 8.0, AFFINE), m0)
    noisy = m0 * np.random.default_rng(0).normal(1.0, 0.2, SHAPE)
    assert smoothed(noisy, MASK, 8.0, AFFINE)[MASK].std() < 0.5 * noisy[MASK].std()


@pytest.mark.parametrize(("label", "coefficient"), [("CSF", 1.15), ("WM", 0.82)])
def test_a_reference_gives_m0_of_blood(label, coefficient):
    m0 = np.full((4, 4, 1), 100.0)
    m0[:2] *= 2.0
    made, value = from_reference(m0, m0 > 150.0, reference(label, 0.83), 0.9)
    assert value == 200.0
    np.testing.assert_allclose(made / 0.9, 200.0 / coefficient)
    even, value = from_reference(m0, m0 > 150.0, reference(label, 0.83), 0.9, m0 / 100.0)
    assert value == 100.0
    np.testing.assert_allclose(even, made * m0 / 200.0)


def test_a_reference_by_its_mask_is_relaxed_by_its_own_t1(dataset):
    repetition_time(dataset, 6.0)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2:4] = 1
    save_nifti(dataset.parent / "csf.nii.gz", mask)
    options = {"m0_reference": "csf", "m0_reference_mask": str(dataset.parent / "csf.nii.gz")}
    data, notes = read(dataset, **options)
    expected = 1000.0 / relaxed_fraction(6.0, 4.3) * 0.9 / 1.15
    np.testing.assert_allclose(data.m0, expected, rtol=1e-5)
    assert any("T2*" in note for note in notes.messages)
    assert notes.constants["M0ReferenceVoxels"] == mask.sum()
    assert any(source.endswith("csf.nii.gz") for source in notes.sources)
    with pytest.raises(InputError, match="give --m0_reference_mask, --gm and --wm, or a T1 map"):
        read(dataset, m0_reference="wm")


def participants(root, text):
    (root / "participants.tsv").write_text(text)
    return read(root)


@pytest.mark.parametrize(
    ("text", "t1", "source"),
    [
        ("participant_id\thematocrit\nsub-01\t0.36\n", 1 / (0.52 * 0.36 + 0.38), "hematocrit"),
        ("participant_id\tHct\nsub-01\t36\n", 1 / (0.52 * 0.36 + 0.38), "hct"),
        ("participant_id\tt1_blood\thematocrit\nsub-01\t1.8\t0.4\n", 1.8, "t1_blood"),
        ("participant_id\thematocrit\nsub-01\tn/a\n", 1.65, "Alsop"),
        ("participant_id\thematocrit\nsub-02\t0.36\n", 1.65, "Alsop"),
        ("participant_id\thematocrit\nsub-01\n", 1.65, "Alsop"),
    ],
)
def test_blood_is_that_of_the_participant(dataset, text, t1, source):
    data, notes = participants(dataset, text)
    assert data.protocol.t1_blood == pytest.approx(t1)
    assert source in notes.constants["T1BloodSource"]
    damaged = text.endswith("\nsub-01\n")
    assert bool(notes.messages) == (damaged or source != "Alsop")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("participant_id\thematocrit\nsub-01\t0.9\n", "hematocrit of sub-01 is '0.9'; give a"),
        ("participant_id\tt1_blood\nsub-01\t1650\n", "t1_blood of sub-01 is '1650'; give seconds"),
    ],
)
def test_blood_that_nobody_has_is_refused(dataset, text, fault):
    with pytest.raises(InputError, match=fault):
        participants(dataset, text)


def test_hematocrit_is_used_at_3_t_alone(tmp_path):
    root = write_dataset(tmp_path, metadata={"MagneticFieldStrength": 7})
    data, notes = participants(root, "participant_id\thematocrit\nsub-01\t0.36\n")
    assert data.protocol.t1_blood == 2.09
    assert any("is not used" in note for note in notes.messages)


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--labeling_efficiency=85"], "above 0 and at most 1, it is 85"),
        (["--partition_coefficient=0"], "above 0 and at most 2 mL/g, it is 0"),
        (["--m0_scale=-1"], "--m0_scale must be a positive number, it is -1"),
        (["--m0=-3"], "--m0 must be a positive number or an image"),
        (["--m0=/none.nii.gz"], "/none.nii.gz: no such file"),
        (["--m0_smoothing=-1"], "zero or more millimetres, it is -1"),
        (["--m0_rim=-1"], "zero or more voxels, it is -1"),
        (["--m0_rim=3"], "a rim of 3 voxels is all of the mask"),
        (["--m0_reference_mask=x.nii"], "needs --m0_reference=csf or --m0_reference=wm"),
    ],
)
def test_calibration_that_cannot_be_is_refused_in_one_line(dataset, capsys, flags, fault):
    out = dataset.parent / "out"
    assert main(["asl-pinn", "quantify", str(dataset), str(out), "participant", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fault in line


@pytest.mark.usefixtures("plain_pictures")
def test_calibration_scales_cbf_and_is_repeated_from_a_sidecar(dataset, capsys):
    out = dataset.parent / "out"
    command = ["asl-pinn", "quantify", str(dataset), str(out), "participant", "--method=nlls"]
    command += ["--model=buxton", "--m0=2000", "--labeling_efficiency=0.7", "--m0_rim=1"]
    assert main(command) == 0
    path = out / "sub-01" / "perf" / "sub-01_desc-nlls_cbf.json"
    stated = json.loads(path.read_text())
    assert stated["Reading"]["calibration"]["m0"] == "2000"
    assert stated["LabelingEfficiency"] == 0.7
    counts = stated["VoxelCounts"]
    assert counts["Mask"] == sum(counts.values()) - counts["Mask"] == MASK.sum()
    before = path.with_name("sub-01_desc-nlls_cbf.nii.gz").read_bytes()
    other = dataset.parent / "again"
    assert main(["asl-pinn", "quantify", f"--from={path}", str(other)]) == 0
    assert (other / "sub-01/perf/sub-01_desc-nlls_cbf.nii.gz").read_bytes() == before
    capsys.readouterr()
    assert main(["asl-pinn", "quantify", f"--from={path}", "--m0=3"]) == 2
    assert "--m0: --from takes it from the sidecar" in capsys.readouterr().err


def test_python_takes_the_same_words(dataset):
    data = asl.load(dataset, m0=500.0, labeling_efficiency=0.75)
    assert (float(data.m0.max()), data.protocol.labeling_efficiency) == (500.0, 0.75)
    np.testing.assert_array_equal(data.delta_m, DELTA_M)
    with pytest.raises(InputError, match="load has no option 'm0_scales'"):
        asl.load(dataset, m0_scales=2.0)
